"""Settings that change memory or time in ways that no count tells, and what is said of them."""

from collections.abc import Iterator, Mapping
from typing import Any


_BITSANDBYTES = (
    "counted at most, as a base in `dtype`: what bitsandbytes spares (half of the linear layers in 8 bits, nearly three "
    "quarters in 4) is not"
)
_SAID = {
    "compile_blocks": "what it saves is not counted, nor what compiling takes: time and memory are those without it",
    "first_block_cache": "what it spares is not counted, as it hangs on the videos: the time is that without it",
    "attention_kernel": "counted as flash attention, whose memory it has; the card's rate of attention is the same for all",
    "tf32": "products of float32 are few, and counted at the rate of 16 bits either way",
    "device_map": "the whole critic is counted on one card; it is spread over those of one process",
    "critic_device_map": "the whole critic is counted on one card; it is spread over those of one process",
    "load_in_8bit": _BITSANDBYTES,
    "load_in_4bit": _BITSANDBYTES,
    "attn_implementation": "counted as sdpa; eager holds a map of all tokens a layer and needs more",
    "eval_cache": "evaluations are not counted; they hold per_device_eval_batch_size clips at once",
    "mismatched_captions": "its further rows are not counted",
    "balanced_labels": "rows that are shown several times an epoch are counted once",
}
_BY_MATH = (
    "math holds a map of all tokens in float32, which is counted; its products take longer than 16 bits, as counted"
)
_SAMPLED_LORA = "a LoRA beside the network that samples is not counted: some percent of its memory and time"


def uncounted(stage: str, settings: Mapping[str, Any]) -> Iterator[str]:
    """A note for each setting of a stage that its plan does not follow in full."""
    for name, said in _SAID.items():
        value = settings.get(name)
        if value in (None, False, 0) or (name, value) == ("attn_implementation", "sdpa"):
            continue
        yield f"{name}: {_BY_MATH if value == 'math' else said}"
    if stage == "generate" and settings.get("adapter"):
        yield f"adapter: {_SAMPLED_LORA}"
