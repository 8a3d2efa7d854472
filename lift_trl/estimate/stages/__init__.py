"""What each stage takes: the project's own code, run under the meter."""
