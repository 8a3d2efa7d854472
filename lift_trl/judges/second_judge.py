"""A second judge over the clips of each system, into folders that a report reads: its five scores, and labels by them."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..records import content_id, placeless
from ..rubric import LIFT
from ..store.clip_rows import video_digest
from ..store.manifest import ARTIFACT_FILE, Artifact, Manifest, check_kind
from ..store.system_clips import ListedClip, list_clips
from .native import NativeJudge
from .video_score import QUESTION, RegressionJudge, labels_of


logger = logging.getLogger(__name__)

#: What the report calls the second judge.
JUDGE = "second judge"


def judge_systems(
    judge: RegressionJudge | NativeJudge, systems: Mapping[str, Path], output_dir: Path | str
) -> list[str]:
    """
    `judge` on the clips of each system; returns the entries for the report's `judges`.

    Kill it at any time and call it again: a clip is scored once.

    Raises:
        ValueError: if `output_dir` holds scores of another judge.
    """
    return [
        f"{JUDGE}/{name}={judge_clips(judge, folder, Path(output_dir) / name)}" for name, folder in systems.items()
    ]


def judge_clips(judge: RegressionJudge | NativeJudge, videos: Path, output_dir: Path) -> Path:
    """
    Scores the clips of the folder `videos`; returns `output_dir`, an artefact with one row a clip: `aspects` by name, the
    labels that follow from them (VideoScore only), their reward; or in `unscored` why it has none.

    Raises:
        ValueError: if `output_dir` holds scores of another judge.
    """
    manifest, clips = Manifest(output_dir), {_unit(clip): clip for clip in list_clips(videos)}
    config: dict[str, Any] = {"judge": judge.name}
    name = placeless(judge.name)
    key = content_id(name)
    if isinstance(judge, RegressionJudge):
        key = content_id(name, judge.num_frames, judge.question)
        question = "its own" if judge.question != QUESTION else "worded by lift_trl"
        config |= {"frames": judge.num_frames, "question": question}
    rows = manifest.rows()
    if any(row.get("scoring") != key for row in rows):
        raise ValueError(f"{output_dir}: scores of another judge, question or number of frames; name a new judge_dir.")
    done = {row["id"] for row in rows}
    check_kind(output_dir, "scored")
    (output_dir / ARTIFACT_FILE).unlink(missing_ok=True)
    logger.info("%d clips, %d to judge", len(clips), len(clips.keys() - done))
    for unit, clip in clips.items():
        if unit not in done:
            manifest.append({"id": unit, **_place(clip, output_dir), **_verdict(judge, clip), "scoring": key})
    manifest.merge(clips, now={unit: _place(clip, output_dir) for unit, clip in clips.items()})
    Artifact("scored", config=config, parents={"critic": judge.name}).save(output_dir)
    return output_dir


def _unit(clip: ListedClip) -> str:
    """The row's own id; made of the clip where it has none, as in `store/rated_videos.py`."""
    given = clip.row.get("video_id") or clip.row.get("id")
    # A file that is not there has no digest; its row will say that it is missing.
    return str(
        given or content_id(video_digest(clip.video) if clip.video.is_file() else clip.video, clip.prompt, False)
    )


def _place(clip: ListedClip, folder: Path) -> dict[str, Any]:
    """What a row says of the clip itself, seen from `folder`."""
    seed = clip.row.get("seed")
    place = {"prompt": clip.prompt, "video": os.path.relpath(clip.video, folder)}
    return place if seed is None else {**place, "seed": seed}


def _verdict(judge: RegressionJudge | NativeJudge, clip: ListedClip) -> dict[str, Any]:
    if isinstance(judge, NativeJudge):
        return judge.score([clip.video], [clip.prompt])[0].columns()
    verdict = judge.verdict(clip.video, clip.prompt)
    if verdict.unscored is not None:
        return {"reward": None, "unscored": verdict.unscored}
    labels = {dimension.value: label.value for dimension, label in labels_of(verdict.values).items()}
    return {**labels, "reward": LIFT.mean_reward(labels), "aspects": dict(verdict.values), "unscored": None}
