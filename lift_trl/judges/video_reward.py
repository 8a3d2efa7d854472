"""VideoReward: visual quality, motion quality and text alignment, read by a linear head at three tokens of the question."""

import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch import Tensor, nn
from transformers import AutoConfig, AutoProcessor, Qwen2VLModel

from ..critic_models import QwenVL
from ..records import StoredVideo, VideoSource
from ..store.weights import check_keys, read_tensors
from .native import NativeJudge, Scale, Verdict, fit, frames_at, load_dtype


#: Tokens at which the head is read, in the order of `VideoReward.aspects`.
REWARD_TOKENS = ("<|VQ_reward|>", "<|MQ_reward|>", "<|TA_reward|>")
#: A frame's fewest pixels. Source: `VIDEO_MIN_PIXELS` of KwaiVGI/VideoAlign, vision_process.py.
MIN_PIXELS = 128 * 28 * 28


class RewardHead(nn.Module):
    """Qwen2-VL without its vocabulary, and a linear layer of one output, or of one for each aspect."""

    def __init__(self, config: Any, num_outputs: int) -> None:
        super().__init__()
        self.model = Qwen2VLModel(config)
        self.rm_head = nn.Linear(config.get_text_config().hidden_size, num_outputs, bias=False)

    def forward(self, inputs: dict[str, Tensor], token_ids: list[int]) -> Tensor:
        """float32 [B, aspects]: at token i output i, or the only one. Positions count up on all axes, as it was trained."""
        ids = inputs["input_ids"]
        places = torch.arange(ids.shape[1], device=ids.device).expand(3, *ids.shape)
        hidden = self.model(**inputs, position_ids=places, use_cache=False).last_hidden_state
        values: Tensor = self.rm_head(hidden).float()
        values = values.expand(*ids.shape, len(token_ids))
        return torch.stack([values[..., i][ids == token] for i, token in enumerate(token_ids)], dim=-1)


class VideoReward(NativeJudge):
    """
    Kling's judge. Values are standard scores: 0 is the mean and 1 the standard deviation of its makers' data.

    Source: KwaiVGI/VideoAlign, inference.py and trainer.py; arXiv 2501.13918.
    """

    released = "KwaiVGI/VideoReward"
    aspects = ("VQ", "MQ", "TA")
    default_scale = Scale("normal", 0.0, 1.0)
    prompt_file = "video_reward.txt"

    def __init__(self, model: Any, processor: Any, *, config: dict[str, Any], **options: Any) -> None:
        super().__init__(model, processor, **options)
        self.fps, self.max_pixels = config["data_config"]["fps"], config["data_config"]["max_frame_pixels"]
        self.norm = config["inference_config"]
        self.token_ids = processor.tokenizer.convert_tokens_to_ids(list(REWARD_TOKENS))

    @classmethod
    def from_pretrained(
        cls, name: str, *, revision: str | None = None, scale: Scale | None = None, device: torch.device | str = "cpu"
    ) -> "VideoReward":
        """
        As `NativeJudge.from_pretrained`.

        Raises:
            ValueError: if a weight is missing, left over or of another shape, or the folder holds none.
        """
        wanted = ["model_config.json", "checkpoint-*/model.*"]
        folder = Path(
            name if Path(name).is_dir() else snapshot_download(name, revision=revision, allow_patterns=wanted)
        )
        config = json.loads((folder / "model_config.json").read_text(encoding="utf-8"))
        base, lora = config["model_config"]["model_name_or_path"], config["peft_lora_config"]
        processor = AutoProcessor.from_pretrained(base)
        processor.tokenizer.add_special_tokens({"additional_special_tokens": list(REWARD_TOKENS)})
        weights = merge_lora(_read(folder), lora["lora_alpha"] / lora["lora_r"])
        shape = AutoConfig.from_pretrained(base)
        shape.get_text_config().vocab_size = len(weights["model.language_model.embed_tokens.weight"])
        outputs = config["model_config"]["output_dim"]
        if outputs not in (1, len(cls.aspects)):
            raise ValueError(f"{name}: a head of {outputs} outputs; VideoReward has 1 or {len(cls.aspects)}.")
        model = RewardHead(shape, outputs).to(load_dtype(device))
        check_keys(name, weights, model.state_dict())
        model.load_state_dict(weights)
        own_name = cls.name_of(name, revision, scale)
        return cls(model.to(device).eval(), processor, config=config, name=own_name, scale=scale)

    @torch.inference_mode()
    def raw(self, video: VideoSource | StoredVideo | str, prompt: str) -> Tensor:
        """float32 [3], the head's outputs before they are standardised."""
        images = self.processor.video_processor
        factor = images.patch_size * images.merge_size
        clip = fit(frames_at(video, self.fps), factor=factor, min_pixels=MIN_PIXELS, max_pixels=self.max_pixels)
        family = QwenVL(processor_kwargs={"do_resize": False})
        messages = family.prompt(list(clip.frames), self.question.replace("{prompt}", prompt))
        text = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        encoded, device = family.encode(self.processor, [text], [clip]), self.model.rm_head.weight.device
        inputs = {name: value.to(device) for name, value in encoded.items()}
        values: Tensor = self.model(inputs, self.token_ids)[0]
        return values.cpu()

    def judge(self, video: VideoSource | StoredVideo | str, prompt: str) -> Verdict:
        """As `NativeJudge.judge`."""
        raw = dict(zip(self.aspects, self.raw(video, prompt).tolist(), strict=True))
        return Verdict({a: (v - self.norm[f"{a}_mean"]) / self.norm[f"{a}_std"] for a, v in raw.items()})


def _read(folder: Path) -> dict[str, Tensor]:
    """The newest checkpoint's weights. It is released as a pickle, of which PyTorch reads tensors only and runs nothing."""
    found = sorted(folder.glob("checkpoint-*/model.*"), key=lambda path: int(path.parent.name.rsplit("-", 1)[1]))
    if not found:
        raise ValueError(f"{folder}: no checkpoint-*/model.pth and no model.safetensors there. Download it again.")
    if found[-1].suffix == ".safetensors":
        return read_tensors(found[-1])
    weights: dict[str, Tensor] = torch.load(found[-1], map_location="cpu", weights_only=True)
    return weights


def merge_lora(weights: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
    """`weights` by the names of `RewardHead`, each LoRA in its base. The vocabulary's head is left out."""
    merged: dict[str, Tensor] = {}
    for name, value in weights.items():
        if ".lora_" in name or name.endswith("lm_head.weight"):
            continue
        stem = name.removesuffix(".base_layer.weight")
        down, up = (weights.get(f"{stem}.lora_{half}.default.weight") for half in "AB")
        if (down is None) != (up is None):
            raise ValueError(f"{stem}: {'lora_B without lora_A' if down is None else 'lora_A without lora_B'}.")
        if down is not None and up is not None:
            value = value + factor * (up @ down)
        name = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
        for old, new in (("visual.", "model.visual."), ("model.", "model.language_model.")):
            if name.startswith(old):
                name = new + name.removeprefix(old)
                break
        merged[name] = value
    return merged
