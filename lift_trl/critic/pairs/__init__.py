"""Pairs of clips that people compared, as training data of a critic."""
