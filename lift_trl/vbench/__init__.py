"""VBench in an environment of its own: which clips it needs, running it, reading its results."""
