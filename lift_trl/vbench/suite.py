"""VBench's dimensions and prompts: what is measured, by which files, normalised how, on which prompts.

Source: VBench (CVPR 2024) at commit 45e79ec: scripts/constant.py, vbench/utils.py, vbench/VBench_full_info.json.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from ..store.manifest import read_json


Protocol = Literal["vbench", "vbench-long", "vbench-custom"]
PROTOCOLS: tuple[Protocol, ...] = ("vbench", "vbench-long", "vbench-custom")
PromptSet = Literal["original", "lift_opt", "vbench_longer"]
FULL_INFO = "VBench_full_info.json"
FLICKERING = "temporal_flickering"
#: Standard mode reads the samples 0 to 4 of a prompt and no others.
SAMPLES_READ = 5
#: Samples a prompt of temporal flickering, of which VBench keeps the first five static ones.
FLICKER_SAMPLES = 25


class WeightFile(NamedTuple):
    """A file that a dimension reads: path below VBENCH_CACHE_DIR, where it comes from, the start of its sha256 if known."""

    path: str
    url: str
    sha256: str = ""


@dataclass(frozen=True)
class VBenchDimension:
    """
    One of the 16 dimensions.

    Attributes:
        num_prompts: distinct prompts of the suite that it is measured on.
        minimum, maximum: raw values that are normalised to 0 and 1.
        weight: in the quality or semantic score.
        video_scale: what a per-video value is multiplied by to be in [0, 1] (imaging_quality's are 0 to 100).
        custom_input: whether VBench officially supports it on videos of other prompts.
        auxiliary: whether it reads `auxiliary_info`, so that custom input is impossible.
        modules: what must be importable beyond VBench's declared requirements.
        hub_models: what it loads from the Hub (or its cache) by transformers.
    """

    name: str
    group: Literal["quality", "semantic"]
    num_prompts: int
    minimum: float = 0.0
    maximum: float = 1.0
    weight: float = 1.0
    video_scale: float = 1.0
    custom_input: bool = False
    auxiliary: bool = False
    weights: tuple[WeightFile, ...] = ()
    modules: tuple[str, ...] = ()
    hub_models: tuple[str, ...] = ()

    def normalise(self, raw: float) -> float:
        """`raw` on the scale where the official minimum is 0 and the maximum 1. Not clipped, as in VBench."""
        return (raw - self.minimum) / (self.maximum - self.minimum)


_OPENAI = "https://openaipublic.azureedge.net/clip/models"
_USED_MODELS = "https://huggingface.co/OpenGVLab/VBench_Used_Models/resolve/main"
_B32 = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
_L14 = "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"
_CLIP_B32 = WeightFile("clip_model/ViT-B-32.pt", f"{_OPENAI}/{_B32}/ViT-B-32.pt", _B32)
_CLIP_L14 = WeightFile("clip_model/ViT-L-14.pt", f"{_OPENAI}/{_L14}/ViT-L-14.pt", _L14)
_RAFT = WeightFile(
    "raft_model/models/raft-things.pth", "https://dl.dropboxusercontent.com/s/4j4z58wuv8o0mfz/models.zip"
)
_GRIT = WeightFile("grit_model/grit_b_densecap_objectdet.pth", f"{_USED_MODELS}/grit_b_densecap_objectdet.pth")
_VICLIP = (
    WeightFile("ViCLIP/ViClip-InternVid-10M-FLT.pth", f"{_USED_MODELS}/ViClip-InternVid-10M-FLT.pth"),
    WeightFile(
        "ViCLIP/bpe_simple_vocab_16e6.txt.gz",
        "https://raw.githubusercontent.com/openai/CLIP/main/clip/bpe_simple_vocab_16e6.txt.gz",
    ),
)
_DINO = (
    WeightFile("dino_model/facebookresearch_dino_main/hubconf.py", "git+https://github.com/facebookresearch/dino"),
    WeightFile(
        "dino_model/dino_vitbase16_pretrain.pth",
        "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
    ),
)
_AMT = WeightFile("amt_model/amt-s.pth", "https://huggingface.co/lalala125/AMT/resolve/main/amt-s.pth")
_AESTHETIC = WeightFile(
    "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth",
    "https://raw.githubusercontent.com/LAION-AI/aesthetic-predictor/main/sa_0_4_vit_l_14_linear.pth",
)
_MUSIQ = WeightFile(
    "pyiqa_model/musiq_spaq_ckpt-358bb6af.pth",
    "https://github.com/chaofengc/IQA-PyTorch/releases/download/v0.1-weights/musiq_spaq_ckpt-358bb6af.pth",
    "358bb6af",
)
_UMT = WeightFile(
    "umt_model/l16_ptk710_ftk710_ftk400_f16_res224.pth", f"{_USED_MODELS}/l16_ptk710_ftk710_ftk400_f16_res224.pth"
)
_TAG2TEXT = WeightFile(
    "caption_model/tag2text_swin_14m.pth",
    "https://huggingface.co/spaces/xinyu1205/recognize-anything/resolve/main/tag2text_swin_14m.pth",
)
_DETECTRON: dict[str, Any] = {
    "auxiliary": True,
    "weights": (_GRIT,),
    "modules": ("detectron2",),
    "hub_models": ("bert-base-uncased",),
}

#: Source: scripts/constant.py (minima, maxima, weights, order), vbench/utils.py (files), vbench/VBench_full_info.json.
DIMENSIONS: Mapping[str, VBenchDimension] = MappingProxyType(
    {
        d.name: d
        for d in (
            VBenchDimension("subject_consistency", "quality", 72, 0.1462, custom_input=True, weights=_DINO),
            VBenchDimension("background_consistency", "quality", 86, 0.2615, custom_input=True, weights=(_CLIP_B32,)),
            VBenchDimension(FLICKERING, "quality", 75, 0.6293),
            VBenchDimension("motion_smoothness", "quality", 72, 0.706, 0.9975, custom_input=True, weights=(_AMT,)),
            VBenchDimension("dynamic_degree", "quality", 72, weight=0.5, custom_input=True, weights=(_RAFT,)),
            VBenchDimension("aesthetic_quality", "quality", 93, custom_input=True, weights=(_CLIP_L14, _AESTHETIC)),
            VBenchDimension("imaging_quality", "quality", 93, video_scale=0.01, custom_input=True, weights=(_MUSIQ,)),
            VBenchDimension("object_class", "semantic", 79, **_DETECTRON),
            VBenchDimension("multiple_objects", "semantic", 82, **_DETECTRON),
            VBenchDimension("human_action", "semantic", 100, weights=(_UMT,)),
            VBenchDimension("color", "semantic", 85, **_DETECTRON),
            VBenchDimension("spatial_relationship", "semantic", 84, **_DETECTRON),
            VBenchDimension(
                "scene",
                "semantic",
                86,
                0.0,
                0.8222,
                auxiliary=True,
                weights=(_TAG2TEXT,),
                hub_models=("bert-base-uncased",),
            ),
            VBenchDimension("appearance_style", "semantic", 90, 0.0009, 0.2855, auxiliary=True, weights=(_CLIP_B32,)),
            VBenchDimension("temporal_style", "semantic", 100, 0.0, 0.364, weights=_VICLIP),
            VBenchDimension("overall_consistency", "semantic", 93, 0.0, 0.364, weights=_VICLIP),
        )
    }
)
#: RAFT, which decides whether a clip is static before its flickering is measured.
STATIC_FILTER_WEIGHTS = (_RAFT,)

SUBSETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "all": tuple(DIMENSIONS),
        "no-detectron": tuple(name for name, d in DIMENSIONS.items() if not d.modules),
        "quality": tuple(name for name, d in DIMENSIONS.items() if d.group == "quality"),
        "semantic": tuple(name for name, d in DIMENSIONS.items() if d.group == "semantic"),
        "custom6": tuple(name for name, d in DIMENSIONS.items() if d.custom_input),
    }
)


def select_dimensions(names: str | Sequence[str]) -> tuple[str, ...]:
    """
    The dimensions of a subset (`all`, `no-detectron`, `quality`, `semantic`, `custom6`) or of a list, in official order.

    >>> select_dimensions(["color", "scene"])
    ('color', 'scene')

    Raises:
        ValueError: naming what is unknown.
    """
    asked = [names] if isinstance(names, str) else list(names)
    chosen = {name for entry in asked for name in SUBSETS.get(entry, (entry,))}
    unknown = sorted(chosen - set(DIMENSIONS))
    if unknown or not chosen:
        raise ValueError(f"dims={unknown or asked}; use {', '.join(SUBSETS)} or any of {', '.join(DIMENSIONS)}.")
    return tuple(name for name in DIMENSIONS if name in chosen)


@dataclass(frozen=True)
class SuitePrompt:
    """
    One distinct `prompt_en` of the suite.

    Attributes:
        prompt_en: VBench's own prompt: names the files and is what scoring compares with.
        text: what the model is given.
        dimensions: all dimensions of all rows with this `prompt_en`, in official order.
        rows: VBench's rows, unchanged but for `prompt_opt`, for the file that VBench reads.
    """

    prompt_en: str
    text: str
    dimensions: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Suite:
    """The prompts of VBench in their order; `sha256` of the file they came from, and the notes on what was decided."""

    prompts: tuple[SuitePrompt, ...]
    prompt_set: PromptSet
    sha256: str
    notes: tuple[str, ...]


def find_suite(path: Path | str) -> Path:
    """
    The suite's file: `path` itself, or the one of the VBench checkout, installed package or environment at `path`.

    Raises:
        FileNotFoundError: if there is none.
    """
    root = Path(path)
    if root.is_file():
        return root
    patterns = (FULL_INFO, f"vbench/{FULL_INFO}", f"lib/python*/site-packages/vbench/{FULL_INFO}")
    for pattern in patterns:
        found = sorted(root.glob(pattern))
        if found:
            return found[0]
    raise FileNotFoundError(
        f"{root}: no {FULL_INFO}. Give that file (or LiFT's Vbench_full_info_opt.json), a VBench checkout, or the "
        "environment that vbench is installed in."
    )


def load_suite(
    path: Path | str, *, prompt_set: PromptSet = "original", longer_prompts: Path | str | None = None
) -> Suite:
    """
    The suite at `path` (see `find_suite`), with the texts that the model is to be given.

    Rows with the same `prompt_en` become one prompt with the dimensions of all of them; the text of the first row wins,
    since both would write to the same file. Prompts that differ in case only are noted.

    Args:
        prompt_set: `original` (`prompt_en`), `lift_opt` (the column `prompt_opt` of LiFT's file) or `vbench_longer`
            (VBench's GPT-enhanced prompts, one a line in the file `longer_prompts`).

    Raises:
        ValueError: if the file is of another form or lacks the texts asked for.
    """
    file = find_suite(path)
    data = file.read_bytes()
    rows = read_json(file)
    if not isinstance(rows, list) or not all(
        isinstance(r, dict) and {"prompt_en", "dimension"} <= set(r) for r in rows
    ):
        raise ValueError(f"{file}: not in the form of {FULL_INFO}: a list of rows with prompt_en and dimension.")
    texts = _texts(file, rows, prompt_set, longer_prompts)
    grouped: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        grouped.setdefault(row["prompt_en"], []).append(number)
    prompts = tuple(
        SuitePrompt(
            prompt_en,
            texts[numbers[0]],
            select_dimensions([name for n in numbers for name in rows[n]["dimension"]]),
            tuple({k: v for k, v in rows[n].items() if k != "prompt_opt"} for n in numbers),
        )
        for prompt_en, numbers in grouped.items()
    )
    return Suite(prompts, prompt_set, hashlib.sha256(data).hexdigest(), _notes(grouped, texts))


def _texts(
    file: Path, rows: list[dict[str, Any]], prompt_set: PromptSet, longer_prompts: Path | str | None
) -> list[str]:
    if prompt_set == "original":
        return [row["prompt_en"] for row in rows]
    if prompt_set == "lift_opt":
        if not all(row.get("prompt_opt") for row in rows):
            raise ValueError(f"{file}: no prompt_opt in some rows; lift_opt needs LiFT's Vbench_full_info_opt.json.")
        return [row["prompt_opt"].strip() for row in rows]
    if prompt_set != "vbench_longer":
        raise ValueError(f"prompts={prompt_set!r}; use original, lift_opt or vbench_longer.")
    if longer_prompts is None:
        raise ValueError("prompts=vbench_longer needs longer_prompts, VBench's all_dimension_longer.txt.")
    lines = Path(longer_prompts).read_text(encoding="utf-8").splitlines()
    if len(lines) != len(rows):
        raise ValueError(f"{longer_prompts}: {len(lines)} lines for the {len(rows)} rows of {file}.")
    return [line.strip() for line in lines]


def _notes(grouped: Mapping[str, list[int]], texts: list[str]) -> tuple[str, ...]:
    notes = []
    for prompt_en, numbers in grouped.items():
        if len(numbers) > 1:
            other = " (their texts differ)" if len({texts[n] for n in numbers}) > 1 else ""
            notes.append(
                f"rows {', '.join(map(str, numbers))} share {prompt_en!r}{other}: one prompt, first text wins"
            )
    folded = Counter(prompt_en.casefold() for prompt_en in grouped)
    for key, count in folded.items():
        if count > 1:
            names = sorted(p for p in grouped if p.casefold() == key)
            notes.append(f"{names} differ in case only: their files need a case-sensitive disk")
    return tuple(notes)
