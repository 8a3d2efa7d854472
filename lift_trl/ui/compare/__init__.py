"""Base and aligned clip of one prompt and seed side by side, ready or made on demand."""
