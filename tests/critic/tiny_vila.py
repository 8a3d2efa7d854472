"""A tiny VILA checkpoint in the layout of the Hub's, and a LoRA with the released names. Values come from a formula."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaTokenizer,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from lift_trl.critic_models.vila import DownsampleProjector
from lift_trl.rubric import QUESTIONS


#: 3 x 3 patches, so that the grid is padded: 2 x 2 tokens a frame.
IMAGE, PATCH, VISION, TEXT, LAYERS = 42, 14, 16, 32, 2
LINEARS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj") + tuple(
    f"mlp.{name}_proj" for name in ("gate", "up", "down")
)


def wave(shape: torch.Size, phase: float, scale: float = 0.3) -> torch.Tensor:
    """Numbers that no library's generator can change."""
    steps = torch.arange(shape.numel(), dtype=torch.float64)
    return (scale * torch.sin(steps * 1.37 + steps**1.5 * 0.11 + phase)).float().view(shape)


def fill(module: torch.nn.Module) -> Any:
    for index, (name, weight) in enumerate(sorted(module.state_dict().items())):
        if weight.is_floating_point() and "inv_freq" not in name:
            norm = "norm" in name or name == "layers.1.weight"
            weight.copy_(wave(weight.shape, index) + float(norm and name.endswith("weight")))
    return module.eval()


@cache
def _bpe() -> str:
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    alphabet = sorted(set("".join(QUESTIONS.values())))
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(
        [*QUESTIONS.values(), "A chat between a curious user and an assistant. USER:"], trainer
    )
    return backend.to_str()


def build_tokenizer() -> LlamaTokenizer:
    """Llama's own class with few words: byte fallback, a prefix space, labels of several tokens."""
    model = json.loads(_bpe())["model"]
    return LlamaTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]], add_bos_token=True)


def build_llm() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=600,
        hidden_size=TEXT,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        max_position_embeddings=2048,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return fill(LlamaForCausalLM(config))


def build_tower() -> SiglipVisionModel:
    config = SiglipVisionConfig(
        hidden_size=VISION,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=IMAGE,
        patch_size=PATCH,
    )
    return fill(SiglipVisionModel(config))


def write_base(folder: Path) -> Path:
    """`VILA1.5-13b` in small."""
    build_llm().save_pretrained(folder / "llm")
    build_tokenizer().save_pretrained(folder / "llm")
    build_tower().save_pretrained(folder / "vision_tower")
    sizes = {"size": {"height": IMAGE, "width": IMAGE}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    SiglipImageProcessor(**sizes, resample=3).save_pretrained(folder / "vision_tower")
    (folder / "mm_projector").mkdir()
    save_file(fill(DownsampleProjector(VISION, TEXT)).state_dict(), folder / "mm_projector/model.safetensors")
    write_json(folder / "mm_projector/config.json", mm_projector_type="mlp_downsample", model_type="v2l_projector")
    write_json(folder / "config.json", model_type="llava_llama", architectures=["LlavaLlamaModel"])
    return folder


def write_lora(folder: Path, base: Path) -> Path:
    """`LiFT-Critic-13b-lora` in small: rank 3, scale 2, and the authors' names of weights and modules."""
    folder.mkdir()
    llm = build_llm()
    weights = {}
    for layer in range(LAYERS):
        for index, name in enumerate(LINEARS):
            rows, columns = llm.get_submodule(f"model.layers.{layer}.{name}").weight.shape
            key = f"base_model.model.llm.model.layers.{layer}.{name}"
            weights[f"{key}.lora_A.weight"] = wave(torch.Size([3, columns]), index + 0.5, 0.2)
            weights[f"{key}.lora_B.weight"] = wave(torch.Size([rows, 3]), index + layer, 0.2)
    save_file(weights, folder / "adapter_model.safetensors")
    names = [f"llm.model.layers.{i}.{name}" for i in range(LAYERS) for name in LINEARS]
    lora = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 3,
        "lora_alpha": 6,
        "lora_dropout": 0.05,
        "bias": "none",
    }
    write_json(
        folder / "adapter_config.json",
        **lora,
        target_modules=names,
        base_model_name_or_path=str(base),
        inference_mode=True,
    )
    write_json(folder / "config.json", model_type="llava_llama", architectures=["LlavaLlamaModel"])
    return folder


def write_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(values))


def rename_key(path: Path, old: str, new: str | None) -> None:
    """One weight of a file under another name, or left out."""
    weights = load_file(path)
    value = weights.pop(old)
    save_file({**weights, **({new: value} if new else {})}, path)
