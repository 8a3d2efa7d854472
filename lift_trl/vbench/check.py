"""Preflight of the clips: is everything there that VBench needs, before a GPU is rented? (Weights: vbench_env.py.)"""

import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..store.video_io import VideoInfo, probe_video
from .plan import Plan, locate_videos
from .suite import FLICKERING, SAMPLES_READ


#: Longest file name that common disks take, in bytes.
MAX_NAME_BYTES = 255


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: what kind, which file, and what to do. `fatal` problems make scores wrong or impossible."""

    kind: str
    where: str
    message: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: {self.message}"


@dataclass(frozen=True)
class CheckResult:
    """What the preflight found. `num_found` of `num_planned` clips exist."""

    num_planned: int
    num_found: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing fatal was found."""
        return not any(problem.fatal for problem in self.problems)

    def summary(self, limit: int = 10) -> str:
        """One line of counts, then every weight and package that is missing, and up to `limit` of each other problem."""
        kinds = Counter(problem.kind for problem in self.problems)
        counted = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "no problem"
        lines = [f"{self.num_found} of {self.num_planned} clips found; {counted}"]
        for kind in sorted(kinds):
            mine = [problem for problem in self.problems if problem.kind == kind]
            # Clips are many and alike; of weights and packages each one must be known.
            shown = mine if kind in ("weights", "package") else mine[:limit]
            lines += [f"  {problem}" for problem in shown]
            if len(mine) > len(shown):
                lines.append(f"  and {len(mine) - len(shown)} more of {kind}")
        return "\n".join(lines)


def check_videos(plan: Plan, source: Path | str, *, num_frames: int | None = 49, decode: bool = True) -> CheckResult:
    """
    Compares the clips at `source` with `plan`: names, counts, collisions, and (with `decode`) that each decodes whole,
    has `num_frames` frames and the same size and speed as the others.
    """
    problems = list(check_names(plan))
    root = Path(source)
    if not root.is_dir():
        missing = Problem("missing", str(root), "no such folder; generate the clips of the plan first")
        return CheckResult(len(plan.videos), 0, (*problems, missing))
    located = locate_videos(plan, root)
    problems += [
        Problem("missing", video.file_name, "not generated yet; VBench would only warn and average over the rest")
        for video in plan.videos
        if video.file_name not in located
    ]
    planned = {video.file_name for video in plan.videos}
    if not (root / "metadata.jsonl").is_file():
        problems += [
            Problem(
                "stray", path.name, "not planned; our runners leave it out, VBench by hand may stumble on it", False
            )
            for path in sorted(root.iterdir())
            if path.name not in planned
        ]
    if decode:
        problems += check_clips(located, num_frames)
    return CheckResult(len(plan.videos), len(located), tuple(problems))


def check_names(plan: Plan) -> Iterator[Problem]:
    """What is wrong with the planned names themselves; notes on names that differ in case or Unicode form only."""
    names = [video.file_name for video in plan.videos]
    for name, count in Counter(names).items():
        if count > 1:
            yield Problem("collision", name, f"planned {count} times; plan again with this version")
    folded: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        folded.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(name)
        if len(name.encode()) > MAX_NAME_BYTES:
            yield Problem("name", name[:60], f"longer than {MAX_NAME_BYTES} bytes; no disk takes it")
        if "/" in name:
            yield Problem("name", name, "contains a slash")
    for group in folded.values():
        if len(group) > 1:
            yield Problem(
                "case", group[0], f"differs from {group[1]!r} in case only; needs a case-sensitive disk", False
            )
    short = {v.prompt_en for v in plan.videos} - {v.prompt_en for v in plan.videos if v.index == SAMPLES_READ - 1}
    if short:
        yield Problem(
            "samples", f"{len(short)} prompts", f"fewer than {SAMPLES_READ} samples; not VBench's protocol", False
        )
    flicker = Counter(v.prompt_en for v in plan.videos if FLICKERING in v.dimensions)
    if flicker and min(flicker.values()) < 5 * SAMPLES_READ:
        message = f"fewer than {5 * SAMPLES_READ} samples a prompt; too few may pass the static filter"
        yield Problem("samples", FLICKERING, message, False)


def check_clips(located: dict[str, Path], num_frames: int | None) -> list[Problem]:
    """Decodes every clip (about 0.1 s each)."""
    problems = []
    sizes: dict[str, VideoInfo] = {}
    for name, path in located.items():
        try:
            info = sizes[name] = probe_video(path)
        except (ValueError, FileNotFoundError) as error:
            problems.append(Problem("undecodable", name, str(error)))
            continue
        if info.num_frames < 2:
            problems.append(Problem("frames", name, "one frame; VBench divides by zero"))
        elif num_frames is not None and info.num_frames != num_frames:
            problems.append(Problem("frames", name, f"{info.num_frames} frames, {num_frames} were expected"))
    forms = Counter((info.width, info.height, round(info.fps, 3)) for info in sizes.values())
    if len(forms) > 1:
        usual = forms.most_common(1)[0][0]
        problems += [
            Problem(
                "form",
                name,
                f"{info.width}x{info.height}, {info.fps:g} fps; most: {usual[0]}x{usual[1]}, {usual[2]:g}",
            )
            for name, info in sizes.items()
            if (info.width, info.height, round(info.fps, 3)) != usual
        ]
    return problems
