"""The experiments of the literature, each one command."""
