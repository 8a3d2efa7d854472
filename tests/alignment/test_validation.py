"""Validation videos are the pipeline's own call: the base's twin without the LoRA, the step's with it."""

import numpy as np
import pytest
import torch
from diffusers import CogVideoXPipeline
from peft import LoraConfig

from lift_trl.alignment.data.cache import cache_videos
from lift_trl.alignment.data.video_dataset import CachedVideoDataset
from lift_trl.alignment.sampling.validation import ValidationVideos
from lift_trl.records import seed_from
from lift_trl.store.video_io import read_video, write_video
from tests.alignment.conftest import make_trainer


PROMPTS = ["a red circle moving left", "a blue square moving up", "a green triangle moving down"]


@pytest.fixture
def oblong(tmp_path, pipeline_dir, rated_videos) -> CachedVideoDataset:
    size = {"num_frames": 9, "height": 32, "width": 48}
    return CachedVideoDataset(cache_videos(pipeline_dir, rated_videos[:4], tmp_path / "cache", **size))


def test_base_twin_and_step_are_the_pipelines_own_call(tmp_path, pipeline_dir, oblong):
    """The third prompt, on a clip that is not square, with guidance, a negative prompt and a LoRA that does something."""
    own_notes, earlier = (tmp_path / "run" / "validation" / name for name in ("notes.txt", f"00-{16 * 'a'}/base.mp4"))
    earlier.parent.mkdir(parents=True)
    for file in (own_notes, earlier):
        file.write_bytes(b"there before")
    trainer = make_trainer(
        pipeline_dir, tmp_path / "run", oblong, peft_config=LoraConfig(r=4, lora_alpha=16, init_lora_weights=False),
        validation_prompts=PROMPTS, validation_num_inference_steps=2, validation_guidance_scale=3.0,
        validation_negative_prompt="blurry", validation_seed=11,
    )  # fmt: skip
    (callback,) = (one for one in trainer.callback_handler.callbacks if isinstance(one, ValidationVideos))
    callback.on_train_begin(trainer.args, trainer.state, trainer.control, model=trainer.model)
    trainer.state.global_step = 1
    callback.on_train_end(trainer.args, trainer.state, trainer.control, model=trainer.model)
    trainer.save_model()
    pipe = CogVideoXPipeline.from_pretrained(pipeline_dir)

    def own(name: str) -> np.ndarray:
        frames = pipe(
            prompt=PROMPTS[2],
            negative_prompt="blurry",
            num_frames=9,
            height=32,
            width=48,
            num_inference_steps=2,
            guidance_scale=3.0,
            max_sequence_length=pipe.transformer.config.max_text_seq_length,
            generator=torch.Generator().manual_seed(seed_from("validation", 11, PROMPTS[2])),
            output_type="np",
        ).frames[0]
        write_video(tmp_path / name, (frames * 255).round().astype(np.uint8), fps=8)
        return read_video(tmp_path / name).frames

    assert own_notes.read_bytes() == b"there before" and not earlier.parent.exists()
    folder = sorted((tmp_path / "run" / "validation").glob("*/"))[2]
    base = own("base.mp4")
    assert np.array_equal(read_video(folder / "base.mp4").frames, base)
    pipe.load_lora_weights(tmp_path / "run")
    tuned = own("tuned.mp4")
    assert np.array_equal(read_video(folder / "step-1.mp4").frames, tuned) and not np.array_equal(base, tuned)
