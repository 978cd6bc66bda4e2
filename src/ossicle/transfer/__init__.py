"""From features to a fitted, honestly measured probe."""
