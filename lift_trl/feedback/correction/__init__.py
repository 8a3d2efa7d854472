"""The three-step correction: a coarse filter, a loop of two halves, and a queue that people review."""
