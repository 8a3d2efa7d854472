"""`evaluate.load` module of the agreement of a judge with votes of people."""
