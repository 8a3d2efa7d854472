"""Prompts to a `generated/` artefact of videos through any pipeline that has an adapter: sharded, batched, resumable."""

import hashlib
import inspect
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import diffusers
import numpy as np
import torch
from accelerate import PartialState
from accelerate.logging import get_logger
from diffusers import SchedulerMixin
from numpy.typing import NDArray

from ...engines import Append, Processes, Work, Workers
from ...hub.lora.loading import FoundLora, find_loras, load_lora
from ...hub.lora.origin import ADAPTERS, TRAINING, training_of
from ...kernels import attending_by, compile_blocks, in_tf32
from ...prefetch import behind
from ...records import VideoSample, content_id, seed_from
from ...remote import local_copy
from ...runtime import process_state
from ...store.manifest import ARTIFACT_FILE, METADATA_FILE, Artifact, Manifest, check_kind, naming_what_failed
from ...store.sharding import chunks
from ...store.tables import prompt_rows
from ...store.video_io import write_video
from ...video_models import PipelineSource, open_pipeline
from ..data.cache import encoding_dtype
from ..data.text_cache import TextCache
from .settings import Sampling, reusing_blocks


if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

logger = get_logger(__name__)

VIDEOS_DIR = "videos"
_WORK_DIR = ".text"
_SEED_RANGE = 2**32
_AS_TRAINED = Sampling()


class PromptSeed(NamedTuple):
    """One video to make. `number` counts the videos of a prompt."""

    prompt: str
    seed: int
    number: int = 0

    @property
    def id(self) -> str:
        """16 hex digits of (prompt, seed), the same for every model, so that two models' videos are compared by it."""
        return content_id(self.prompt, self.seed)


def read_prompts(path: Path | str, *, videos_per_prompt: int = 1, seed: int = 0) -> list[PromptSeed]:
    """
    The videos that a file asks for.

    Args:
        path: a text (`.txt`) with one prompt a line; or a table (JSON lines, CSV, or a folder with `metadata.jsonl`, as a
            plan of `lift-trl eval plan`) with `prompt` and optionally `seed` in each row. Also a URL (`lift_trl.remote`).
        videos_per_prompt: videos of a prompt that comes without a seed. Each gets a seed made of (`seed`, prompt, index).

    Raises:
        FileNotFoundError, ValueError: naming file and row.
    """
    file = Path(local_copy(path))
    file = file / METADATA_FILE if file.is_dir() else file
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: missing. Name a text file with one prompt a line, or a folder that eval plan wrote."
        )
    videos: list[PromptSeed] = []
    is_text = file.suffix.lower() in (".csv", ".tsv")  # where a number is one, too
    for where, row in prompt_rows(file):
        if row.get("seed") is None:
            videos += plan_videos([row["prompt"]], videos_per_prompt=videos_per_prompt, seed=seed)
        else:
            given = {"seed": row["seed"], "index": 0 if row.get("index") is None else row["index"]}
            numbers = [_whole(f"{where}: {name}", value, is_text=is_text) for name, value in given.items()]
            videos.append(PromptSeed(row["prompt"], *numbers))
    return videos


def _whole(what: str, value: Any, *, is_text: bool) -> int:
    """`value` as a whole number."""
    found = int(value) if is_text and isinstance(value, str) and value.strip().isdecimal() else value
    if type(found) is not int or not 0 <= found < 2**63:
        raise ValueError(f"{what} {value!r} is not a whole number from 0 to 2^63 - 1.")
    return found


def plan_videos(prompts: Iterable[str], *, videos_per_prompt: int = 1, seed: int = 0) -> list[PromptSeed]:
    """
    `videos_per_prompt` videos of each prompt, a prompt's videos together; empty prompts and repeats are left out.

    A video's seed depends on (`seed`, prompt, index) alone: more videos or other prompts change no video.

    >>> len(plan_videos(["a fox", "a bird", "a fox"], videos_per_prompt=2))
    4
    """
    if videos_per_prompt < 1:
        raise ValueError(f"videos_per_prompt={videos_per_prompt}; give 1 or more.")
    texts = dict.fromkeys(prompt.strip() for prompt in prompts if prompt.strip())
    return [
        PromptSeed(text, seed_from(seed, text, index) % _SEED_RANGE, index)
        for text in texts
        for index in range(videos_per_prompt)
    ]


def generate_videos(
    model: "str | Path | DiffusionPipeline | PipelineSource",
    videos: Sequence[PromptSeed],
    output_dir: Path | str,
    *,
    sampling: Sampling = _AS_TRAINED,
    adapter: str | Path | Sequence[str | Path] | None = None,
    state: PartialState | None = None,
    workers: Workers | None = None,
) -> Path:
    """
    Samples every video of `videos`; returns `output_dir`, an artefact with one row (`VideoSample`) a video. Videos of other
    prompts and seeds that are there already, made with the same settings, stay in it.

    Kill it at any time, with any number of processes, and call it again: a finished video is not sampled again, and what
    comes out is what an uninterrupted run would have made. Each prompt is embedded once, and the text encoder has left
    before transformer and VAE are loaded. A video's noise depends on its seed alone.

    Args:
        adapter: folder or repo of a LoRA that `load_lora_weights` reads, put on top of `model`; of a model with two networks
            also two, one of each. A pipeline stays as it is.
        workers: who samples, the processes of `state` by default.

    Raises:
        ValueError: if nothing is asked for, two videos have prompt and seed in common, the size does not suit the model,
            `output_dir` holds videos of other settings, `adapter` fits no network or not in full, or a video is not finite.
    """
    source = open_pipeline(model)
    state = state or process_state()
    sampling = sampling.sized(source)
    folder = Path(output_dir)
    ids = _distinct_ids(videos)
    workers = workers or Processes(state)
    dtype = encoding_dtype(source, workers.device_type)
    manifest = Manifest(folder, rank=workers.rank)
    with state.local_main_process_first():  # it fetches what is on the Hub, the others find it
        loras, settings = _settings(source, sampling, adapter, dtype)
        training = [training_of(lora.place) for lora in loras]
        before = _earlier(folder)
    done = manifest.ids_made_by("settings", {settings}, others="videos of another model, adapter or settings")
    # Whole batches, also where some videos of one are finished: what a video's batch holds may change its last bits.
    batches = workers.part(chunks(list(videos), sampling.batch_size))
    todo = [batch for batch in batches if not done.issuperset(video.id for video in batch)]
    check_kind(folder, "generated")
    (folder / ARTIFACT_FILE).unlink(missing_ok=True)
    logger.info("%d videos, %d of %d batches to sample", len(ids), len(todo), len(batches))
    texts = TextCache(folder / _WORK_DIR, content_id(source.fingerprint(*source.adapter.text_components), dtype))
    prompts = [video.prompt for batch in todo for video in batch]
    texts.embed(source, [*prompts, *_negative(sampling)] if prompts else [], workers, dtype)
    plan = _Plan(source, loras, sampling, dtype, texts, folder, settings, done)
    workers.run(plan.sampler, todo, manifest.append)
    if state.is_main_process and workers.finishes:
        # Where nothing was sampled, the videos are of the day that they were.
        day = before.made_on if before is not None and done.issuperset(ids) else None
        _finish(manifest, ids, source, sampling, dict(zip(loras, training, strict=True)), day)
    state.wait_for_everyone()
    return folder


@dataclass(frozen=True)
class _Plan:
    """All that a worker must know to sample; it brings no model along."""

    source: PipelineSource
    loras: tuple[FoundLora, ...]
    sampling: Sampling
    dtype: torch.dtype
    texts: TextCache
    folder: Path
    settings: str
    done: Set[str]

    def sampler(self, device: torch.device) -> Work[Sequence[PromptSeed]]:
        """What samples batches and gives a row for each video that is not done, with the pipeline in memory."""
        pipe = load_pipeline(self.source, self.loras, self.sampling, self.dtype, device)

        def sample(batches: Sequence[Sequence[PromptSeed]], append: Append) -> None:
            started_s = time.monotonic()
            with behind() as put:  # x264 and hashing do not hold the sampler up
                for number, batch in enumerate(batches, start=1):
                    frames = sample_batch(pipe, self.source, batch, self.texts, self.sampling, self.dtype, device)
                    for video, clip in zip(batch, frames, strict=True):
                        if video.id not in self.done:
                            put(_store, self, video, clip, append)
                    left_s = (time.monotonic() - started_s) / number * (len(batches) - number)
                    logger.info("batch %d of %d, %.1f minutes left", number, len(batches), left_s / 60)

        return sample


def _earlier(folder: Path) -> Artifact | None:
    """The finished artefact in `folder`; a damaged one, or another version's, is made again."""
    try:
        return Artifact.load(folder)
    except (FileNotFoundError, ValueError):  # of several processes the first may have begun anew
        return None


def _distinct_ids(videos: Sequence[PromptSeed]) -> list[str]:
    """Their ids; raises `ValueError` if there is none, or one stands twice."""
    ids = [video.id for video in videos]
    if not ids:
        raise ValueError("no prompt to sample from: the list is empty.")
    times = Counter(ids)
    if twice := next((video for video, unit in zip(videos, ids, strict=True) if times[unit] > 1), None):
        raise ValueError(f"{twice} stands twice; delete one.")
    return ids


def _settings(
    source: PipelineSource,
    sampling: Sampling,
    adapter: str | Path | Sequence[str | Path] | None,
    dtype: torch.dtype,
) -> tuple[tuple[FoundLora, ...], str]:
    """The LoRAs' files, and the key of all that makes the videos, beside prompt and seed."""
    model = source.adapter
    loras = find_loras(adapter, model.networks)
    weights = source.fingerprint(*model.text_components, *model.networks, "vae", "scheduler")
    # Their content only: the folder of a LoRA may be moved.
    contents = {lora.network: lora.identity.rpartition("@")[2] for lora in loras}
    content = " ".join(text if name == "transformer" else f"{name} {text}" for name, text in contents.items()) or None
    return loras, content_id(weights, content, sampling.key, dtype)


def load_pipeline(
    source: PipelineSource, loras: Sequence[FoundLora], sampling: Sampling, dtype: torch.dtype, device: torch.device
) -> Any:
    """The pipeline without its text encoder, with the LoRAs on."""
    networks = source.adapter.networks
    pipe: Any = source.load(
        *networks,
        "vae",
        dtype=dtype,
        device=device,
        private=len(loras) > 0 or sampling.compile_blocks is not None,
        quantization=sampling.quantization,
    )
    for lora in loras:
        load_lora(pipe, lora, name="lift")
    if sampling.is_tiled:
        pipe.vae.enable_tiling()
    if sampling.compile_blocks is not None:
        for network in networks:
            compile_blocks(getattr(pipe, network), sampling.compile_blocks)
    pipe.set_progress_bar_config(disable=True)
    if sampling.scheduler is not None:
        pipe.scheduler = _scheduler(sampling.scheduler).from_config(pipe.scheduler.config, timestep_spacing="trailing")
    if unknown := sampling.pipeline_options.keys() - inspect.signature(type(pipe).__call__).parameters.keys():
        raise ValueError(f"pipeline_options: a call of {type(pipe).__name__} has no {', '.join(sorted(unknown))}.")
    assert sampling.guidance_scale is not None
    source.adapter.prepare_sampling(pipe, sampling.guidance_scale)
    return pipe


def _scheduler(name: str) -> Any:
    """The scheduler class of diffusers that is called so."""
    found = getattr(diffusers, name, None)
    if not (isinstance(found, type) and issubclass(found, SchedulerMixin)):
        raise ValueError(f"scheduler={name!r}: diffusers has no such scheduler; DPMSolverMultistepScheduler is one.")
    return found


def _negative(sampling: Sampling) -> list[str]:
    """The negative prompt, where there is guidance."""
    return [sampling.negative_prompt or ""] if sampling.is_guided else []


@torch.no_grad()
def sample_batch(
    pipe: Any,
    source: PipelineSource,
    batch: Sequence[PromptSeed],
    texts: TextCache,
    sampling: Sampling,
    dtype: torch.dtype,
    device: torch.device,
) -> NDArray[np.uint8]:
    """One batch, [B, F, H, W, 3]."""
    assert sampling.num_frames and sampling.height and sampling.width and sampling.guidance_scale is not None
    text = texts.batch([video.prompt for video in batch], device, dtype)
    negative = texts.batch(_negative(sampling) * len(batch), device, dtype) if sampling.is_guided else None
    # On the CPU, so that a seed means the same noise on every device.
    generators = [torch.Generator().manual_seed(video.seed) for video in batch]
    with (
        reusing_blocks(pipe, source.adapter.networks, sampling.first_block_cache),
        attending_by(sampling.attention_kernel),
        in_tf32(sampling.tf32),
    ):
        frames = pipe(
            num_inference_steps=sampling.num_inference_steps,
            generator=generators,
            output_type="np",
            **source.adapter.pipeline_text(text, negative),
            **source.adapter.sampling_arguments(
                sampling.num_frames, sampling.height, sampling.width, sampling.guidance_scale
            ),
            **sampling.pipeline_options,
        ).frames
    if not np.isfinite(frames).all():
        bad = next(video for video, clip in zip(batch, frames, strict=True) if not np.isfinite(clip).all())
        raise ValueError(f"{bad}: the video is not finite in {dtype}. What was finished is kept.")
    if (size := frames.shape[2:4]) != (sampling.height, sampling.width):
        raise ValueError(
            f"the VAE gave {size[0]} x {size[1]} pixels where {sampling.height} x {sampling.width} were asked for: its "
            "tiles do not fit. Set vae_tiling to false, or choose another size."
        )
    video: NDArray[np.uint8] = (np.asarray(frames) * 255).round().clip(0, 255).astype(np.uint8)
    return video.repeat(sampling.enlarge, axis=2).repeat(sampling.enlarge, axis=3)


def _store(plan: _Plan, video: PromptSeed, clip: NDArray[np.uint8], append: Append) -> None:
    """The file first, then its row: a row means that the file is whole."""
    source, sampling = plan.source, plan.sampling
    name = f"{VIDEOS_DIR}/{video.id}.mp4"
    path = plan.folder / name
    with naming_what_failed(path, "The video was not written; those with a row are kept"):
        write_video(path, clip, fps=source.adapter.fps)
    assert sampling.num_frames and sampling.height and sampling.width and sampling.guidance_scale is not None
    sample = VideoSample(
        id=video.id,
        prompt=video.prompt,
        video=name,
        seed=video.seed,
        model=source.identity,
        adapter=", ".join(lora.identity.rpartition("@")[0] for lora in plan.loras) or None,
        num_frames=sampling.num_frames,
        height=sampling.height,
        width=sampling.width,
        fps=source.adapter.fps,
        num_inference_steps=sampling.num_inference_steps,
        guidance_scale=sampling.guidance_scale,
    )
    # `load_dataset` looks for file_name.
    row = {"file_name": name, **asdict(sample), "index": video.number}
    del row["video"]
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    append({**row, "enlarge": sampling.enlarge, "sha256": sha256, "settings": plan.settings})


def _finish(
    manifest: Manifest,
    ids: Sequence[str],
    source: PipelineSource,
    sampling: Sampling,
    loras: Mapping[FoundLora, Mapping[str, Any]],
    day: str | None,
) -> None:
    """
    The artefact's own page last: a folder with `artifact.yaml` is whole. `loras` with what trained them; `day` on which
    all was sampled, `None` for today.
    """
    asked = set(ids)
    rows = manifest.merge([*ids, *(row["id"] for row in manifest.rows() if row["id"] not in asked)])
    roles = dict(zip(ADAPTERS, loras, strict=False))
    parents = {"model": source.identity} | {role: lora.identity for role, lora in roles.items()}
    config = {**asdict(sampling), "num_videos": len(rows), "num_prompts": len({row["prompt"] for row in rows})}
    if training := {role: dict(run) for role, lora in roles.items() if (run := loras[lora])}:
        config[TRAINING] = training
    artifact = Artifact(kind="generated", config=config, parents=parents)
    (artifact if day is None else replace(artifact, made_on=day)).save(manifest.folder)
    shutil.rmtree(manifest.folder / _WORK_DIR, ignore_errors=True)
