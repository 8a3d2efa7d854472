"""A trainer that samples validation videos of a LoRA that does something, in one process or in several."""

from pathlib import Path

from peft import LoraConfig

from tests.alignment.conftest import make_trainer


PROMPTS = ["a red circle moving left", "a blue square moving up", "a green triangle moving down"]


def validating_trainer(pipeline, output_dir: Path, dataset):
    """Three prompts, guidance and a LoRA whose both halves are drawn, from the trainer's seed."""
    return make_trainer(
        pipeline,
        output_dir,
        dataset,
        peft_config=LoraConfig(r=4, lora_alpha=16, init_lora_weights=False),
        validation_prompts=PROMPTS,
        validation_num_inference_steps=2,
        validation_guidance_scale=3.0,
    )
