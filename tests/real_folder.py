"""What a folder of real input holds, read by a few lines of the tests' own: what the code under test must find in it."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np


#: The words of the authors' questions and answers, and our names (semantic, motion, fidelity).
DIMENSIONS = {
    "semantic consistency": "semantic_consistency",
    "motion issues": "motion_smoothness",
    "fidelity issues": "video_fidelity",
}
REWARDS = {"Good": 0.9, "Normal": 0.2, "Bad": 0.05}


class Rated(NamedTuple):
    """One answer on one clip."""

    video: str
    caption: str
    dimension: str
    label: str
    reason: str


class Pair(NamedTuple):
    """A prompt and its two clips."""

    prompt: str
    base: Path
    aligned: Path


def answer_of(text: str) -> tuple[str, str]:
    """Label and reason of a written answer."""
    label, reason = re.fullmatch(r"\s*(\w+)[.,:;]?\s*(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    return label.capitalize(), reason.strip()


def hra_file(folder: Path) -> Path:
    """The one file of conversations in `hra/`."""
    (path,) = (folder / "hra").glob("*.json")
    return path


def conversations(folder: Path) -> list[Rated]:
    """Its answers, in the order of the file."""
    found = []
    for row in json.loads(hra_file(folder).read_text(encoding="utf-8")):
        asked, answered = (turn["value"] for turn in row["conversations"])
        caption, _, question = asked.removeprefix("<video>").rpartition("Please identify the ")
        (dimension,) = {
            DIMENSIONS[words] for words in DIMENSIONS if question.startswith(words.removesuffix(" issues"))
        }
        video = row["video"].removeprefix("videos/").removesuffix(".mp4")
        found.append(Rated(video, caption.strip(), dimension, *answer_of(answered)))
    return found


def critic_files(folder: Path) -> list[Path]:
    """The answers of the authors' critics."""
    return sorted((folder / "critic").glob("critic_output_*.json"))


def demo_clip(folder: Path, name: str) -> Path:
    """The clip that a critic's row names `0.mp4`."""
    return folder / "clips" / f"demo-{name}"


def critic_labels(path: Path) -> dict[str, dict[str, str]]:
    """Name of the clip -> label of each dimension, of one critic's answers."""
    return {
        row["video"]: {ours: answer_of(row[theirs])[0] for theirs, ours in DIMENSIONS.items()}
        for row in json.loads(path.read_text(encoding="utf-8"))
    }


def reward(labels: dict[str, str]) -> float:
    """Equation 2."""
    return sum(REWARDS[label] for label in labels.values()) / len(labels)


def pairs(folder: Path) -> list[Pair]:
    rows = json.loads((folder / "pairs.json").read_text(encoding="utf-8"))
    return [Pair(row["prompt"], folder / row["base"], folder / row["aligned"]) for row in rows]


def frames(path: Path) -> np.ndarray:
    """All frames, uint8 [F, H, W, 3], for clips without a turn or a hole."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def steadiness(clips: Sequence[Path]) -> float:
    """(255 - mean change from frame to frame) / 255 by clip, as VBench's temporal flickering; the mean over clips."""
    values = [np.abs(np.diff(frames(clip).astype(np.float32), axis=0)).mean() for clip in clips]
    return float(np.mean([(255 - value) / 255 for value in values]))


def motion_energy(clips: Sequence[Path]) -> float:
    """Mean change of luma (Rec. 601, 0 to 1) from frame to frame by clip; the mean over clips."""
    lumas = [frames(clip).astype(np.float32) @ np.float32([0.299, 0.587, 0.114]) / 255 for clip in clips]
    return float(np.mean([np.abs(np.diff(luma, axis=0)).mean() for luma in lumas]))
