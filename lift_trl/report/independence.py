"""Whether a judge of a report gave the reward that its systems were trained on, by what both say of themselves."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from ..records import same_weights
from ..store.manifest import ARTIFACT_FILE, Artifact
from ..store.rated_videos import raw_rows


#: Of a judge: it gave no training reward, it gave that of some system, or the one or the other does not say who it is.
Role = Literal["independent", "training", "not known"]
#: Names of critics; `None` where they are not known.
Names = frozenset[str] | None

#: A sentence about the judge that decides, its heading, and the heading of the ratings in the systems' own folders.
AS_CLAUSE: Mapping[Role, str] = {
    "independent": "which gave no training reward",
    "training": "the judge that it was trained on",
    "not known": "of which it is not known whether it gave the training reward",
}
AS_HEAD: Mapping[Role, str] = {
    "independent": "independent",
    "training": "the judge that it was trained on",
    "not known": "perhaps independent",
}
AS_OWN_HEAD: Mapping[Role, str] = {
    "independent": "no training reward",
    "training": "training reward",
    "not known": "perhaps the training reward",
}


def names_in(folders: Iterable[Path]) -> Names:
    """Who rated the clips of `folders`."""
    found: set[str] = set()
    for folder in folders:
        names = {str(row["critic"]) for _, row in raw_rows(folder) if isinstance(row, Mapping) and row.get("critic")}
        if (folder / ARTIFACT_FILE).is_file() and (critic := Artifact.load(folder).parents.get("critic")):
            names.add(critic)
        if not names:
            return None
        found |= names
    return frozenset(found)


def role_of(judge: Names, trained_on: Names) -> Role:
    """
    What a judge by these names (people have none) is to a system that was trained on the rewards of those critics.

    >>> role_of(frozenset({"video_reward@0123456789abcdef"}), frozenset({"/old/vr@0123456789abcdef+linear:1:5"}))
    'training'
    >>> role_of(None, frozenset()), role_of(frozenset({"oracle"}), None)
    ('independent', 'not known')
    """
    if any(same_weights(one, name) for one in trained_on or () for name in judge or ()):
        return "training"
    return "not known" if trained_on is None or (judge is None and trained_on) else "independent"


def worst(roles: Iterable[Role]) -> Role:
    """What can be said of a judge over several systems; `"not known"` of none."""
    return min(roles, key=_WORST.index, default="not known")


_WORST: tuple[Role, ...] = ("training", "not known", "independent")
