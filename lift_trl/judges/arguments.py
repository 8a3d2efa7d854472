"""Which second judge an evaluation asks for, and how critics are held. Read before anything is loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from accelerate import PartialState

from ..documented import documented
from . import JUDGES, load_judge


if TYPE_CHECKING:
    import torch

    from .native import NativeJudge
    from .video_score import RegressionJudge


@documented
@dataclass
class SecondJudgeArguments:
    """
    Which second judge rates the clips, if any.

    Args:
        judge (`str` or `None`, *optional*, defaults to `None`):
            Second judge: video_reward, unified_reward, video_score2, or a folder or repo like TIGER-Lab/VideoScore.
        judge_model (`str` or `None`, *optional*, defaults to `None`):
            Folder or repo of the weights of video_reward, unified_reward, video_score2; the released by default.
        judge_scale (`str` or `None`, *optional*, defaults to `None`):
            Native values of these to [0, 1]: linear:1:5 or normal:0:1; their own by default.
        judge_revision (`str` or `None`, *optional*, defaults to `None`):
            Branch, tag or commit of the judge's repo.
        judge_dir (`str`, *optional*, defaults to `"runs/second_judge"`):
            Where its scores go, by system.
        judge_frames (`int`, *optional*, defaults to `16`):
            Frames of a clip (VideoScore: 16; v1.1: 48).
        judge_prompt (`str` or `None`, *optional*, defaults to `None`):
            Text file of the judge's own question with {prompt}; without, one of ours.
    """

    judge: str | None = None
    judge_model: str | None = None
    judge_scale: str | None = None
    judge_revision: str | None = None
    judge_dir: str = "runs/second_judge"
    judge_frames: int = 16
    judge_prompt: str | None = None

    def load(self, device: "torch.device | str") -> "RegressionJudge | NativeJudge":
        """
        The judge.

        Raises:
            ValueError: if no judge is named, or its question has no place for the prompt.
        """
        import torch

        from .video_score import QUESTION, RegressionJudge

        if self.judge is None:
            raise ValueError("judge is not set; name a folder or repo, TIGER-Lab/VideoScore for instance.")
        if self.judge in JUDGES:
            if self.judge_prompt or self.judge_frames != type(self).judge_frames:
                raise ValueError(
                    f"judge={self.judge} has frames and a question of its own: leave out judge_frames and judge_prompt."
                )
            return load_judge(
                self.judge,
                model=self.judge_model,
                revision=self.judge_revision,
                scale=self.judge_scale,
                device=device,
            )
        if self.judge_model or self.judge_scale:
            raise ValueError(
                f"judge={self.judge}: judge_model and judge_scale are of {', '.join(JUDGES)}; leave them out."
            )
        question = QUESTION if self.judge_prompt is None else Path(self.judge_prompt).read_text(encoding="utf-8")
        if "{prompt}" not in question:
            raise ValueError(f"{self.judge_prompt}: no {{prompt}}; write it where the clip's prompt belongs.")
        on_cpu = torch.device(device).type == "cpu"
        return RegressionJudge.from_pretrained(
            self.judge,
            revision=self.judge_revision,
            dtype=torch.float32 if on_cpu else torch.bfloat16,
            device=device,
            num_frames=self.judge_frames,
            question=question,
        )


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
