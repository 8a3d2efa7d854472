"""Intervals, win rates, measures of labels and of order, drift: what any figure of an evaluation is computed by."""
