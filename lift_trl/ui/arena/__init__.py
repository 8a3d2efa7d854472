"""Blind votes between two systems, and their results."""
