"""What scoring with a critic and training one take: the project's own code, run under the meter."""

import tempfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import trl.trainer.utils
from datasets import Dataset
from peft import LoraConfig, get_peft_model

from ...critic.critic_config import LiFTCriticConfig
from ...critic.critic_trainer import LiFTCriticTrainer
from ...critic.pairs.reading import Pair
from ...critic.prefix import ask, encode_questions, end_tokens, label_tokens, run_encoded
from ...critic.reasons import write_reasons
from ...critic.settings import CriticSettings
from ...records import RatedVideo
from ...store.quantization import Quantization
from ...store.video_io import Clip, write_video
from ..weightless.configured import Depths
from ..weightless.configured_vlm import ConfiguredVLM
from ..weightless.depth import at_full_depth
from ..weightless.meter import Count, linear, metering
from .training import count_step, one_step


#: Length of what a rater writes and of what a prompt says, in words.
CAPTION = "A red fox runs through the snow between tall pine trees at dawn while the camera follows it slowly."
REASON = "The fox moves smoothly in most frames, but its hind legs merge for a moment and the snow does not react."
# Tokens of a reason that are counted; every further one is like them.
_TOKENS = 2


@dataclass(frozen=True)
class CriticStages:
    """
    Counts what a chat VLM takes as a critic.

    Attributes:
        vlm: its base.
        settings: how it sees a clip.
        height, width: pixels of the clips.
        lora: on the base when it scores in 8 bits; another is merged before the base comes to a device.
        quantization: of the base when it scores.
    """

    vlm: ConfiguredVLM
    settings: CriticSettings
    height: int = 480
    width: int = 720
    lora: LoraConfig | None = None
    quantization: Quantization | None = None

    @cached_property
    def _clip(self) -> Clip:
        """Six seconds."""
        frames = np.zeros((self.settings.num_frames, self.height, self.width, 3), dtype=np.uint8)
        return Clip(frames, np.linspace(0, 6, self.settings.num_frames), 8.0)

    # ---- Scoring -------------------------------------------------------------------------------------------------

    def scoring(self, batch: int, *, reason_tokens: int) -> Count:
        """
        A batch of clips: frames and captions, all questions and labels, and a reason of `reason_tokens` for each label.

        Decoding of the files runs on the CPU and is not counted.
        """
        return at_full_depth(lambda depths: self._score(batch, reason_tokens, depths), self.vlm.layers)

    @torch.no_grad()
    def _score(self, batch: int, reason_tokens: int, depths: Depths) -> Count:
        adapter, processor = self.settings.adapter(self.vlm.model_type), self.vlm.processor
        rubric = self.settings.rubric
        labels = label_tokens(adapter, processor, rubric)
        questions = [ask(adapter, processor, self._clip, CAPTION, labels, rubric)] * batch
        encoded = encode_questions(adapter, processor, [self._clip] * batch, questions)
        with metering() as meter:
            model = self.vlm.build(meter, torch.bfloat16, depths, self.quantization)
            if self.lora is not None and self.quantization is not None:
                # A released one lists modules by names that a plain LLaVA does not have.
                listed = None if adapter.loads_adapters else self.lora.target_modules
                targets = listed or adapter.lora_target_modules
                with meter.taking("LoRA"):
                    model = get_peft_model(model, replace(self.lora, target_modules=targets)).eval()
            built = meter.count()
            branches = run_encoded(model, adapter, encoded)
            asked = meter.count()
            meter.phase("reasons")
            ends = end_tokens(adapter, processor, model, rubric)
            rest = [labels[label].rest for label in rubric.labels]
            if reason_tokens:
                chosen = branches.logprobs.argmax(dim=-1)
                write_reasons(model, branches, chosen, rest, max_new_tokens=_TOKENS, end_ids=ends)
            counted = meter.count()
        counted_steps = max(map(len, rest)) - 1 + _TOKENS
        steps = (counted_steps + reason_tokens - _TOKENS) / counted_steps if reason_tokens else 0.0
        work = linear([(1.0 - steps, asked), (-1.0, built), (steps, counted)])
        return replace(work, peaks=counted.peaks)

    # ---- Training ------------------------------------------------------------------------------------------------

    def step(
        self, args: LiFTCriticConfig, lora: LoraConfig | None, dtype: torch.dtype, batch: int, *, pairs: int = 0
    ) -> Count:
        """
        One micro-batch of `batch` rows through the trainer, with a step of its optimiser after an earlier one.

        Args:
            args: the run's settings but for the batch.
            lora: `None` trains the whole language model.
            dtype: of the base.
            pairs: compared overall, that go with each row.
        """
        return at_full_depth(
            lambda depths: self.step_of(args, lora, dtype, batch, depths, pairs=pairs), self.vlm.layers
        )

    def step_of(
        self,
        args: LiFTCriticConfig,
        lora: LoraConfig | None,
        dtype: torch.dtype,
        batch: int,
        depths: Depths | None = None,
        *,
        pairs: int = 0,
    ) -> Count:
        """As `step`, run at `depths` themselves."""
        with tempfile.TemporaryDirectory() as folder:
            settings, micro_batches = one_step(args, batch, Path(folder) / "run")
            rows = self._write_ratings(Path(folder), 2 * batch * micro_batches)
            video = RatedVideo("clip", Path(folder) / "clip.mp4", CAPTION)
            compared = [Pair(video, video, self.settings.rubric.dimensions)] * (pairs * len(rows))
            with _answers_alone(), metering() as meter:
                model = self.vlm.build(meter, dtype, depths).requires_grad_(lora is None)
                with meter.taking("trained weights"):
                    trainer = _Unchecked(
                        model,
                        settings,
                        train_dataset=rows,
                        pairs=compared,
                        processing_class=self.vlm.processor,
                        peft_config=lora,
                        rubric=self.settings.rubric,
                    )
                count = count_step(meter, trainer, micro_batches)
                del trainer
        return count

    def _write_ratings(self, folder: Path, count: int) -> Dataset:
        """So many rows of one clip, as `load_hra` gives them."""
        write_video(folder / "clip.mp4", self._clip.frames, fps=8.0)
        label, *_ = self.settings.rubric.labels
        row = {"video": str(folder / "clip.mp4"), "caption": CAPTION, "label": str(label), "reason": REASON}
        dimensions = [str(dimension) for dimension in self.settings.rubric.dimensions]
        return Dataset.from_list(
            [{**row, "video_id": f"{i}", "dimension": dimensions[i % len(dimensions)]} for i in range(count)]
        )


def _answers_alone() -> Any:
    """On a GPU, TRL puts the head on the tokens of answers alone; on a CPU on all, for compilers of other accelerators."""
    # Private in TRL 1.16: _use_triton; when it goes,
    # `test_products_of_a_step_are_those_of_a_real_one_pairs_included` fails.
    return patch.object(trl.trainer.utils, "_use_triton", lambda device: True)


class _Unchecked(LiFTCriticTrainer):
    """The trainer without its first check, which compares figures that are not there."""

    def _make_critic(self) -> Any:
        return None
