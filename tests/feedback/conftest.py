"""Small real clips and the forms in which ratings of them come."""

import json
from pathlib import Path

import numpy as np
import pytest

from lift_trl.rubric import OFFICIAL_NAMES, QUESTIONS, Dimension, Label
from lift_trl.store.video_io import write_video


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Extracted clips go to a folder of the test."""
    monkeypatch.setattr("lift_trl.feedback.clips.constants.HF_HOME", str(tmp_path / "home"))


def write_clip(path: Path, grey: int = 100) -> Path:
    write_video(path, np.full((4, 16, 16, 3), grey, np.uint8), fps=8)
    return path


def conversation(video: str, caption: str, dimension: Dimension, answer: str) -> dict[str, object]:
    """One row of the authors' LLaVA form."""
    asked = {"from": "human", "value": f"<video>\n {caption} {QUESTIONS[dimension]}"}
    return {"video": video, "conversations": [asked, {"from": "gpt", "value": answer}]}


def write_authors_json(path: Path, videos: list[str]) -> Path:
    """A JSON file with three answers on each of `videos`."""
    answers = ("Good. Fine.", "Bad. Jumps.", "Normal. Blur.")
    rows = [
        conversation(video, f"A waiter\nnods, please, in scene {number}.", dimension, answer)
        for number, video in enumerate(videos)
        for dimension, answer in zip(Dimension, answers)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))
    return path


def critic_row(video: str, answers: dict[Dimension, Label]) -> dict[str, str]:
    """One row of the authors' critic output."""
    named = {name: f"{answers[dimension]}. Why." for name, dimension in OFFICIAL_NAMES.items()}
    return {"video_id": f"id_{video}", "video": video, "caption": "A crane stands.", **named}
