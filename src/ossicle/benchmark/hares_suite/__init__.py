"""The twelve sets of HARES, each read in its official layout: one file a set."""
