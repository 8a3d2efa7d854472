"""Tiny random checkpoints of real classes, built offline. Frames are images or, of Qwen's, one native video."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vImageProcessor,
    Glm4vProcessor,
    Glm4vVideoProcessor,
    GotOcr2ImageProcessor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from lift_trl.critic_models import Vila
from lift_trl.rubric import DEFINITIONS, QUESTIONS
from tests.critic.tiny_vila import write_base


SIZE = 32
SPECIALS = {
    "idefics3": ["<pad>", "<s>", "<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>"],
    "qwen": [
        "<pad>",
        "<|im_start|>",
        "<|im_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|image_pad|>",
        "<|video_pad|>",
    ],
    "glm4v": [
        "<pad>",
        "<|user|>",
        "<|endoftext|>",
        "<|assistant|>",
        "<|begin_of_image|>",
        "<|end_of_image|>",
        "<|image|>",
        "<|begin_of_video|>",
        "<|end_of_video|>",
        "<|video|>",
    ],
    "internvl": ["<pad>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"],
}
IDEFICS_TEMPLATE = """\
{% for m in messages %}{{ m.role | capitalize }}:{% for c in m.content %}{% if c.type == 'image' %}<image>{% else %} \
{{ c.text }}{% endif %}{% endfor %}<end_of_utterance>
{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"""
QWEN_TEMPLATE = """\
{% for m in messages %}<|im_start|>{{ m.role }}
{% for c in m.content %}{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% elif c.type == 'video' %}\
<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


INTERNVL_TEMPLATE = """\
{% for m in messages %}<|im_start|>{{ m.role }}
{% for c in m.content %}{% if c.type == 'image' %}<IMG_CONTEXT>
{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


# As GLM's: nothing ends a turn but the next one.
GLM_TEMPLATE = """\
{% for m in messages %}<|{{ m.role }}|>
{% for c in m.content %}{% if c.type == 'image' %}<|begin_of_image|><|image|><|end_of_image|>{% else %}{{ c.text }}\
{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% endif %}"""


@cache
def _trained(family: str, vocab_size: int) -> str:
    """A byte-level BPE that has read the rubric's questions only, so that labels take several tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIALS[family],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [*QUESTIONS.values(), *(text for d in DEFINITIONS.values() for text in d.values())]
    backend.train_from_iterator(texts, trainer)
    return backend.to_str()


def build_tokenizer(family: str, **named: str) -> PreTrainedTokenizerFast:
    specials = SPECIALS[family]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained(family, 500)),
        pad_token="<pad>",
        eos_token=specials[2],
        additional_special_tokens=specials[3:],
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
        extra_special_tokens=named,
    )


def _text_config(tokenizer: Any, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
        # The initial range of real sizes leaves a tiny model with nearly uniform answers, in which faults would hide.
        "initializer_range": 0.2,
        **more,
    }


#: Of the towers that see one picture at a time.
VISION_CONFIG = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": SIZE,
    "patch_size": 8,
    "initializer_range": 0.2,
}


def build_idefics3() -> tuple[Any, Any]:
    tokenizer = build_tokenizer("idefics3")
    config = Idefics3Config(
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        tie_word_embeddings=False,
        vision_config=VISION_CONFIG,
        text_config={"model_type": "llama", **_text_config(tokenizer)},
    )
    edge = {"longest_edge": SIZE}
    processor = Idefics3Processor(
        Idefics3ImageProcessor(size=edge, max_image_size=edge, do_image_splitting=False),
        tokenizer,
        image_seq_len=4,
        chat_template=IDEFICS_TEMPLATE,
    )
    return Idefics3ForConditionalGeneration(config), processor


def build_smolvlm() -> tuple[Any, Any]:
    tokenizer = build_tokenizer("idefics3", fake_image_token="<fake_token_around_image>")
    config = SmolVLMConfig(
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        tie_word_embeddings=False,
        vision_config=VISION_CONFIG,
        text_config={"model_type": "llama", **_text_config(tokenizer)},
    )
    edge = {"longest_edge": SIZE}
    images = SmolVLMImageProcessor(size=edge, max_image_size=edge, do_image_splitting=False)
    videos = SmolVLMVideoProcessor(size=edge, max_image_size=edge)
    processor = SmolVLMProcessor(images, tokenizer, videos, image_seq_len=4, chat_template=IDEFICS_TEMPLATE)
    return SmolVLMForConditionalGeneration(config), processor


def build_internvl() -> tuple[Any, Any]:
    tokenizer = build_tokenizer(
        "internvl",
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    config = InternVLConfig(
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
        vision_config=VISION_CONFIG,
        text_config={"model_type": "qwen2", **_text_config(tokenizer)},
    )
    size = {"height": SIZE, "width": SIZE}
    processor = InternVLProcessor(
        GotOcr2ImageProcessor(size=size),
        tokenizer,
        InternVLVideoProcessor(size=size),
        image_seq_length=4,
        chat_template=INTERNVL_TEMPLATE,
    )
    return InternVLForConditionalGeneration(config), processor


def _qwen(config_class: Any, model_class: Any, vision: dict[str, Any], text: dict[str, Any], tokenizer: Any) -> Any:
    ids = {
        f"{name}_id": tokenizer.convert_tokens_to_ids(f"<|{piece}|>")
        for name, piece in (
            ("image_token", "image_pad"),
            ("video_token", "video_pad"),
            ("vision_start_token", "vision_start"),
            ("vision_end_token", "vision_end"),
        )
    }
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0}
    text = _text_config(tokenizer, rope_parameters=rope, **text)
    return model_class(config_class(vision_config=vision, text_config=text, tie_word_embeddings=False, **ids))


def build_qwen2_5_vl() -> tuple[Any, Any]:
    tokenizer = build_tokenizer("qwen")
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 32,
        "patch_size": 8,
        "window_size": 32,
        "fullatt_block_indexes": [1],
        "tokens_per_second": 2,
    }
    model = _qwen(Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, vision, {}, tokenizer)
    pixels = {"shortest_edge": 16 * 16, "longest_edge": SIZE * SIZE}
    sizes = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2, "size": pixels}
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(**sizes), tokenizer, Qwen2VLVideoProcessor(**sizes), chat_template=QWEN_TEMPLATE
    )
    return model, processor


def build_qwen3_vl(
    config_class: Any = Qwen3VLConfig, model_class: Any = Qwen3VLForConditionalGeneration, **text: Any
) -> tuple[Any, Any]:
    tokenizer = build_tokenizer("qwen")
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 32,
        "patch_size": 8,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
    }
    model = _qwen(config_class, model_class, vision, {"head_dim": 8, **text}, tokenizer)
    sizes = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2}
    image = {**sizes, "size": {"shortest_edge": 16 * 16, "longest_edge": SIZE * SIZE}}
    video = {**sizes, "size": {"shortest_edge": 16 * 16, "longest_edge": 8 * SIZE * SIZE}}
    processor = Qwen3VLProcessor(
        Qwen2VLImageProcessor(**image), tokenizer, Qwen3VLVideoProcessor(**video), chat_template=QWEN_TEMPLATE
    )
    return model, processor


def build_qwen3_vl_moe() -> tuple[Any, Any]:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    return build_qwen3_vl(Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration, **experts)


def build_glm4v() -> tuple[Any, Any]:
    """A family whose positions have several axes, without a key in its configuration that says so."""
    tokenizer = build_tokenizer("glm4v")
    names = ("image", "video", "image_start", "image_end", "video_start", "video_end")
    pieces = ("image", "video", "begin_of_image", "end_of_image", "begin_of_video", "end_of_video")
    config = Glm4vConfig(
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 32,
            "patch_size": 8,
            "image_size": SIZE,
            "initializer_range": 0.2,
        },
        text_config=_text_config(tokenizer, num_attention_heads=2, num_key_value_heads=1, hidden_size=128),
        tie_word_embeddings=False,
        **{f"{n}_token_id": tokenizer.convert_tokens_to_ids(f"<|{p}|>") for n, p in zip(names, pieces)},
    )
    config.vision_config.out_hidden_size = 128
    sizes = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2}
    pixels = {"shortest_edge": 16 * 16, "longest_edge": 2 * SIZE * SIZE}
    processor = Glm4vProcessor(
        Glm4vImageProcessor(**sizes, size=pixels),
        tokenizer,
        Glm4vVideoProcessor(**sizes, size=pixels),
        chat_template=GLM_TEMPLATE,
    )
    return Glm4vForConditionalGeneration(config), processor


def build_vila() -> tuple[Any, Any]:
    with TemporaryDirectory() as folder:
        return Vila().load(str(write_base(Path(folder) / "base")), dtype=torch.float32)


BUILDERS = {
    "glm4v": build_glm4v,
    "idefics3": build_idefics3,
    "internvl": build_internvl,
    "qwen2_5_vl": build_qwen2_5_vl,
    "qwen3_vl": build_qwen3_vl,
    "qwen3_vl_moe": build_qwen3_vl_moe,
    "smolvlm": build_smolvlm,
    "llava_llama": build_vila,
}


def build_vlm(family: str, *, seed: int = 0, save_directory: Path | None = None) -> tuple[Any, Any]:
    """A random model of a family in float32, in evaluation mode, and its processor."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, processor = BUILDERS[family]()
    tokenizer = processor.tokenizer
    model.generation_config = GenerationConfig(
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id
    )
    if save_directory is not None:
        model.save_pretrained(save_directory)
        processor.save_pretrained(save_directory)
    return model.float().eval(), processor
