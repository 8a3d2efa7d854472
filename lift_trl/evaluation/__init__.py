"""Evaluation: VBench, win rates, drift alarms, second judges, preference benchmarks, and the report of all of them."""
