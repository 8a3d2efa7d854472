"""Validation videos: the same prompts and seeds from the base model and from the model in training, side by side."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.logging import get_logger
from peft import PeftModel
from transformers import TrainerCallback

from ...hub.gallery import PROMPT_FILE, VALIDATION
from ...prefetch import behind
from ...protocols import VideoModel
from ...records import content_id, seed_from
from ...runtime import release_memory
from ...store.manifest import write_text
from ...store.video_io import write_video
from ...video_models import PipelineSource
from ..data.text_cache import TextCache
from .settings import TILING_PIXELS
from .trackers import log_videos


if TYPE_CHECKING:
    from ..reward_weighted_config import RewardWeightedVideoConfig

logger = get_logger(__name__)


def validation_guidance(args: "RewardWeightedVideoConfig", model: VideoModel) -> tuple[float, str]:
    """Guidance scale and negative prompt of validation videos: what `args` says, else the family's."""
    scale, negative = args.validation_guidance_scale, args.validation_negative_prompt
    return model.guidance_scale if scale is None else scale, model.negative_prompt if negative is None else negative


class ValidationVideos(TrainerCallback):
    """
    Writes `<output_dir>/validation/<prompt>/base.mp4` once, the prompt beside it, and `step-<n>.mp4` every
    `validation_steps` and at the end.
    A run that starts anew removes those of an earlier one.

    The prompts are shared among the processes in equal numbers (some repeat one), so that collective forward passes stay
    in step. The VAE is loaded for decoding only and dropped after. Sampling uses its own generators and never shifts
    training.
    """

    def __init__(
        self,
        source: PipelineSource,
        texts: TextCache,
        clip: Mapping[str, Any],
        args: "RewardWeightedVideoConfig",
        dtype: torch.dtype,
    ) -> None:
        self.source, self.texts, self.dtype = source, texts, dtype
        self.num_frames, self.height, self.width = clip["num_frames"], clip["height"], clip["width"]
        self.fps = clip["fps"]
        self.prompts: list[str] = list(args.validation_prompts or ())
        self.folder = Path(args.output_dir or ".") / VALIDATION
        self.guidance_scale, self.negative_prompt = validation_guidance(args, source.adapter)
        self.sampling = (args.validation_seed, args.validation_num_inference_steps, self.guidance_scale)
        self.last_step = -1
        self.base_is_logged = False

    def path(self, index: int, name: str) -> Path:
        """Where a video of prompt number `index` is: one folder for each prompt and way of sampling it."""
        key = content_id(
            self.prompts[index], self.negative_prompt, *self.sampling, self.num_frames, self.height, self.width
        )
        return self.folder / f"{index:02d}-{key}" / f"{name}.mp4"

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The base model's twins: by switching the adapter off, or of the model before its first step."""
        model, num_prompts = kwargs["model"], len(self.prompts)
        if state.global_step == 0:
            if state.is_world_process_zero:
                for earlier in self.folder.glob(f"[0-9]*-{'[0-9a-f]' * 16}"):  # what else is there is the user's
                    shutil.rmtree(earlier)
            args.distributed_state.wait_for_everyone()
        elif all(self.path(index, "base").is_file() for index in range(num_prompts)):
            return
        if isinstance(model, PeftModel):
            with model.disable_adapter():
                self._sample("base", model, args)
        elif state.global_step == 0:
            self._sample("base", model, args)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Samples at every multiple of `validation_steps`."""
        if args.validation_steps and state.global_step % args.validation_steps == 0:
            self._sample_step(args, state, **kwargs)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Samples the final model."""
        if self.last_step != state.global_step:
            self._sample_step(args, state, **kwargs)

    def _sample_step(self, args: Any, state: Any, **kwargs: Any) -> None:
        self.last_step = state.global_step
        self._sample(f"step-{state.global_step}", kwargs["model"], args)
        args.distributed_state.wait_for_everyone()
        if state.is_world_process_zero:
            # The base's twins with the first videos: trackers open their runs after they were sampled.
            titles = {f"step-{state.global_step}": ""} | ({} if self.base_is_logged else {"base": "/base"})
            videos = {
                f"validation/{index:02d}{title}": self.path(index, name)
                for name, title in titles.items()
                for index in range(len(self.prompts))
                if self.path(index, name).is_file()  # no base: the whole transformer, resumed
            }
            log_videos(
                videos, step=state.global_step, report_to=args.report_to, logging_dir=Path(args.output_dir) / "runs"
            )
            self.base_is_logged = True

    @torch.no_grad()
    def _sample(self, name: str, model: Any, args: Any) -> None:
        """This process's part of the prompts, as `<name>.mp4` each."""
        state = args.distributed_state
        rounds = -(-len(self.prompts) // state.num_processes)
        mine = [(state.process_index + k * state.num_processes) % len(self.prompts) for k in range(rounds)]
        was_training = model.training
        model.eval()
        pipe = self.source.load("vae", dtype=self.dtype, device=state.device)
        if self.height * self.width > TILING_PIXELS:
            pipe.vae.enable_tiling()
        # The trained model itself: FSDP gathers the weights of its outermost module only where that is called.
        pipe.transformer = model
        pipe.set_progress_bar_config(disable=True)
        self.source.adapter.prepare_sampling(pipe, self.guidance_scale)
        with behind() as put:
            for index in mine:
                frames = self._generate(pipe, index, args, state.device)
                put(write_video, self.path(index, name), frames, fps=self.fps)
                put(write_text, self.path(index, name).with_name(PROMPT_FILE), self.prompts[index])
        logger.info("%d validation videos (%s) in %s", len(self.prompts), name, self.folder)
        del pipe
        release_memory()
        model.train(was_training)

    def _generate(self, pipe: Any, index: int, args: Any, device: torch.device) -> np.ndarray:
        """uint8 [F, H, W, 3]."""
        adapter, guided = self.source.adapter, self.guidance_scale > 1
        text = self.texts.batch([self.prompts[index]], device, self.dtype)
        negative = self.texts.batch([self.negative_prompt], device, self.dtype) if guided else None
        generator = torch.Generator().manual_seed(seed_from("validation", args.validation_seed, self.prompts[index]))
        with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            frames = pipe(
                num_inference_steps=args.validation_num_inference_steps,
                generator=generator,
                output_type="np",
                **adapter.pipeline_text(text, negative),
                **adapter.sampling_arguments(self.num_frames, self.height, self.width, self.guidance_scale),
            ).frames[0]
        return np.asarray((frames * 255).round().clip(0, 255), dtype=np.uint8)
