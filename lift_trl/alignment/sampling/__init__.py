"""Videos from a model: settings, generation of a whole artefact, and validation during training."""
