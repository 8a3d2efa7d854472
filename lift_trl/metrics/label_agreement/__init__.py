"""`evaluate.load` module of the agreement of labels."""
