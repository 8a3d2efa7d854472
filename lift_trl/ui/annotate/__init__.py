"""Ratings with reasons, and the correction of those on which critic and rater disagree."""
