"""How the mini world's checkpoints came to be: VAE, denoiser and VLM, trained from nothing."""
