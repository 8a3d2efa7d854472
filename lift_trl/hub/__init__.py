"""What goes to the Hub: LoRA files that diffusers reads, and cards."""
