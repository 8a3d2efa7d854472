"""`evaluate.load` module of VBench's aggregate scores."""
