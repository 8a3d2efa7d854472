"""What each stage on video models takes: its own code, run under the meter."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.vae import DecoderOutput
from peft import LoraConfig
from torch import Tensor

from ...alignment.data.cache import is_tiled
from ...alignment.data.clips import ClipSize
from ...alignment.data.text_cache import TextCache
from ...alignment.data.video_dataset import CachedVideoDataset
from ...alignment.reward_weighted_config import RewardWeightedVideoConfig
from ...alignment.reward_weighted_trainer import RewardWeightedVideoTrainer
from ...alignment.sampling.generate import PromptSeed, load_pipeline, sample_batch
from ...alignment.sampling.settings import Sampling
from ..weightless.configured import ConfiguredSource, Depths
from ..weightless.depth import at_full_depth, at_least, of_components
from ..weightless.meter import Count, Meter, linear, metering
from ..weightless.repeated import repeated_once
from .stand_in import EncodedShapes, Shape, write_cache
from .training import count_step, one_step


# Denoising steps that are counted; every further one is like them.
_STEPS = 2
# Latent frames of the clips that are decoded in place of a longer one: each more than one piece, as CogVideoX's are of two.
_FEW_FRAMES, _MORE_FRAMES = 5, 7


@dataclass(frozen=True)
class VideoStages:
    """
    Counts the stages of one text-to-video checkpoint at one size of clip.

    Attributes:
        name_or_path: Hub id, or folder with its configuration files.
        size: of every clip.
        revision: branch, tag or commit of a Hub id.
        network: the part that a run trains, where there are two.
    """

    name_or_path: str
    size: ClipSize
    revision: str | None = None
    network: str | None = None

    def source(self, depths: Depths | None = None) -> ConfiguredSource:
        """The checkpoint, with other numbers of layers where `depths` names them."""
        return ConfiguredSource(self.name_or_path, revision=self.revision, network=self.network, depths=depths)

    @cached_property
    def layers(self) -> Depths:
        """The checkpoint's own numbers of layers."""
        return self.source().layers()

    # ---- Encoding ------------------------------------------------------------------------------------------------

    @cached_property
    def text(self) -> Count:
        """One prompt through the text encoder."""
        return at_full_depth(lambda depths: self._encode_text(depths)[0], self._text_layers)

    @cached_property
    def video(self) -> Count:
        """One clip through the VAE's encoder."""
        return self._encode_video[0]

    @cached_property
    def shapes(self) -> EncodedShapes:
        """Of what a cache holds of one clip and its prompt."""
        return EncodedShapes(self._encode_video[1], self._encode_text(at_least(self._text_layers))[1])

    @cached_property
    def _text_layers(self) -> Depths:
        return of_components(self.layers, *self.source().adapter.text_components)

    def _encode_text(self, depths: Depths) -> tuple[Count, dict[str, Shape]]:
        source = self.source(depths)
        with metering() as source.meter:
            pipe = source.load(*source.adapter.text_components, dtype=source.adapter.dtype)
            text = source.adapter.encode_text(pipe, ["a clip"])
            shapes = {name: Shape.of(tensor) for name, tensor in text.items()}
        return source.meter.count(), shapes

    @cached_property
    def _encode_video(self) -> tuple[Count, Shape]:
        source, size = self.source(), self.size
        with metering() as source.meter:
            pipe = source.load("vae", dtype=source.adapter.dtype)
            if is_tiled(size):
                pipe.vae.enable_tiling()
            clip = torch.zeros(1, size.num_frames, 3, size.height, size.width)
            with repeated_once(source.meter, pipe.vae):
                shape = Shape.of(source.adapter.encode_video(pipe, clip).mean)
        return source.meter.count(), shape

    # ---- Training ------------------------------------------------------------------------------------------------

    def steps(self, args: RewardWeightedVideoConfig, lora: LoraConfig | None) -> tuple[Count, Count]:
        """
        One micro-batch of one clip, and one of two, through the trainer, with a step of its optimiser after an earlier one.

        Args:
            args: the run's settings but for the batch.
            lora: `None` trains the whole transformer.
        """
        layers = of_components(self.layers, *self.source().adapter.networks)
        return (
            at_full_depth(lambda depths: self.step_of(args, lora, 1, depths), layers),
            at_full_depth(lambda depths: self.step_of(args, lora, 2, depths), layers),
        )

    def step_of(
        self, args: RewardWeightedVideoConfig, lora: LoraConfig | None, batch: int, depths: Depths | None = None
    ) -> Count:
        """As one of `steps`, run at `batch` and `depths` themselves."""
        source = self.source(depths)
        dtype = source.adapter.dtype
        with tempfile.TemporaryDirectory() as folder:
            settings, micro_batches = one_step(args, batch, Path(folder) / "run")
            settings.validation_prompts, settings.validation_steps = None, None
            settings.compile_blocks = None  # nothing is compiled under the meter; what that changes is not counted
            write_cache(Path(folder) / "cache", source, self.size, 6 * batch * micro_batches, self.shapes, dtype)
            with metering() as meter:
                source.meter = meter
                with meter.taking("trained weights"):
                    trainer = RewardWeightedVideoTrainer(
                        source, settings, train_dataset=CachedVideoDataset(Path(folder) / "cache"), peft_config=lora
                    )
                count = count_step(meter, trainer, micro_batches)
                del trainer
        return count

    # ---- Sampling ------------------------------------------------------------------------------------------------

    def sampling(self, sampling: Sampling) -> Count:
        """A batch of `sampling.batch_size` videos, from embedded prompts to pixels."""
        # Nothing is compiled under the meter; what that changes is not counted.
        sampling = replace(sampling.sized(self.source()), compile_blocks=None)
        layers = of_components(self.layers, *self.source().adapter.networks)
        shapes: list[Sequence[int]] = []  # of the latents, the same at every depth
        denoised = at_full_depth(lambda depths: self._denoise(sampling, depths, shapes), layers)
        decoded = self._decode(shapes[0], tiled=sampling.is_tiled)
        steps = sampling.num_inference_steps / _STEPS
        activations = decoded.peak["activations"]
        kinds = denoised.peaks["decoding"]
        peaks = {**denoised.peaks, "decoding": {**kinds, "activations": kinds.get("activations", 0.0) + activations}}
        return replace(linear([(steps, denoised), (1.0, decoded)]), peaks=peaks)

    def _denoise(self, sampling: Sampling, depths: Depths, shapes: list[Sequence[int]]) -> Count:
        source = self.source(depths)
        few = replace(sampling, num_inference_steps=_STEPS, negative_prompt="")  # the one that is embedded
        with tempfile.TemporaryDirectory() as folder:
            write_cache(Path(folder), source, self.size, 1, self.shapes, source.adapter.dtype)
            texts = TextCache(Path(folder) / "text", CachedVideoDataset(folder).text_cache().fingerprint)
            with metering() as meter:
                source.meter = meter
                pipe = load_pipeline(source, (), few, source.adapter.dtype, torch.device("cpu"))
                pipe.vae.decode = _Undecoded(meter, self.size, shapes)
                built = meter.count()
                batch = [PromptSeed("", number) for number in range(sampling.batch_size)]
                # Of a first-block cache, what a step spares hangs on the one before.
                alike = () if few.first_block_cache else [getattr(pipe, name) for name in source.adapter.networks]
                with repeated_once(meter, *alike):
                    sample_batch(pipe, source, batch, texts, few, source.adapter.dtype, torch.device("cpu"))
                counted = meter.count()
        return replace(linear([(1.0, counted), (-1.0, built)]), peaks=counted.peaks)

    def _decode(self, shape: Sequence[int], *, tiled: bool) -> Count:
        """
        The VAE alone: two short clips tell what a long one takes. Decoded in pieces, all that grows between them is the
        finished video; decoded as a whole, all does.
        """
        num_frames = shape[2]
        if num_frames <= _MORE_FRAMES:
            return self._decode_latents(shape, tiled=tiled)
        few, more = (
            self._decode_latents((*shape[:2], n, *shape[3:]), tiled=tiled) for n in (_FEW_FRAMES, _MORE_FRAMES)
        )
        further = (num_frames - _MORE_FRAMES) / (_MORE_FRAMES - _FEW_FRAMES)
        work = linear([(1 + further, more), (-further, few)])
        grown = further * (more.peak["activations"] - few.peak["activations"])
        kinds = {**more.peak, "activations": more.peak["activations"] + grown}
        return replace(work, peaks={"decoding": kinds})

    def _decode_latents(self, shape: Sequence[int], *, tiled: bool) -> Count:
        source = self.source()
        with metering() as source.meter:
            pipe = source.load("vae", dtype=source.adapter.dtype)
            source.adapter.prepare_sampling(pipe, source.adapter.guidance_scale)
            if tiled:
                pipe.vae.enable_tiling()
            with torch.no_grad(), repeated_once(source.meter, pipe.vae):
                pipe.vae.decode(torch.zeros(tuple(shape), dtype=source.adapter.dtype))
        return source.meter.count()


class _Undecoded:
    """Stands where a VAE decodes: remembers the latents and gives back pixels at once."""

    def __init__(self, meter: Meter, size: ClipSize, shapes: list[Sequence[int]]) -> None:
        self.meter, self.size, self.shapes = meter, size, shapes

    def __call__(self, latents: Tensor, *args: Any, return_dict: bool = True, **kwargs: Any) -> Any:
        self.meter.phase("decoding")
        self.shapes.append(latents.shape)
        video = latents.new_zeros((len(latents), 3, self.size.num_frames, self.size.height, self.size.width))
        return DecoderOutput(sample=video) if return_dict else (video,)
