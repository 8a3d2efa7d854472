"""What a training tool needs to ask `lift-trl serve`: frames to mp4, and one call. Standard library and PyAV only."""

import base64
import http.client
import json
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..store.video_io import write_video


def encode_clip(frames: np.ndarray, *, fps: float) -> bytes:
    """
    An mp4 file of `frames`: [F, H, W, 3], uint8 or floats in [0, 1]. Odd sides lose their last row or column.

    Raises:
        ValueError: for another shape or range, or if a value is not finite.
    """
    array = np.asarray(frames)
    if array.ndim != 4 or array.shape[-1] != 3:
        raise ValueError(f"frames of shape {array.shape}; give [frames, height, width, 3].")
    if array.dtype != np.uint8:
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ValueError("frames of floats must be finite and in [0, 1].")
        array = (array * 255).round().astype(np.uint8)
    height, width = array.shape[1] // 2 * 2, array.shape[2] // 2 * 2
    with tempfile.TemporaryDirectory(prefix="lift_trl_clip_") as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, np.ascontiguousarray(array[:, :height, :width]), fps=fps)
        return path.read_bytes()


def score_clips(
    url: str,
    prompts: Sequence[str],
    clips: Sequence[bytes | str],
    *,
    token: str | None = None,
    with_reason: bool = False,
    timeout_s: float = 600.0,
) -> list[dict[str, Any]]:
    """
    One row for each clip, as in `scored/`: `reward` in [0, 1] or `None`, and then the why in `unscored`; labels, `probs`,
    `reasons` or `aspects` beside it.

    Args:
        url: the server's address, such as `"http://127.0.0.1:8000"`.
        clips: bytes of mp4 files, or URLs that the server was allowed to fetch.

    Raises:
        ValueError: if the server refuses the request, with its reason.
        ConnectionError: if it cannot be reached, stops before it has answered, or fails.
    """
    if len(prompts) != len(clips):
        raise ValueError(f"{len(prompts)} prompts and {len(clips)} clips; give one prompt for each clip.")
    body = [
        {"prompt": prompt, **({"url": clip} if isinstance(clip, str) else {"video": base64.b64encode(clip).decode()})}
        for prompt, clip in zip(prompts, clips)
    ]
    request = urllib.request.Request(
        f"{url.rstrip('/')}/v1/score",
        json.dumps({"clips": body, "with_reason": with_reason}).encode(),
        {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            rows: list[dict[str, Any]] = json.load(answer)["scores"]
    except urllib.error.HTTPError as error:
        kind = ValueError if error.code < 500 else ConnectionError
        raise kind(f"{url}: status {error.code}: {error.read(2000).decode(errors='replace')}") from error
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        # An answer that breaks off, is no JSON, or another service's.
        raise ConnectionError(f"{url}: no whole answer ({error}). Is the server running?") from error
    return rows


def rewards(rows: Sequence[dict[str, Any]]) -> list[float]:
    """
    The rewards of `rows`.

    Raises:
        ValueError: if a clip is unscored: a reinforcement learner must not take it for a bad one.
    """
    unscored = [f"clip {index}: {row['unscored']}" for index, row in enumerate(rows) if row["reward"] is None]
    if unscored:
        raise ValueError(f"{len(unscored)} of {len(rows)} clips are unscored: {'; '.join(unscored[:3])}")
    return [float(row["reward"]) for row in rows]
