"""The pages of the Spaces: arena (blind votes), annotate (ratings with reasons), compare (base and aligned side by side)."""
