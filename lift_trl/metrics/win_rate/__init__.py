"""`evaluate.load` module of win rates."""
