"""VILA 1.5 with a SigLIP tower, the family of the authors' LiFT-Critic-13b, in plain transformers classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PretrainedConfig,
    SiglipVisionModel,
)

from ..hub_source import find_file
from ..store.video_io import Clip
from ..store.weights import check_keys, load_whole, read_tensors
from .chat_vlm import ChatVLM


#: Stands for a picture. SentencePiece falls back to bytes and never writes it, so the vocabulary keeps its size.
IMAGE_TOKEN = "<unk>"
#: Source: `conv_vicuna_v1` of CodeGoat24/LiFT, llava/conversation.py.
TEMPLATE = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and "
    "polite answers to the user's questions. {% for m in messages %}{% if m.role == 'user' %}USER: {% for c in m.content %}"
    "{% if c.type == 'image' %}<unk>\n{% else %}{{ c.text }}{% endif %}{% endfor %} ASSISTANT:{% else %}"
    "{% for c in m.content %} {{ c.text }}{% endfor %}</s>{% endif %}{% endfor %}"
)
#: Owner of the base models on the Hub: a released LoRA may name a folder of its authors' machine.
OWNER = "Efficient-Large-Model"
#: How a released LoRA's keys begin, and how ours do.
THEIRS, OURS = "base_model.model.llm.model.", "base_model.model.model.language_model."


class VilaConfig(LlavaConfig):
    """LLaVA's, under the name that finds `Vila`."""

    model_type = "llava_llama"


class DownsampleProjector(nn.Module):
    """
    Four neighbouring patches to one token: [B, N*N, C] to [B, ceil(N/2)**2, D], columns first, zeros beyond the edge.

    Source: `mlp_downsample` of CodeGoat24/LiFT, llava/model/multimodal_projector/base_projector.py.
    """

    def __init__(self, vision_size: int, text_size: int) -> None:
        super().__init__()
        merge = nn.Linear(4 * vision_size, text_size)
        # `layers.0` is the merging of patches there, so the weights are layers 1, 2 and 4.
        self.layers = nn.Sequential(
            nn.Identity(), nn.LayerNorm(4 * vision_size), merge, nn.GELU(), nn.Linear(text_size, text_size)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Tokens of the pictures' patches."""
        batch, count, width = features.shape
        side = round(count**0.5)
        grid = features.view(batch, side, side, width)
        grid = nn.functional.pad(grid, (0, 0, 0, side % 2, 0, side % 2))
        half = (side + 1) // 2
        tokens = grid.view(batch, half, 2, half, 2, width).permute(0, 3, 1, 2, 4, 5)
        merged: Tensor = self.layers(tokens.reshape(batch, half * half, 4 * width))
        return merged


class Vila(ChatVLM):
    """VILA 1.5, or a released LiFT-Critic on it: `load` takes either."""

    loads_adapters = True

    def load(self, name: str, *, dtype: torch.dtype, revision: str | None = None, **placement: Any) -> tuple[Any, Any]:
        """
        The model in evaluation mode, with a released LoRA in it, and its processor. No pickle is opened.

        The LoRA is merged. On a base in 8 bits, which would round it, it stays beside, and so does the projector in `dtype`.

        Raises:
            ValueError: if a weight is missing, left over or of another shape, or the tower is none of SigLIP's; for a
                `device_map`.
        """
        if "device_map" in placement:
            raise ValueError(
                f"{name}: VILA is three parts, each loaded by itself, and device_map would spread each as if it were alone. "
                "Leave it out; quantization='int8' halves what it takes of one card."
            )
        if _file(name, "adapter_config.json", revision) is None:
            return _load_base(name, dtype, revision, placement)
        configured = PeftConfig.from_pretrained(name, revision=revision).base_model_name_or_path or "VILA1.5-13b"
        base = configured if Path(configured).is_dir() else f"{OWNER}/{Path(configured).name}"
        model, processor = _load_base(base, dtype, None, placement)
        tuned = _put_on_lora(model, name, revision, self.lora_target_modules)
        return (tuned if placement else tuned.merge_and_unload()).eval(), processor

    def encode(self, processor: Any, texts: Sequence[str], clips: Sequence[Clip]) -> Mapping[str, Tensor]:
        """
        As `ChatVLM.encode`. Text between pictures is tokenised by itself, frames are stretched to the tower's square.

        Source: `tokenizer_image_token` and `process_image` of CodeGoat24/LiFT, llava/mm_utils.py.
        """
        tokenizer, images = processor.tokenizer, processor.image_processor
        size = (images.size["width"], images.size["height"])
        frames = [Image.fromarray(frame).resize(size) for clip in clips for frame in clip.frames]
        pixels = images(frames, do_resize=False, return_tensors="pt", **self.processor_kwargs)["pixel_values"]
        side = size[0] // processor.patch_size
        picture = [processor.image_token_id] * ((side + 1) // 2) ** 2
        rows = []
        for text in texts:
            first, *rest = tokenizer(text.split(IMAGE_TOKEN), add_special_tokens=False)["input_ids"]
            rows.append([tokenizer.bos_token_id, *first, *(i for piece in rest for i in (*picture, *piece))])
        padded = tokenizer.pad({"input_ids": rows}, padding_side="right", return_tensors="pt")
        return {**padded, "pixel_values": pixels}


def _load_base(name: str, dtype: torch.dtype, revision: str | None, placement: Mapping[str, Any]) -> tuple[Any, Any]:
    """The three parts of a VILA checkpoint as one LLaVA, and a processor of stock parts."""
    kinds = {
        "vision_tower": ("model_type", "siglip_vision_model"),
        "mm_projector": ("mm_projector_type", "mlp_downsample"),
    }
    for part, (key, kind) in kinds.items():
        found = PretrainedConfig.get_config_dict(name, subfolder=part, revision=revision)[0].get(key)
        if found != kind:
            raise ValueError(
                f"{name}/{part}: {key} {found!r}, and only {kind!r} is known (VILA1.5-40b has another tower)."
            )
    options: dict[str, Any] = {"dtype": dtype, "revision": revision or "main", "use_safetensors": True, **placement}
    llm = load_whole(LlamaForCausalLM, name, subfolder="llm", **options)
    tower = load_whole(SiglipVisionModel, name, subfolder="vision_tower", **options)
    projector = DownsampleProjector(tower.config.hidden_size, llm.config.hidden_size).to(dtype)
    weights = read_tensors(_safetensors(name, "mm_projector/model.safetensors", revision))
    check_keys(f"{name}/mm_projector", weights, projector.state_dict())
    projector.load_state_dict(weights)
    layout: dict[str, Any] = {
        "image_token_id": 0,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "full",
    }
    with torch.device("meta"):  # the parts are whole already
        config = VilaConfig(vision_config=tower.config, text_config=llm.config, tie_word_embeddings=False, **layout)
        model = LlavaForConditionalGeneration(config)
    model.model.vision_tower, model.model.multi_modal_projector = tower, projector
    model.model.language_model, model.lm_head = llm.model, llm.lm_head
    model.generation_config = llm.generation_config
    if placement:
        model.hf_quantizer = llm.hf_quantizer  # PEFT asks it how weights are rounded
    model.config.name_or_path = name
    tokenizer = AutoTokenizer.from_pretrained(name, subfolder="llm", revision=revision)
    images = AutoImageProcessor.from_pretrained(name, subfolder="vision_tower", revision=revision)
    return model.eval(), vila_processor(images, tokenizer, tower.config.patch_size)


def vila_processor(images: Any, tokenizer: Any, patch_size: int) -> LlavaProcessor:
    """A processor of VILA's template. Padding by the tokenizer's own `<unk>` would look like pictures."""
    tokenizer.pad_token = tokenizer.eos_token
    return LlavaProcessor(
        images, tokenizer, patch_size, "full", chat_template=TEMPLATE, image_token=tokenizer.unk_token
    )


def _put_on_lora(model: Any, name: str, revision: str | None, targets: str | list[str]) -> PeftModel:
    """`model` with the released LoRA on."""
    config: Any = PeftConfig.from_pretrained(name, revision=revision)
    # Theirs lists modules by names that a plain LLaVA does not have.
    config.target_modules = targets
    tuned = PeftModel(model, config)
    weights = read_tensors(_safetensors(name, "adapter_model.safetensors", revision))
    weights = {key.replace(THEIRS, OURS, 1): value for key, value in weights.items()}
    check_keys(name, weights, get_peft_model_state_dict(tuned))
    set_peft_model_state_dict(tuned, weights)
    return tuned


def _safetensors(name: str, path: str, revision: str | None) -> str:
    found = _file(name, path, revision)
    if found is None:
        raise ValueError(f"{name}: no {path}. Weights are read from safetensors only; a pickle is never opened.")
    return found


def _file(name: str, path: str, revision: str | None) -> str | None:
    found = find_file(name, path, revision=revision)
    return None if found is None else str(found)
