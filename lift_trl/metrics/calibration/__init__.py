"""`evaluate.load` module of calibration."""
