"""Any `AutoModelForImageTextToText` with a chat template: the frames of a clip are images, as in the authors' critics."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from ..store.video_io import Clip
from ..store.weights import load_whole


class ChatVLM:
    """
    A family whose text positions simply count up, such as Idefics3, LLaVA or InternVL.

    Attributes:
        lora_target_modules: PEFT's pattern of the linear layers of the language model. Tower and projector stay frozen.
            Source: arXiv 2412.04814, and `--lora_llm` of CodeGoat24/LiFT.
        native_video: whether the frames go in as one video; images here.
        loads_adapters: whether `load` takes a LoRA with a `config.json` of the family and finds its base; not here.
    """

    lora_target_modules: str | list[str] = (
        r".*\b(language_model|text_model)\..*\b(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    )
    loads_adapters: bool = False

    def __init__(self, *, native_video: bool | None = None, processor_kwargs: Mapping[str, Any] | None = None) -> None:
        if native_video:
            raise ValueError(
                "native_video=True, but this family takes frames as images only. Leave native_video out, or use a "
                "Qwen2-VL, Qwen2.5-VL or Qwen3-VL checkpoint."
            )
        self.native_video = False
        self.processor_kwargs = dict(processor_kwargs or {})

    def load(self, name: str, *, dtype: torch.dtype, revision: str | None = None, **placement: Any) -> tuple[Any, Any]:
        """
        The model in evaluation mode, and its processor.

        Args:
            placement: `device_map` and `quantization_config` of `from_pretrained`.

        Raises:
            ValueError: if the checkpoint lacks weights of the model, or has others; names them.
        """
        model = load_whole(AutoModelForImageTextToText, name, dtype=dtype, revision=revision, **placement).eval()
        return model, AutoProcessor.from_pretrained(name, revision=revision)

    def prompt(self, frames: Sequence[Any], question: str) -> list[dict[str, Any]]:
        """Chat messages: the frames, then `question` (caption first), so that all questions share their beginning."""
        content = [{"type": "image"} for _ in frames] + [{"type": "text", "text": question}]
        return [{"role": "user", "content": content}]

    def encode(self, processor: Any, texts: Sequence[str], clips: Sequence[Clip]) -> Mapping[str, Tensor]:
        """Model inputs of B rendered prompts and their clips, padded on the right: `input_ids` [B, L] and so on."""
        images = [list(clip.frames) for clip in clips]
        return processor(text=list(texts), images=images, **PROCESSOR_OPTIONS, **self.processor_kwargs)

    def position_shift(self, model: Any) -> Tensor | int:
        """What the model adds to a text token's place in its row to get its position; read after the prefix has run."""
        return 0


#: A chat template writes the special tokens by itself.
PROCESSOR_OPTIONS: Mapping[str, Any] = {
    "padding": True,
    "padding_side": "right",
    "add_special_tokens": False,
    "return_tensors": "pt",
}


def control_tokens(tokenizer: Any) -> list[str]:
    """Texts such as `<image>` that stand for a picture or a turn wherever they are written."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return sorted({*added, *tokenizer.all_special_tokens})
