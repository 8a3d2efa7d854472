"""True models with nothing in their weights, and a meter for the code that runs on them."""
