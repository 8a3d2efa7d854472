"""Clips to training samples: read, rated, encoded once into a cache, and served from it."""
