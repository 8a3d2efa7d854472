"""Examples to model inputs: frames decoded once a clip, the loss on the answer only, nothing ever cut."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..protocols import CriticModel
from ..records import StoredVideo, VideoSource
from ..rubric import format_answer
from ..store.clip_rows import video_digest
from ..store.video_io import Clip, sample_frames
from .conversation import answer_tokens, render_answer, render_prompt
from .pairs.loss import PairBatch, find_tokens, pair_signs, written_labels
from .pairs.reading import Pair
from .prefix import LabelTokens, label_tokens
from .settings import CriticSettings


#: Positions without a loss.
IGNORED = -100


@dataclass
class FrameCache:
    """
    The sampled frames of clips, decoded once each while they fit.

    Attributes:
        num_frames: frames of a clip.
        max_bytes: memory to use. What no longer fits is decoded whenever it is needed; nothing is thrown out, since
            under a shuffled order the oldest clip is no worse than any other.
    """

    num_frames: int
    max_bytes: float
    num_decoded: int = 0
    _clips: dict[str, Clip] = field(default_factory=dict, repr=False)
    _bytes: int = 0

    def read(self, video: VideoSource | StoredVideo | str) -> Clip:
        """
        The sampled frames of `video`.

        Raises:
            ValueError, FileNotFoundError: naming the file if it cannot be decoded.
        """
        key = str(video) if isinstance(video, str | Path) else video_digest(video)
        if key in self._clips:
            return self._clips[key]
        clip = sample_frames(video, self.num_frames)
        self.num_decoded += 1
        if self._bytes + clip.frames.nbytes <= self.max_bytes:
            self._bytes += clip.frames.nbytes
            self._clips[key] = clip
        return clip


@dataclass
class CriticCollator:
    """
    Rows of `lazy_dataset` to a batch: `input_ids`, `attention_mask` and `labels` [B, L], padded on the right, and pixels;
    and where pairs go with the rows, `pairs`.

    The prompt goes through the same `encode` as in scoring, and the answer's tokens follow it, so training and scoring
    see equal inputs. Labels are the answer and its end of turn; all else is -100.
    """

    adapter: CriticModel
    processor: Any
    settings: CriticSettings
    frames: FrameCache

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        clips = [self.frames.read(row["video"]) for row in rows]
        tokenizer = self.processor.tokenizer
        prompts, answers = [], []
        for row, clip in zip(rows, clips):
            text = self.settings.rubric.question(row["dimension"], row["caption"])
            reason = row["reason"] if self.settings.with_reason else ""
            answer = format_answer(row["label"], reason)
            frames = list(clip.frames)
            prompts.append(render_prompt(self.adapter, self.processor, frames, text))
            written = render_answer(self.adapter, self.processor, frames, text, answer)
            answers.append(answer_tokens(tokenizer, prompts[-1], written))
        inputs = dict(self.adapter.encode(self.processor, prompts, clips))
        batch = append_answers(inputs, answers, pad_id=tokenizer.pad_token_id)
        pairs = [pair for row in rows for pair in row.get("pairs", ())]
        return {**batch, "pairs": self._compare(pairs)} if pairs else batch

    @cached_property
    def _label_tokens(self) -> dict[str, LabelTokens]:
        return label_tokens(self.adapter, self.processor, self.settings.rubric)

    def _compare(self, pairs: Sequence[Pair]) -> PairBatch:
        """Each question about each clip of `pairs`, as often as the labels have beginnings."""
        prompts, clips = [], []
        for pair in pairs:
            for side in (pair.chosen, pair.rejected):
                clip = self.frames.read(side.video)
                for dimension in pair.dimensions:
                    text = self.settings.rubric.question(dimension, side.prompt)
                    prompts.append(render_prompt(self.adapter, self.processor, list(clip.frames), text))
                    clips.append(clip)
        written = written_labels(self._label_tokens)
        inputs = self.adapter.encode(
            self.processor, [p for p in prompts for _ in written], [c for c in clips for _ in written]
        )
        inputs = append_answers(dict(inputs), written * len(prompts), pad_id=self.processor.tokenizer.pad_token_id)
        starts = (inputs.pop("labels") != IGNORED).int().argmax(dim=1).tolist()
        return PairBatch(inputs=inputs, tokens=find_tokens(self._label_tokens, starts), signs=pair_signs(pairs))


def append_answers(inputs: dict[str, Any], answers: Sequence[Sequence[int]], *, pad_id: int) -> dict[str, Any]:
    """
    `inputs` [B, L] (right-padded prompts) with each row's answer behind its prompt, and `labels`.

    Raises:
        ValueError: if an answer has no token: such a row would train nothing, with a loss of 0.
    """
    if not all(answers):
        raise ValueError(f"row {[bool(a) for a in answers].index(False)} of the batch has an answer without tokens.")
    prompt_ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
    sequences = [name for name, v in inputs.items() if isinstance(v, Tensor) and v.shape == prompt_ids.shape]
    columns: dict[str, list[Tensor]] = {name: [] for name in [*sequences, "labels"]}
    for row, answer in enumerate(answers):
        new = torch.tensor(answer)
        for name in sequences:
            value = inputs[name][row][mask[row]]
            # Other columns, such as the types of multimodal tokens, are 0 for text.
            tail = new if name == "input_ids" else torch.full_like(new, int(name == "attention_mask"))
            columns[name].append(torch.cat([value, tail.to(value.dtype)]))
        prompt = torch.full((int(mask[row].sum()),), IGNORED)
        columns["labels"].append(torch.cat([prompt, new]))
    padding = {"input_ids": pad_id, "labels": IGNORED}
    padded = {
        name: pad_sequence(values, batch_first=True, padding_value=padding.get(name, 0))
        for name, values in columns.items()
    }
    return {**inputs, **padded}
