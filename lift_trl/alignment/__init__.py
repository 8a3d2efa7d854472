"""Stage 3: generate, score, cache, align."""
