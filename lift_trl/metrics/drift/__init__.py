"""`evaluate.load` module of drift against a base."""
