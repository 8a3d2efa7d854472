"""Modules for `evaluate.load(path)`: thin wrappers, one folder each, over the functions of the stages."""
