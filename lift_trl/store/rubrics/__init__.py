"""Rubrics on disk: as plain data, and as found beside the data that was made with one."""
