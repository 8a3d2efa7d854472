"""Stage 2: LiFT-Critic, a vision-language model that rates a video on three dimensions and says why."""
