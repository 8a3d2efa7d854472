"""Step 1 of the correction: rules that find rows with plain errors. Each rule has a name and says what it saw.

The rules read English. They err on the side of dropping: what they drop is not lost, a person sees it again in step 3.
Source: arXiv 2412.04814, coarse filter of the annotation pipeline; the rules and their words are this project's own.
"""

import re
from enum import StrEnum
from typing import NamedTuple

from ..records import Annotation
from ..rubric import Label
from ..store.video_io import probe_video


class Rule(StrEnum):
    """Why a row is dropped."""

    UNREADABLE_CLIP = "unreadable_clip"
    CAPTION_TOO_SHORT = "caption_too_short"
    AMBIGUOUS_CAPTION = "ambiguous_caption"
    EMPTY_REASON = "empty_reason"
    OFF_TOPIC_REASON = "off_topic_reason"
    REASON_CONTRADICTS_LABEL = "reason_contradicts_label"


class Drop(NamedTuple):
    """A broken rule and what broke it."""

    rule: Rule
    detail: str


#: Captions of at most this many words are ambiguous if they name nothing in particular.
_SHORT_CAPTION_WORDS = 12
_PLACEHOLDER = re.compile(r"\[[^\]]*\]|\{[^}]*\}|<[^>]*>|\?\?|\b(?:TODO|TBD|N/A|XXX)\b")
_VAGUE = re.compile(
    r"\b(something|someone|somebody|somewhere|anything|anyone|stuff|things?|whatever|etc)\b", re.IGNORECASE
)

# Beginnings of words with which people talk about a video and its faults.
_TOPIC = re.compile(
    r"\b(video|clip|frame|picture|image|scene|caption|prompt|descri|show|appear|display|visible|seen|subject|object|person|"
    r"people|man\b|men\b|wom[ae]n|animal|character|background|foreground|camera|colou?r|style|shape|size|number|quantity|"
    r"count|action|motion|move|moving|smooth|fluid|natural|even|fast|slow|jump|jitter|jerk|flicker|freez|frozen|still|stiff|"
    r"hop|sudden|abrupt|drop|choppy|erratic|direction|speed|physic|gravity|float|real|fake|deform|distort|blur|sharp|clear|"
    r"clean|nois|static|artefact|artifact|detail|quality|texture|light|face|facial|eye|mouth|hand|finger|arm|leg|limb|foot|"
    r"feet|head|hair|body|tail|wing|paw|missing|lack|absen|extra|wrong|incorrect|correct|right|match|mismatch|consist|"
    r"inconsist|differ|instead|should|problem|issue|error|defect|flaw|good|bad|fine|perfect|normal|strange|weird|odd|"
    r"merg|overlap|disappear|vanish|chang|transform|morph|twist|bend|bent|unnatural|outline|line|path|generat)",
    re.IGNORECASE,
)
_NEGATION = (
    r"(?:no|not|never|without|none|nothing|neither|nor|free of|free from|hardly|isn't|aren't|doesn't|don't|didn't)"
)
_FAULT = re.compile(
    rf"(?P<negated>\b{_NEGATION}\b(?:[\s,]+\w+){{0,4}}?[\s,]+)?"
    r"\b(?P<fault>missing|wrong|incorrect|deform\w*|distort\w*|blurr?\w*|flicker\w*|jitter\w*|jerk\w*|unnatural\w*|erratic\w*|"
    r"choppy|broken|garbled|mismatch\w*|inconsisten\w*|glitch\w*|arte?facts?|artifacts?|unrealistic|noisy|"
    r"(?:do|does|did) not (?:match|show|exist|appear|nod|move)|falls? apart|not generated|disappear\w*|two heads)\b",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"\b(?:slight\w*|minor|little|almost|some|somewhat|few|but|however|though|although|except|not|\w+n't|should|instead|"
    r"only|lack\w*|less|too|rather|could|can|partly|yet|cannot)\b",
    re.IGNORECASE,
)
_PRAISE = re.compile(
    r"\b(?:no|without|free of|free from)\s+(?:any\s+)?(?:\w+\s+){0,2}"
    r"(?:problems?|issues?|errors?|defects?|flaws?|mismatch(?:es)?|arte?facts?|artifacts?)\b|"
    r"\b(?:perfect|flawless|excellent|correct|smooth|fluid|natural|realistic|match(?:es)?|consistent)\b",
    re.IGNORECASE,
)


def find_drop(row: Annotation, *, min_caption_words: int, clip_problem: str | None = None) -> Drop | None:
    """
    The first rule that a row breaks, in the order of `Rule`; `None` for a row that passes.

    Args:
        min_caption_words: words that a caption must have.
        clip_problem: what `clip_problem` says of the row's clip.
    """
    if clip_problem is not None:
        return Drop(Rule.UNREADABLE_CLIP, clip_problem)
    return _caption_drop(row.caption, min_caption_words) or _reason_drop(row)


def clip_problem(row: Annotation) -> str | None:
    """Why the clip of a row cannot be decoded (every frame is tried), `None` if it can."""
    try:
        probe_video(row.video)
    except (ValueError, FileNotFoundError) as error:
        return str(error)
    return None


def _caption_drop(caption: str, min_words: int) -> Drop | None:
    words = caption.split()
    if len(words) < min_words:
        return Drop(Rule.CAPTION_TOO_SHORT, f"{len(words)} words, at least {min_words} are needed")
    if found := _PLACEHOLDER.search(caption):
        return Drop(Rule.AMBIGUOUS_CAPTION, f"holds the placeholder {found[0]!r}")
    if len(words) <= _SHORT_CAPTION_WORDS and (found := _VAGUE.search(caption)):
        return Drop(Rule.AMBIGUOUS_CAPTION, f"names nothing in particular: {found[0]!r}")
    return None


def _reason_drop(row: Annotation) -> Drop | None:
    words = re.findall(r"[^\W\d_]+", row.reason.lower())
    if not words:
        return Drop(Rule.EMPTY_REASON, f"no word in {row.reason!r}")
    # The word lists are English; a reason in another script is left to the critic and to people.
    if row.reason.isascii() and not _TOPIC.search(row.reason) and not _shares_word(words, row.caption):
        return Drop(Rule.OFF_TOPIC_REASON, "no word of the caption and none on videos")
    return _contradiction(row.label, row.reason)


def _shares_word(words: list[str], caption: str) -> bool:
    """Whether a word of four letters or more stands in the caption, endings aside."""
    stems = {word[:5] for word in re.findall(r"[^\W\d_]{4,}", caption.lower())}
    return any(word[:5] in stems for word in words if len(word) >= 4)


def _contradiction(label: Label, reason: str) -> Drop | None:
    """A best label whose reason names a fault, or a lower one whose reason is nothing but praise."""
    faults = [match["fault"] for match in _FAULT.finditer(reason) if match["negated"] is None]
    if label is Label.GOOD:
        if faults and not _HEDGE.search(reason.replace(faults[0], "")):
            return Drop(Rule.REASON_CONTRADICTS_LABEL, f"{label}, but the reason names a fault: {faults[0]!r}")
        return None
    praise = _PRAISE.search(reason)
    if praise and not faults and not _HEDGE.search(reason):
        return Drop(Rule.REASON_CONTRADICTS_LABEL, f"{label}, but the reason only praises: {praise[0]!r}")
    return None
