"""The critic model families under contract: one line each, a tiny real configuration."""

from typing import Any, NamedTuple

from lift_trl.critic.settings import CriticSettings
from tests.critic.tiny_models import build_vlm


class Family(NamedTuple):
    """A family, how it takes frames, and its tiny model."""

    model_type: str
    native_video: bool

    def build(self) -> tuple[Any, Any]:
        return build_vlm(self.model_type)

    @property
    def settings(self) -> CriticSettings:
        return CriticSettings(num_frames=4, native_video=self.native_video)


FAMILIES = [
    Family("idefics3", native_video=False),
    Family("internvl", native_video=False),
    Family("qwen2_5_vl", native_video=True),
    Family("qwen2_5_vl", native_video=False),
    Family("qwen3_vl", native_video=True),
    Family("qwen3_vl", native_video=False),
    Family("qwen3_vl_moe", native_video=True),
    Family("llava_llama", native_video=False),
]
