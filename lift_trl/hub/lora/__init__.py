"""LoRA files: written so that diffusers reads them, and loaded into a pipeline."""
