"""Which clips a report shows: by a rule that is said beside them, and that includes the worst."""

from collections.abc import Iterator, Mapping, Sequence

from ..statistics.drift import DIVERSITY, MEASURES, ClipStatistics
from ..store.system_clips import SystemClip
from .data import ClipRow
from .judges import Judged
from .systems import describe_clip


Systems = Mapping[str, Sequence[SystemClip]]
#: System -> clip key -> pixel statistics.
Statistics = Mapping[str, Mapping[str, ClipStatistics]]


def verdict_clips(systems: Systems, judged: Judged, judge: str) -> dict[str, tuple[ClipRow, ...]]:
    """Beside each system's verdict: the pair with the median difference to the base by `judge`, and the worst loss."""
    base, *others = systems
    found = {}
    for system in others:
        order = sorted(_gains(judged, base, system).items(), key=lambda item: (item[1], item[0]))
        if not order:
            continue
        both = {name: systems[name] for name in (base, system)}
        chosen = {"median gain": order[len(order) // 2]}
        if order[0] != chosen["median gain"]:
            chosen["worst loss" if order[0][1] < 0 else "smallest gain"] = order[0]
        rows = (_row(both, key, f"{words} {gain:+.2f} by {judge}") for words, (key, gain) in chosen.items())
        found[system] = tuple(row for row in rows if row is not None)
    return found


def shown_clips(
    systems: Systems, judged: Judged, judge: str, statistics: Statistics, *, limit: int
) -> tuple[ClipRow, ...]:
    """
    At most `limit` prompts, all systems in a row: the worst loss of all systems by `judge`, the largest drift, the largest
    gain, then prompts spread evenly over the list. Only clips that every system has.
    """
    base, *_ = systems
    by_key = [{clip.key for clip in clips} for clips in systems.values()]
    shared = [clip.key for clip in systems[base] if all(clip.key in keys for keys in by_key)]
    chosen: dict[str, str] = {}
    for key, why in _telling(systems, judged, judge, statistics, set(shared)):
        if len(chosen) < limit:
            chosen.setdefault(key, why)
    prompts: dict[str, str] = {}
    for key in shared:
        prompts.setdefault(_prompt(systems[base], key), key)
    firsts = [key for key in prompts.values() if key not in chosen]
    wanted = max(0, limit - len(chosen))
    for number in range(min(wanted, len(firsts))):
        chosen[firsts[number * len(firsts) // wanted if len(firsts) > wanted else number]] = "spread over the prompts"
    rows = (_row(systems, key, why) for key, why in chosen.items())
    return tuple(row for row in rows if row is not None)


def _telling(
    systems: Systems, judged: Judged, judge: str, statistics: Statistics, shared: set[str]
) -> Iterator[tuple[str, str]]:
    base, *others = systems
    gains = [
        (gain, key, system) for system in others for key, gain in _gains(judged, base, system).items() if key in shared
    ]
    if gains:
        gain, key, system = min(gains)
        yield key, f"worst loss by {judge}: {system}, {gain:+.2f}" if gain < 0 else f"no loss; {system}, {gain:+.2f}"
    drifts = [drift for system in others for drift in _drifts(statistics, base, system, shared)]
    if drifts:
        _, key, words = max(drifts)
        yield key, f"largest drift: {words}"
    if gains:
        gain, key, system = max(gains)
        yield key, f"largest gain by {judge}: {system}, {gain:+.2f}"


def _gains(judged: Judged, base: str, system: str) -> dict[str, float]:
    """Clip key -> what `system` gains over the base in reward."""
    ours, theirs = judged.get(system, {}), judged.get(base, {})
    return {
        key: ours[key].measures["reward"] - theirs[key].measures["reward"]
        for key in ours
        if key in theirs and "reward" in ours[key].measures and "reward" in theirs[key].measures
    }


def _drifts(statistics: Statistics, base: str, system: str, shared: set[str]) -> Iterator[tuple[float, str, str]]:
    """How far each clip's statistics went towards their limits (1 is there), its key, and that in words."""
    for key in shared & statistics.get(system, {}).keys() & statistics.get(base, {}).keys():
        for name, measure in MEASURES.items():
            before = 0.0 if name == DIVERSITY else float(getattr(statistics[base][key], name))
            if before:
                change = float(getattr(statistics[system][key], name)) / before - 1
                yield measure.share_of_limit(change), key, f"{measure.title} of {system}, {change:+.0%}"


def _prompt(clips: Sequence[SystemClip], key: str) -> str:
    return next(clip.prompt for clip in clips if clip.key == key)


def _row(systems: Systems, key: str, why: str) -> ClipRow | None:
    """The clips with this key; nothing where one of the systems has none."""
    clips = {name: clip for name, mine in systems.items() for clip in mine if clip.key == key}
    if len(clips) < len(systems):
        return None
    return ClipRow(
        next(iter(clips.values())).prompt,
        {name: clip.video for name, clip in clips.items()},
        {name: describe_clip(clip) for name, clip in clips.items()},
        why,
    )
