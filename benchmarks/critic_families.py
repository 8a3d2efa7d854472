"""Which chat VLMs of the installed transformers can be critics: the table of docs/add_a_critic.md.

    OMP_NUM_THREADS=1 nice -n 10 python benchmarks/critic_families.py

Every class of `AutoModelForImageTextToText` is asked what `lift_trl.critic.gate` asks, on a tiny random model: what its
configuration rules out, then a prefix of text with three questions behind it, scored at once and in forwards of their own.
Pictures are not run here: that positions have several axes, or that pictures come by cross-attention, is read from the
class, and the check at load finds it on the real checkpoint. Some ten CPU minutes; each family has a process of its own.
"""

import inspect
import multiprocessing
import queue
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForImageTextToText,
    PretrainedConfig,
)
from transformers.cache_utils import DynamicCache
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from lift_trl.critic.gate import TOLERANCE, check_config
from lift_trl.critic.tree import additive, branch_logprobs, grow, lay_out, predicting_nodes, rows_at
from lift_trl.critic_models import CRITIC_MODELS


VOCABULARY = 400
#: Size of a tiny model by what a configuration calls it; what is not listed keeps its default.
SIZES = {
    "hidden_size": 64,
    "embed_dim": 64,
    "d_model": 64,
    "out_hidden_size": 64,
    "projection_dim": 64,
    "text_hidden_size": 64,
    "intermediate_size": 64,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "ffn_dim": 64,
    "num_hidden_layers": 2,
    "num_layers": 2,
    "depth": 2,
    "num_attention_heads": 4,
    "num_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_local_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 512,
}
#: How the sizes of a family's parts may depend on each other so that a tiny one cannot be made.
FAILURES = (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError, AssertionError, ImportError)


NOT_TRIED, UNKNOWN = "not tried", "no tiny model could be made of its default configuration"


class Outcome(NamedTuple):
    """A row of the table."""

    family: str
    result: str
    why: str


def shrink(config: Any) -> None:
    """Gives a configuration and its parts tiny sizes."""
    values = vars(config)
    layers = values.get("num_hidden_layers")
    for name, size in SIZES.items():
        if isinstance(values.get(name), int) and not isinstance(values.get(name), bool):
            setattr(config, name, min(size, values[name]))
    for name, value in list(vars(config).items()):
        if name == "rope_parameters" and value and "mrope_section" in value:
            setattr(config, name, {**value, "mrope_section": [4, 2, 2]})
        elif isinstance(value, PretrainedConfig):
            shrink(value)
        elif isinstance(value, list) and layers and len(value) == layers:
            setattr(config, name, value[:2])
        elif name.endswith("token_id") and isinstance(value, int) and value >= VOCABULARY:
            setattr(config, name, VOCABULARY - 1)
        elif name.endswith("token_id") and isinstance(value, list):
            setattr(config, name, [VOCABULARY - 1])


@torch.inference_mode()
def difference(model: Any) -> float:
    """Largest difference in nats between labels behind a shared prefix of text and in forwards of their own."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, VOCABULARY - 20, (47,), generator=generator)
    prefix, *rest = (part.tolist() for part in tokens.split((20, 7, 5, 9, 1, 3, 2)))
    questions, labels = rest[:3], rest[3:]
    ids, mask = torch.tensor([prefix]), torch.ones(1, len(prefix), dtype=torch.bool)
    cache: DynamicCache = model(input_ids=ids, attention_mask=mask.long(), use_cache=True, logits_to_keep=1).cache
    trees = [grow(questions, labels)]
    layout, places = lay_out(trees, mask), predicting_nodes(trees)
    output = model(
        input_ids=layout.input_ids,
        attention_mask=additive(layout.visible, model.dtype),
        position_ids=layout.depths + len(prefix),
        cache=cache,
        use_cache=True,
        logits_to_keep=torch.tensor(places),
    )
    shared = branch_logprobs(trees, places, rows_at(places, output.logits, num_nodes=layout.input_ids.shape[1]))[0]
    for q, question in enumerate(questions):
        for n, label in enumerate(labels):
            row = torch.tensor([[*prefix, *question, *label]])
            logits = model(input_ids=row, use_cache=False).logits[0, -len(label) - 1 : -1]
            alone = logits.float().log_softmax(-1).gather(-1, torch.tensor(label)[:, None]).sum()
            shared[q, n] -= alone
    return float(shared.abs().max())


def judge(family: str) -> Outcome:
    """What becomes of a family."""
    config = AutoConfig.for_model(family)
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return Outcome(family, "refused", "its configuration names no model of pictures and text")
    model_class = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
    try:
        check_config(config)
    except ValueError as error:
        return Outcome(family, "refused", str(error).split(" has ", 1)[-1].split(". ")[0].split(", which")[0])
    except AttributeError:
        return Outcome(family, "refused", "its configuration has no layers of a language model")
    arguments = inspect.signature(model_class.forward).parameters
    if {"cross_attention_mask", "image_attention_mask"} & set(arguments):
        return Outcome(family, "refused", "pictures reach the text by cross-attention")
    torch.manual_seed(0)
    shrink(config)
    model = AutoModelForImageTextToText.from_config(config, attn_implementation="eager").float().eval()
    for weight in model.parameters():
        if weight.dim() > 1:  # tiny models of the usual range answer alike, and a fault would not show
            torch.nn.init.normal_(weight, std=0.1)
    if any("get_rope_index" in dir(module) for module in model.modules()) and family not in CRITIC_MODELS:
        return Outcome(family, "needs an adapter", "positions have several axes: `position_shift`, as in `qwen_vl.py`")
    found = difference(model)
    if not found <= TOLERANCE:
        return Outcome(family, "refused", f"{found:.2g} nats from forwards of its own")
    return Outcome(family, "works", "with its adapter" if family in CRITIC_MODELS else "")


def work(family: str, results: Any) -> None:
    """`judge` in a process of its own; what cannot be built is not judged."""
    try:
        results.put(judge(family))
    except FAILURES as error:
        print(f"{family}: {type(error).__name__}: {' '.join(str(error).split())[:200]}", file=sys.stderr)
        results.put(Outcome(family, NOT_TRIED, UNKNOWN))


def judged(timeout_s: float = 90.0) -> Iterator[Outcome]:
    """Every family, one after the other."""
    fork = multiprocessing.get_context("fork")
    for family in sorted(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES):
        results = fork.Queue()
        process = fork.Process(target=work, args=(family, results))
        process.start()
        try:
            yield results.get(timeout=timeout_s)
        except queue.Empty:
            yield Outcome(family, NOT_TRIED, UNKNOWN)
        process.kill()
        process.join()


def table(outcomes: Iterable[Outcome]) -> str:
    """The families by what becomes of them."""
    groups: dict[tuple[str, str], list[str]] = {}
    for family, result, why in outcomes:
        groups.setdefault((result, why), []).append(f"`{family}`")
    order = ["works", "needs an adapter", "refused", NOT_TRIED]
    rows = [
        f"| {result} | {why} | {', '.join(families)} |"
        for (result, why), families in sorted(
            groups.items(), key=lambda group: (order.index(group[0][0]), group[0][1])
        )
    ]
    return "\n".join(["| | why | `model_type` |", "|---|---|---|", *rows])


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(table(judged()))
