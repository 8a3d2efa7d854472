"""Stage 1, human feedback: LiFT-HRA in and out, raters' agreement, prompts, and the three-step correction."""
