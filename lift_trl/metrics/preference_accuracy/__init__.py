"""`evaluate.load` module of pairwise preference accuracy."""
