"""Rows that cannot be used: a reason to stop, or to go on without them and write down which they were."""

import logging
from pathlib import Path
from typing import Literal

from ..records import content_id
from ..store.manifest import write_text
from ..store.rated_videos import BadRowsError
from .clips import default_cache_dir
from .sources import HraData


logger = logging.getLogger(__name__)

BadRows = Literal["raise", "drop"]


def check_bad_rows(data: HraData, bad_rows: BadRows, name: Path | str) -> None:
    """
    Stops at bad rows, or says how many are left out and writes all of them, with the reasons, to a file that it names.

    Args:
        bad_rows: `"raise"` or `"drop"`.
        name: what the data is called in messages.

    Raises:
        BadRowsError: naming the bad rows, if they are not to be dropped or no clip is left without them.
        ValueError: if `bad_rows` has no legal value.
    """
    if bad_rows not in ("raise", "drop"):
        raise ValueError(f"bad_rows={bad_rows!r}; use 'raise' or 'drop'.")
    if not data.errors:
        return
    if bad_rows == "raise" or not any(data.splits.values()):
        raise BadRowsError(data.errors)
    lines = [str(error) for error in data.errors]
    path = default_cache_dir() / "bad_rows" / f"{content_id(*lines)}.txt"
    write_text(path, "".join(f"{line}\n" for line in lines))
    kept = sum(len(clip.annotations) or 1 for clips in data.splits.values() for clip in clips)
    logger.warning("%s: %d bad rows are left out, %d ratings are kept. The list: %s", name, len(lines), kept, path)
