"""Tiny real checkpoints: a `CogVideoXPipeline` and a chat VLM, built from their configurations, and the trained ones.

Weights are random unless the trained ones of the package are asked for. Everything here is an ordinary checkpoint: what is
saved loads with `from_pretrained` and nothing else of the project knows that it is small.
"""

from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DiffusionPipeline,
)
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    GenerationConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)
from transformers.image_utils import PILImageResampling

from .language import sentences
from .shapes import COLOURS, DIRECTIONS, NUM_FRAMES, SHAPES, SIZE


#: The trained checkpoints of the package.
WEIGHTS = Path(__file__).parent / "weights"
#: Their video models' folders, by family.
VIDEO_MODELS = MappingProxyType({"cogvideox": "video_model", "wan": "wan_video_model"})
#: Caption words and the end token: "a red circle moving left </s>".
MAX_TEXT_TOKENS = 6
LATENT_CHANNELS = 8
SPATIAL_COMPRESSION = 4
TEXT_DIM = 32
#: Of T5 and UMT5 alike: one layer, which stays random. The words of a caption are already told apart by it.
TEXT_ENCODER: MappingProxyType[str, Any] = MappingProxyType(
    {
        "vocab_size": 16,
        "d_model": TEXT_DIM,
        "d_kv": 16,
        "num_heads": 2,
        "num_layers": 1,
        "d_ff": 64,
        "dropout_rate": 0.0,
        "feed_forward_proj": "gated-gelu",
        "is_encoder_decoder": False,
        "use_cache": False,
    }
)
VLM_PATCH = 8
VLM_PIXEL_SHUFFLE = 3
TOKENS_PER_IMAGE = (SIZE // VLM_PATCH // VLM_PIXEL_SHUFFLE) ** 2
#: Pictures come before text, whatever their order in the message.
VLM_CHAT_TEMPLATE = """\
{% for message in messages %}\
{{ message.role | capitalize }}:\
{% if message.content is string %}{% set texts = [message.content] %}\
{% else %}\
{% for item in message.content if item.type == 'image' %}<image>{% endfor %}\
{% set texts = message.content | selectattr('type', 'equalto', 'text') | map(attribute='text') | list %}\
{% endif %}\
{% if message.role == 'assistant' %}{% generation %} {{ texts | join(' ') }}<end_of_utterance>{% endgeneration %}\
{% else %} {{ texts | join(' ') }}<end_of_utterance>{% endif %}\
{% endfor %}\
{% if add_generation_prompt %}Assistant:{% endif %}"""
_WORD_START = "\u2581"


def build_tiny_pipeline(
    save_directory: str | Path | None = None,
    *,
    seed: int = 0,
    num_layers: int = 2,
    rotary: bool = False,
    size: int = SIZE,
    num_frames: int = NUM_FRAMES,
) -> CogVideoXPipeline:
    """
    A `CogVideoXPipeline` of real classes with random weights, float32 on the CPU.

    Call it with `max_sequence_length=pipeline.transformer.config.max_text_seq_length` (diffusers' default of 226 does not
    fit its position embeddings) and with a number of steps that divides 1,000.

    Args:
        save_directory: where to save the checkpoint folder; nothing is written for `None`.
        seed: of the random weights.
        num_layers: blocks of the transformer, about 100 thousand parameters each.
        rotary: rotary position embeddings, as in CogVideoX-5B, instead of the sines of CogVideoX-2B.
        size: height and width of a clip in pixels, a multiple of 8.
        num_frames: 1 or 8N+1.

    Raises:
        ValueError: if `size` or `num_frames` is none that CogVideoX can do.
    """
    if size % 8 or size <= 0:
        raise ValueError(f"size={size}; CogVideoX pipelines need a positive multiple of 8.")
    if num_frames != 1 and num_frames % 8 != 1:
        raise ValueError(f"num_frames={num_frames}; CogVideoX keeps a length of 1 or 8N+1 frames only.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = CogVideoXPipeline(
            tokenizer=build_prompt_tokenizer(),
            text_encoder=build_text_encoder(),
            vae=build_vae(size=size),
            transformer=build_transformer(num_layers=num_layers, rotary=rotary, size=size, num_frames=num_frames),
            scheduler=build_scheduler(),
        )
    pipeline.set_progress_bar_config(disable=True)
    if save_directory is not None:
        pipeline.save_pretrained(save_directory)
    return pipeline


def load_pipeline(family: str = "cogvideox") -> DiffusionPipeline:
    """The trained pipeline of the package in float32; its files are float16."""
    pipeline = DiffusionPipeline.from_pretrained(WEIGHTS / VIDEO_MODELS[family], dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load_vlm() -> tuple[Idefics3ForConditionalGeneration, Idefics3Processor]:
    """The pre-trained VLM of the package in float32 and its processor. It has never seen a rating."""
    model = Idefics3ForConditionalGeneration.from_pretrained(WEIGHTS / "vlm", dtype=torch.float32)
    return model.eval(), Idefics3Processor.from_pretrained(WEIGHTS / "vlm")


def build_prompt_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer of the captions, padding to 6 tokens, without regard to case."""
    words = ("<pad>", "</s>", "<unk>", "a", "moving", *COLOURS, *SHAPES, *DIRECTIONS)
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_TEXT_TOKENS,
    )


def build_text_encoder() -> T5EncoderModel:
    """A one-layer T5 encoder, random."""
    return T5EncoderModel(T5Config(**TEXT_ENCODER)).eval().requires_grad_(False)


def build_vae(*, size: int = SIZE) -> AutoencoderKLCogVideoX:
    """A causal video VAE, 4x in time and 4x in space, 8 latent channels, 0.58 M parameters."""
    return AutoencoderKLCogVideoX(
        block_out_channels=(16, 24, 32),
        down_block_types=("CogVideoXDownBlock3D",) * 3,
        up_block_types=("CogVideoXUpBlock3D",) * 3,
        latent_channels=LATENT_CHANNELS,
        layers_per_block=1,
        norm_num_groups=8,
        temporal_compression_ratio=4,
        sample_height=size,
        sample_width=size,
        scaling_factor=1.0,
    ).eval()


def build_transformer(
    *,
    num_layers: int = 6,
    num_heads: int = 2,
    head_dim: int = 32,
    rotary: bool = False,
    size: int = SIZE,
    num_frames: int = NUM_FRAMES,
) -> CogVideoXTransformer3DModel:
    """The denoiser; sizes are given in pixels and frames, its configuration holds them in latent units."""
    return CogVideoXTransformer3DModel(
        num_attention_heads=num_heads,
        attention_head_dim=head_dim,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        time_embed_dim=64,
        text_embed_dim=TEXT_DIM,
        num_layers=num_layers,
        sample_width=size // SPATIAL_COMPRESSION,
        sample_height=size // SPATIAL_COMPRESSION,
        sample_frames=num_frames,
        patch_size=2,
        temporal_compression_ratio=4,
        max_text_seq_length=MAX_TEXT_TOKENS,
        spatial_interpolation_scale=1.0,
        temporal_interpolation_scale=1.0,
        use_rotary_positional_embeddings=rotary,
    ).eval()


def build_scheduler() -> CogVideoXDDIMScheduler:
    """The noise schedule of CogVideoX-2B (v-prediction, zero terminal SNR), without its SNR shift for large pictures."""
    return CogVideoXDDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        snr_shift_scale=1.0,
    )


def build_tiny_vlm(
    save_directory: str | Path | None = None, *, seed: int = 0
) -> tuple[Idefics3ForConditionalGeneration, Idefics3Processor]:
    """
    An `Idefics3ForConditionalGeneration` of random weights and its processor, float32 on the CPU.

    A picture becomes 48 x 48 pixels and 4 tokens, whatever its size. The chat template puts the pictures of a message
    before its text. The vocabulary is that of the mini world and of the rubric; other words become `<unk>`.

    Args:
        save_directory: where to save model and processor; nothing is written for `None`.
        seed: of the random weights.
    """
    processor = build_vlm_processor()
    tokenizer = processor.tokenizer
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = Idefics3Config(
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=VLM_PIXEL_SHUFFLE,
        tie_word_embeddings=False,
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 192,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": SIZE,
            "patch_size": VLM_PATCH,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 320,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 512,
            "pad_token_id": tokenizer.pad_token_id,
            **ends,
        },
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Idefics3ForConditionalGeneration(config).eval()
    model.generation_config = GenerationConfig(pad_token_id=tokenizer.pad_token_id, **ends)
    if save_directory is not None:
        model.save_pretrained(save_directory)
        processor.save_pretrained(save_directory)
    return model, processor


def build_vlm_processor() -> Idefics3Processor:
    """Picture processor (48 x 48 pixels, no tiles), word-level tokenizer and chat template."""
    specials = ("<pad>", "<unk>", "<s>", "<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>")
    # A word after a blank begins with the sign for a blank; a mark and a word after a mark do not, so that text comes
    # back from its tokens as it was.
    pieces = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement=_WORD_START, prepend_scheme="always"),
            pre_tokenizers.Split(Regex(r"[^\w\s" + _WORD_START + "]"), "isolated"),
        ]
    )
    words = sorted({piece for text in sentences() for piece, _ in pieces.pre_tokenize_str(text)})
    ids = {token: index for index, token in enumerate((*specials, *words))}
    backend = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    backend.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    backend.pre_tokenizer = pieces
    backend.decoder = decoders.Metaspace(replacement=_WORD_START, prepend_scheme="always")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="<end_of_utterance>",
        additional_special_tokens=list(specials[4:]),
        model_max_length=512,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
    edge = {"longest_edge": SIZE}
    image_processor = Idefics3ImageProcessor(
        size=edge, max_image_size=edge, do_image_splitting=False, resample=PILImageResampling.BILINEAR
    )
    return Idefics3Processor(
        image_processor, tokenizer, image_seq_len=TOKENS_PER_IMAGE, chat_template=VLM_CHAT_TEMPLATE
    )
