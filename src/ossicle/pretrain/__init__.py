"""Training networks from recordings: objectives, and what feeds them."""
