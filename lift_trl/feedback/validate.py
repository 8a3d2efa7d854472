"""What a dataset is good for: alignment, which needs a reward or a label a dimension, and LiFT-HRA, which needs ratings."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from ..records import RatedVideo, StoredVideo, VideoSource
from ..remote import local_copy
from ..rubric import Rubric
from ..store.rated_videos import METADATA_NAMES, RowError, check_rated_videos
from ..store.video_io import probe_video
from .sources import HraClip, HraSource, MissingVideos, read_hra


T = TypeVar("T", RatedVideo, HraClip)
Video = VideoSource | StoredVideo


class Use(NamedTuple, Generic[T]):
    """The clips that serve one use, and every row that does not."""

    clips: list[T]
    errors: list[RowError]

    @property
    def holds_ratings(self) -> bool:
        """Whether a clip has what this use needs; real clips without ratings serve any."""
        return any(clip.annotations if isinstance(clip, HraClip) else not clip.is_real for clip in self.clips)

    @property
    def is_accepted(self) -> bool:
        """Whether the loader takes the dataset: all of it, or what is left without clips that are not rated in full."""
        return not self.errors or bool(self.clips) and all(error.is_unscored for error in self.errors)


class Validation(NamedTuple):
    """
    What a dataset is good for.

    Attributes:
        alignment: what `load_rated_videos` takes; `None` for forms of LiFT-HRA without a metadata file.
        hra: what `load_hra` takes.
    """

    alignment: Use[RatedVideo] | None
    hra: Use[HraClip]

    @property
    def is_usable(self) -> bool:
        """Whether one of the two takes the dataset."""
        return self.hra.is_accepted or self.alignment is not None and self.alignment.is_accepted

    def problems(self) -> Iterator[str]:
        """
        Every row that both refuse, with the reason. What one of them refuses and the other takes is no fault of a row: each
        such reason is told once.
        """
        if self.alignment is None:
            yield from map(str, self.hra.errors)
            return
        alignment, hra = ({error.where for error in errors} for errors in (self.alignment.errors, self.hra.errors))
        yield from (str(error) for error in self.alignment.errors if error.where in hra)
        yield from _refused("not for alignment", self.alignment, except_in=hra)
        yield from _refused("not as LiFT-HRA", self.hra, except_in=alignment)


def _refused(words: str, use: Use[T], *, except_in: set[str]) -> Iterator[str]:
    """The rows that one use refuses and the other takes: one line for each problem, or one if the dataset is not for it."""
    rows = [error for error in use.errors if error.where not in except_in]
    for alike in _grouped(rows) if use.holds_ratings else [rows]:
        if alike:
            more = f" (as {len(alike) - 1} other rows)" if alike[1:] else ""
            yield f"{alike[0].where}: {words}: {alike[0].problem}{more}"


def _grouped(errors: list[RowError]) -> Iterable[list[RowError]]:
    """The errors of each problem."""
    groups: dict[str, list[RowError]] = {}
    for error in errors:
        groups.setdefault(error.problem, []).append(error)
    return groups.values()


def validate(
    path: Path | str,
    *,
    video_dir: Path | str | None = None,
    missing_videos: MissingVideos = "raise",
    rubric: Rubric | Path | str | None = None,
    decode: bool = True,
) -> Validation:
    """
    Checks every row of a dataset in one of the forms of `load_hra`, and of a folder with a metadata file for alignment too.

    Args:
        video_dir, missing_videos, rubric: as in `load_hra`. Alignment takes the clips that the metadata names only.
        decode: also decode every clip, which finds truncated files (about 0.1 s a clip).
    """
    data = read_hra(HraSource(path, video_dir=video_dir, rubric=rubric), missing_videos=missing_videos)
    hra = [(clip.where, clip) for part in data.splits.values() for clip in part]
    folder = Path(local_copy(path))
    has_table = any((folder / name).is_file() for name in METADATA_NAMES)
    rated = check_rated_videos(path, rubric=data.rubric) if has_table else None
    aligned = list(zip(rated.places, rated.videos)) if rated else []
    videos = [clip.video for _, clip in hra] + [clip.video for _, clip in aligned]
    broken = _broken(videos) if decode else {}
    return Validation(
        None if rated is None else _use(aligned, rated.errors, broken),
        _use(hra, data.errors, broken),
    )


def _broken(videos: Iterable[Video]) -> dict[Video, str]:
    """Why a clip cannot be decoded, for those that are there and cannot."""
    broken = {}
    for video in dict.fromkeys(map(_key, videos)):
        try:
            if not isinstance(video, Path) or video.is_file():
                probe_video(video)
        except ValueError as error:
            broken[video] = str(error)
    return broken


def _key(video: Video) -> Video:
    """The same for the same file, however it is named."""
    return video.resolve() if isinstance(video, Path) else video


def _use(placed: list[tuple[str, T]], errors: list[RowError], broken: dict[Video, str]) -> Use[T]:
    """The clips without those that cannot be decoded."""
    found = [RowError(where, broken[_key(clip.video)]) for where, clip in placed if _key(clip.video) in broken]
    return Use([clip for _, clip in placed if _key(clip.video) not in broken], errors + found)
