"""The whole extension surface: a video model family, a critic model family, a reward model."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from .records import CriticScore, LatentPosterior, NoisySample, TextCondition, VideoSource


if TYPE_CHECKING:
    import torch
    from torch import Tensor


class VideoModel(Protocol):
    """
    One text-to-video family. The loss, the loop, the data, LoRA and saving exist once, elsewhere.

    Attributes:
        fps: frames a second that the family was trained on.
        dtype: precision of the frozen base on an accelerator (float32 is used on a CPU).
        default_size: frames, height and width (pixels) of a clip that the checkpoint was trained on.
        pipeline_arguments: what every call of the pipeline must be given for this checkpoint.
        lora_target_modules: PEFT's names of the modules that a LoRA adapts when the user names none.
    """

    fps: float
    dtype: "torch.dtype"
    lora_target_modules: tuple[str, ...]

    @property
    def default_size(self) -> tuple[int, int, int]: ...

    @property
    def pipeline_arguments(self) -> dict[str, Any]: ...

    def check_size(self, num_frames: int, height: int, width: int) -> None:
        """Raises `ValueError` naming the nearest legal value if the family cannot encode such a clip."""

    def encode_text(self, pipe: Any, prompts: Sequence[str]) -> TextCondition:
        """`prompts` (B strings) embedded by `pipe`'s text encoder: [B, L, D] and its mask [B, L]."""

    def encode_video(self, pipe: Any, video: "Tensor") -> LatentPosterior:
        """`video` (float32 [B, F, 3, H, W] in [-1, 1]) as `pipe.vae`'s unscaled posterior in transformer layout."""

    def scale_latents(self, latents: "Tensor") -> "Tensor":
        """A draw from the posterior, scaled as the transformer expects it."""

    def corrupt(self, scheduler: Any, latents: "Tensor", noise: "Tensor", timesteps: "Tensor") -> NoisySample:
        """The forward process at `timesteps` (i64 [B]) and the network's native target, in float32."""

    def predict(self, transformer: Any, noisy: NoisySample, text: TextCondition) -> "Tensor":
        """What the network predicts, shaped like `noisy.target`."""


class CriticModel(Protocol):
    """
    One vision-language family that can be tuned into a critic.

    Attributes:
        lora_target_modules: regular expression or names of the language model's linear layers, for PEFT.
        loads_adapters: whether `load` also takes a LoRA of others, with a `config.json` of the family, and finds its base.
    """

    lora_target_modules: str | list[str]
    loads_adapters: bool

    def load(self, name: str, *, dtype: "torch.dtype", revision: str | None) -> tuple[Any, Any]:
        """The model and its processor."""

    def check(self, model: Any) -> None:
        """Raises `ValueError` if this adapter would give wrong numbers for `model`."""

    def prompt(self, frames: Sequence[Any], question: str) -> list[dict[str, Any]]:
        """Chat messages: frames first, then caption and question."""

    def encode(self, processor: Any, texts: Sequence[str], clips: Sequence[Any]) -> "Mapping[str, Tensor]":
        """Model inputs of B rendered prompts and their clips, padded on the right."""

    def position_shift(self, model: Any) -> "Tensor | int":
        """What the model adds to a text token's place to get its position; read after the prefix has run."""


class RewardModel(Protocol):
    """What alignment and evaluation need of a critic. `LiFTCritic` is one; any judge of yours can be another."""

    def score(
        self, videos: Sequence[VideoSource | str], captions: Sequence[str], *, with_reason: bool = False
    ) -> list[CriticScore]:
        """One score for each video; a video that cannot be scored comes back as unscored, never with a value."""
