"""A small world of moving coloured shapes in which every stage of LiFT runs on a laptop, and whose truth is known."""
