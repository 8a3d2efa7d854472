"""`evaluate.load` module of the LiFT reward."""
