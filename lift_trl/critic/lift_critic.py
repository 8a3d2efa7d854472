"""`LiFTCritic`: probabilities of the labels on each dimension, a reward, and a reason. Nothing is sampled."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from torch import Tensor
from transformers import AutoConfig, AutoProcessor, TorchAoConfig

from ..critic_models import control_tokens, find_critic_model
from ..hub.lora.options import check_lora_start
from ..hub_source import find_file, pinned
from ..prefetch import ahead
from ..protocols import CriticModel
from ..records import CriticScore, Judgement, StoredVideo, VideoSource, content_id
from ..rubric import Rubric
from ..runtime import has_accelerator
from ..store.quantization import Quantization, torchao_type
from ..store.sharding import chunks
from ..store.video_io import Clip, describe, sample_frames
from ..store.weights import read_tensors, shown, unapplied
from .conversation import trl_rewards
from .gate import check_both_ways, check_config, warn_of_tiles
from .prefix import Encoded, RefusedClipsError, ask, encode_questions, end_tokens, label_tokens, run_encoded
from .reasons import write_reasons
from .settings import ADAPTER_CONFIG, CriticSettings, find_revision, load_settings, read_model_type


# Not accelerate's logger, which raises where no launcher state was made: a critic is also used by itself.
logger = logging.getLogger(__name__)


class _Prepared(NamedTuple):
    """A batch that only lacks the model. `failed`: why a clip is unscored; `places`: of the clips that are in `encoded`."""

    ids: list[str]
    failed: dict[int, str]
    places: list[int]
    encoded: Encoded | None


class LiFTCritic:
    """
    A vision-language model that rates videos. A `RewardModel`.

    Per clip it decodes once, runs the vision tower and the shared beginning of the questions once, and reads the
    likelihood of every label from one more pass. Reasons are greedy text after the chosen label. Once, when it is made, it
    scores a clip of noise in this way and in forwards of their own, and refuses a model whose figures differ.

    >>> critic = LiFTCritic.from_pretrained("runs/critic")  # doctest: +SKIP
    >>> critic.score(["fox.mp4"], ["a red fox runs through snow"])[0].reward  # doctest: +SKIP
    0.6667

    Args:
        model: an image-text-to-text model, or a PEFT model around one.
        processor: its processor, with a chat template.
        settings: how the critic was taught to see a clip.
        name: what the scores say of their origin, `"repo@revision"`.
        batch_size: clips that run through the model together.
        max_reason_tokens: length at which a reason is cut.

    Raises:
        ValueError: if the model cannot score behind a shared prefix (`critic.gate`), or its tokenizer cannot tell labels.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        settings: CriticSettings | None = None,
        name: str = "",
        batch_size: int = 8,
        max_reason_tokens: int = 64,
    ) -> None:
        self.settings = settings or CriticSettings()
        self.adapter: CriticModel = self.settings.adapter(model.config.model_type)
        check_config(model.config)
        # Not the base inside a LoRA: FSDP gathers the weights of its outermost module only where that is called.
        self.model = model
        self.processor = processor
        self.name = name or str(model.config.name_or_path)
        self.batch_size, self.max_reason_tokens = batch_size, max_reason_tokens
        self.rubric = self.settings.rubric
        # A tokenizer of Rust may not be used by two threads at once.
        self._tokenizing = Lock()
        self._labels = label_tokens(self.adapter, processor, self.rubric)
        self._control_tokens = control_tokens(processor.tokenizer)
        self.end_ids = end_tokens(self.adapter, processor, model, self.rubric)
        check_both_ways(self.model, self.adapter, processor, self.settings, self._labels)
        warn_of_tiles(self.adapter, processor, self.settings.num_frames)

    @classmethod
    def when_needed(
        cls, name_or_path: str, *, revision: str | None = None, **options: Any
    ) -> tuple[str, Callable[[], "LiFTCritic"], Rubric]:
        """The critic's `name`, what loads it, and its rubric: for a stage that has it in memory only while it scores."""
        name = _name(name_or_path, revision, options.get("quantization"))
        rubric = load_settings(name_or_path, revision, options.get("rubric")).rubric
        return name, lambda: cls.from_pretrained(name_or_path, revision=revision, **options), rubric

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        device_map: str | dict[str, Any] | None = None,
        quantization: Quantization | None = None,
        batch_size: int = 8,
        max_reason_tokens: int = 64,
        rubric: Rubric | None = None,
    ) -> "LiFTCritic":
        """
        A critic from a folder or the Hub: what `LiFTCriticTrainer` saved, or any chat VLM as it is.

        Args:
            dtype: bfloat16 on an accelerator and float32 on a CPU by default.
            device: the accelerator, if there is one, by default.
            device_map: spreads a model that is too large for one device over several, as transformers does ("auto").
            quantization: holds the linear layers of the model in 8 bits; a LoRA stays beside them, in `dtype`.
            rubric: what an untuned model is asked (LiFT's by default); a critic is asked what it was taught.

        Raises:
            ValueError: if the settings there are none of a critic, or of one of another `rubric`, or `device` and
                `device_map` are given.
        """
        name, revision = pinned(name_or_path, revision)
        if device is not None and device_map is not None:
            raise ValueError(f"device={str(device)!r} and device_map={device_map!r}: give one of them.")
        settings = load_settings(name, revision, rubric)
        if device is None:
            accelerator = torch.accelerator.current_accelerator() if has_accelerator() else None
            device = accelerator or torch.device("cpu")
        device = torch.device(device)
        dtype = dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
        placement: dict[str, Any] = {} if device_map is None else {"device_map": device_map}
        if quantization is not None:
            placement["quantization_config"] = TorchAoConfig(torchao_type(quantization))
        model, processor = _load(name, revision, dtype, placement)
        return cls(
            (model if device_map is not None else model.to(device)).eval(),
            processor,
            settings=settings,
            name=_name(name, revision, quantization),
            batch_size=batch_size,
            max_reason_tokens=max_reason_tokens,
        )

    def score(
        self, videos: Sequence[VideoSource | StoredVideo | str], captions: Sequence[str], *, with_reason: bool = False
    ) -> list[CriticScore]:
        """
        One score for each video. A video that cannot be decoded, that the processor refuses, or that has no caption
        comes back as unscored with the why.

        Args:
            videos: paths or bytes of video files.
            captions: one for each video.
            with_reason: also write a reason for each label.

        Raises:
            ValueError: if `videos` and `captions` differ in number.
        """
        if len(videos) != len(captions):
            raise ValueError(f"{len(videos)} videos and {len(captions)} captions; give one caption for each video.")
        starts = range(0, len(videos), self.batch_size)
        parts = ((videos[i : i + self.batch_size], captions[i : i + self.batch_size]) for i in starts)
        return [score for scores in self.score_batches(parts, with_reason=with_reason) for score in scores]

    def score_batches(
        self,
        batches: Iterable[tuple[Sequence[VideoSource | StoredVideo | str], Sequence[str]]],
        *,
        with_reason: bool = False,
    ) -> Iterator[list[CriticScore]]:
        """As `score` of each (videos, captions), in order; the next is decoded and processed while one is scored."""
        for parts in ahead(self._prepare_batch, batches, threads=1):
            yield [score for part in parts for score in self._score(part, with_reason)]

    def reward_func(self, prompts: Sequence[Any], completions: Sequence[Any], **kwargs: Any) -> list[float | None]:
        """
        The rewards of `completions` (videos, as paths or bytes) in TRL's signature of a reward function.

        Args:
            prompts: captions, or conversations whose last message is the caption.

        Returns:
            A reward (LiFT's in [0.05, 0.9]) for each, `None` where the video is unscored.
        """
        return trl_rewards(self, prompts, completions)

    def label_logprobs(self, clips: Sequence[Clip], captions: Sequence[str]) -> Tensor:
        """
        Log-probability of each label's text after each question: float32 [B, D, L], dimensions and labels in rubric order.

        Args:
            clips: decoded frames, `settings.num_frames` each.
        """
        return run_encoded(self.model, self.adapter, self._encode(clips, captions)).logprobs

    def _encode(self, clips: Sequence[Clip], captions: Sequence[str]) -> Encoded:
        with self._tokenizing:
            questions = [
                ask(self.adapter, self.processor, c, caption, self._labels, self.rubric)
                for c, caption in zip(clips, captions)
            ]
            return encode_questions(self.adapter, self.processor, clips, questions)

    def _prepare_batch(
        self, batch: tuple[Sequence[VideoSource | StoredVideo | str], Sequence[str]]
    ) -> list[_Prepared]:
        """What can be done before the model runs, in parts of `batch_size`."""
        work = list(zip(*batch, strict=True))
        return [self._prepare(part) for part in (chunks(work, self.batch_size) if work else [])]

    def _prepare(self, work: Sequence[tuple[VideoSource | StoredVideo | str, str]]) -> _Prepared:
        ids = [content_id(video if isinstance(video, bytes) else describe(video), caption) for video, caption in work]
        clips: dict[int, Clip] = {}
        failed: dict[int, str] = {}
        for index, found in enumerate(ahead(self._decode, work)):
            if isinstance(found, str):
                failed[index] = found
            else:
                clips[index] = found
        encoded = None
        while clips and encoded is None:
            try:
                encoded = self._encode(list(clips.values()), [work[index][1].strip() for index in clips])
            except RefusedClipsError as error:
                places = list(clips)
                failed |= {places[place]: reason for place, reason in error.reasons.items()}
                clips = {index: clip for index, clip in clips.items() if index not in failed}
        return _Prepared(ids, failed, list(clips), encoded)

    def _decode(self, asked: tuple[VideoSource | StoredVideo | str, str]) -> Clip | str:
        """The sampled frames, or why there are none."""
        video, caption = asked
        controls = [token for token in self._control_tokens if token in caption]
        if not caption.strip():
            return "the caption is empty"
        if controls:
            return f"the caption holds {controls[0]!r}, which this critic takes for more than text"
        try:
            return sample_frames(video, self.settings.num_frames)
        except (ValueError, FileNotFoundError) as error:
            return str(error)

    def _score(self, batch: _Prepared, with_reason: bool) -> list[CriticScore]:
        """One score for each clip of a batch."""
        failed = dict(batch.failed)
        judged: Mapping[int, tuple[Judgement, ...]] = {}
        if batch.encoded is not None:
            judged = dict(zip(batch.places, self._judge(batch.encoded, with_reason)))
        failed |= {index: "the critic's probabilities are not finite" for index in judged if not judged[index]}
        for problem in failed.values():
            logger.warning("unscored: %s", problem)
        return [
            CriticScore(unit, self.name, unscored=failed[index])
            if index in failed
            else CriticScore(unit, self.name, judged[index])
            for index, unit in enumerate(batch.ids)
        ]

    def _judge(self, encoded: Encoded, with_reason: bool) -> list[tuple[Judgement, ...]]:
        """The judgements of each clip, none where a probability is not finite."""
        branches = run_encoded(self.model, self.adapter, encoded)
        logprobs = branches.logprobs
        chosen = logprobs.nan_to_num(nan=-torch.inf).argmax(dim=-1)
        reasons = [[""] * len(self.rubric.dimensions) for _ in encoded.trees]
        if with_reason:
            tokens = write_reasons(
                self.model,
                branches,
                chosen,
                [self._labels[label].rest for label in self.rubric.labels],
                max_new_tokens=self.max_reason_tokens,
                end_ids=self.end_ids,
            )
            decode = self.processor.tokenizer.decode
            with self._tokenizing:
                reasons = [[decode(text, skip_special_tokens=True).strip() for text in row] for row in tokens]
        return [judgements(row, reason, self.rubric) for row, reason in zip(logprobs.cpu(), reasons)]


def judgements(logprobs: Tensor, reasons: Sequence[str], rubric: Rubric) -> tuple[Judgement, ...]:
    """
    The verdicts on one video from the log-probabilities [D, L] of its labels; none if they are not finite.

    The label is the likeliest, its probability the softmax over the labels.
    """
    mass = logprobs.double().exp().sum(dim=-1)
    probs = logprobs.double().softmax(dim=-1)
    if not probs.isfinite().all():
        return ()
    labels = rubric.labels
    return tuple(
        Judgement(
            dimension=dimension,
            label=labels[int(row.argmax())],
            probs=dict(zip(labels, row.tolist())),
            reason=reason,
            label_mass=min(1.0, float(total)),
            rubric=rubric,
        )
        for dimension, row, total, reason in zip(rubric.dimensions, probs, mass, reasons)
    )


def apply_adapter(tuned: PeftModel, name: str) -> None:
    """
    Puts the weights of the LoRA `name` into those of `tuned`, a model with a LoRA of its shape.

    Raises:
        ValueError: if a tensor has no place there.
    """
    stored = read_tensors(_weights(name))
    set_peft_model_state_dict(tuned, dict(stored))
    _check_applied(tuned, stored, name, str(tuned.peft_config["default"].base_model_name_or_path))


def _weights(name: str, revision: str | None = None) -> Path:
    """The file of an adapter's weights; `ValueError` where there is none."""
    path = find_file(name, SAFETENSORS_WEIGHTS_NAME, revision=revision)
    if path is None:
        raise ValueError(f"{name}: an adapter without {SAFETENSORS_WEIGHTS_NAME}; save or push it again.")
    return path


def _check_applied(tuned: PeftModel, stored: Mapping[str, Tensor], name: str, base: str) -> None:
    if left := unapplied(stored, get_peft_model_state_dict(tuned, save_embedding_layers=False)):
        raise ValueError(
            f"{name}: {len(left)} of {len(stored)} tensors of its adapter were not applied to {base}: {shown(left)}. It was "
            "trained on another model, or its files are of two runs."
        )


def _put_on(model: Any, config: PeftConfig, name: str, revision: str | None) -> PeftModel:
    """`model` with the adapter `name` on, every tensor of it."""
    if isinstance(config, LoraConfig):
        check_lora_start(config, where=name)
    base = str(config.base_model_name_or_path)
    stored = read_tensors(_weights(name, revision))
    try:
        tuned = PeftModel.from_pretrained(model, name, revision=revision)
    except RuntimeError as error:  # PEFT's, for tensors of another shape
        raise ValueError(
            f"{name}: is no adapter of {base} ({error}). Name the model that it was trained on."
        ) from error
    _check_applied(tuned, stored, name, base)
    return tuned


def _name(name_or_path: str, revision: str | None, quantization: Quantization | None) -> str:
    """What tells the scores of one critic from those of another."""
    kind = f" in {quantization}" if quantization else ""
    return f"{pinned(name_or_path).repo_id}@{find_revision(name_or_path, revision)}{kind}"


def _load(name: str, revision: str | None, dtype: torch.dtype, placement: Mapping[str, Any]) -> tuple[Any, Any]:
    """Model and processor; an adapter is put on its base model."""
    is_adapter = find_file(name, ADAPTER_CONFIG, revision=revision) is not None
    base, base_revision = name, revision
    if find_critic_model(read_model_type(name, revision)).loads_adapters:
        is_adapter = False
    if is_adapter:
        config = PeftConfig.from_pretrained(name, revision=revision)
        base, base_revision = config.base_model_name_or_path, config.revision
    family = find_critic_model(read_model_type(base, base_revision))
    if not family.loads_adapters:  # the parts of such a checkpoint have configurations of their own
        check_config(AutoConfig.from_pretrained(base, revision=base_revision))
    model, processor = family.load(base, dtype=dtype, revision=base_revision, **placement)
    if not is_adapter:
        return model, processor
    tuned: Any = _put_on(model, config, name, revision)
    if "quantization_config" not in placement:  # 8 bits would round what the LoRA adds
        tuned = tuned.merge_and_unload()  # scoring pays for no second product in each layer
    return tuned, AutoProcessor.from_pretrained(name, revision=revision)
