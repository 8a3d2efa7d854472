"""How a stage on videos is told to hold its critics. Read before anything is loaded."""

from dataclasses import dataclass
from typing import Any, Literal

from accelerate import PartialState

from ..documented import documented


@documented
@dataclass(kw_only=True)
class CriticArguments:
    """
    How a critic is held, and a second judge.

    Args:
        critic_quantization (`str` or `None`, *optional*, defaults to `None`):
            Hold critic and second judge in 8 bits, int8 or float8, which saves memory (torchao).
        critic_device_map (`str` or `None`, *optional*, defaults to `None`):
            auto spreads a large critic over the devices of one process (transformers).
    """

    critic_quantization: Literal["int8", "float8"] | None = None
    critic_device_map: str | None = None

    def critic_options(self, state: PartialState) -> dict[str, Any]:
        """
        For `LiFTCritic.from_pretrained`.

        Raises:
            ValueError: if several processes would each spread theirs.
        """
        if self.critic_device_map is None:
            return {"device": state.device, "quantization": self.critic_quantization}
        if state.num_processes > 1:
            raise ValueError("critic_device_map spreads one process over the devices: launch one, or leave it out.")
        return {"device_map": self.critic_device_map, "quantization": self.critic_quantization}
