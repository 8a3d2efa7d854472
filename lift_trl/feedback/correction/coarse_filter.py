"""Step 1 of the correction: rules that find rows with plain errors. Each rule has a name and says what it saw.

The rules read English, and where one is unsure the row stays: the critics and people of step 2 see it there. What a rule
drops is not lost either, a person sees it again in step 3.
Source: arXiv 2412.04814, coarse filter of the annotation pipeline; the rules and their words are this project's own.
"""

import re
from enum import StrEnum
from typing import NamedTuple

from ...records import Annotation
from ...rubric import LIFT, Rubric
from ...store.video_io import probe_video


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


#: Praise alone may be the reason of a label of more reward, where a rubric has several good ones.
_LITTLE_REWARD = 0.5
#: A reason of fewer words is never off topic: "Creepy." says enough.
_OFF_TOPIC_WORDS = 4
#: Captions of at most this many words are ambiguous if they are as vague as `_NUM_VAGUE` words of `_VAGUE` make them.
_SHORT_CAPTION_WORDS, _NUM_VAGUE = 12, 2
# What a template holds between brackets; anything else there, as the [OPEN] on a sign, belongs to the picture.
_BLANK = (
    r"(?:an?|the|your|some|insert|enter|add|any|subjects?|objects?|actions?|animals?|persons?|people|characters?|places?|"
    r"locations?|settings?|names?|nouns?|verbs?|adjectives?|adverbs?|colou?rs?|styles?|captions?|prompts?|descriptions?|"
    r"text|placeholder|words?|items?|here|blank|of|\d+)"
)
_INSIDE = rf"[\s_.\-]*(?:{_BLANK}(?:[\s_.\-]+{_BLANK})*)?[\s_.\-]*"
_PLACEHOLDER = re.compile(rf"\[{_INSIDE}\]|\{{{_INSIDE}\}}|<{_INSIDE}>|(?-i:\b(?:TODO|TBD|N/A)\b)", re.IGNORECASE)
_QUOTED = re.compile(r"\"[^\"]*\"|\u201c[^\u201d]*\u201d|(?<!\w)'[^']*'(?!\w)")
# A word; or one character, in scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, Chinese, Japanese.
_WORD = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]|"
    r"[^\s\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uff0f]+"
)
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
    r"merg|overlap|disappear|vanish|chang|transform|morph|twist|bend|bent|unnatural|outline|line|path|generat|"
    r"too\b|twice|doubl|duplicat|repeat|loop|stutter|lag|shak|flash|glow|grain|pixel|warp|melt|stretch|shrink|grow|rotat|"
    r"spin|unstable|blink|smil|walk|run|jump|turn|stand|sit|look|hold|talk|danc|"
    r"ears?\b|neck|nose|tooth|teeth|tongue|lip|skin|bone|horn|beak|fur|feather|toe|knee|elbow|shoulder|chest|belly|finger|thumb|"
    r"brok|break|snap|split|crack|torn|creep|ugly|scary|horr|disturb|uncanny|plastic|rubber|cartoon|cgi|fals|wobbl|shiver|"
    r"trembl|vibrat|fade|fading|cut\b|teleport|swap|switch|one\b|two\b|three\b|four\b|five\b|six\b|seven\b|eight\b|nine\b|"
    r"ten\b|no\b|not\b|never\b|without|\w+n't\b|many|several|not?\b|never\b|without|\w+n't\b|"
    r"nobody|no one|nothing|none|everything|watch|render|output|model|ai\b|"
    r"bright|dark|dim|colou?rless|grey|gray|red|green|blue|yellow|black|white|hair|cloth|logo|watermark|letter|written)",
    re.IGNORECASE,
)
# A fault that leaves no doubt. What may be wanted in a picture is none: a blurred ground, a flicker, things that disappear.
_FAULT = re.compile(
    r"\b(?:missing|wrong|incorrect|deform\w*|distort\w*|jitter\w*|jerky|unnatural\w*|erratic\w*|choppy|garbled|"
    r"mismatch\w*|inconsisten\w*|glitch\w*|art[ei]facts?|unrealistic|(?:do|does|did) not match|not generated)\b",
    re.IGNORECASE,
)
# Common words of languages that the lists do not know.
_FOREIGN = re.compile(
    r"\b(?:le|les|une|des|est|pas|il|elle|qui|dans|avec|manque|der|das|ist|sind|nicht|und|ein|eine|fehlt|kein|keine|el|los|"
    r"las|una|del|con|falta|esta|hay|sin|di|che|della|non|sono|manca|mancano|het|een|niet|van|zijn|ontbreekt|um|uma|nao|com|"
    r"jest|nie|brak|yok|bir|tidak|dan|yang|ada)\b",
    re.IGNORECASE,
)
# Beside one of these a fault is denied, small, wanted or outweighed, or may be.
_DOUBT = re.compile(
    r"\b(?:no|not|never|without|none|nothing|nobody|neither|nor|free|hardly|barely|rarely|seldom|scarcely|cannot|\w+n't|"
    r"any\w*|lack\w*|absen\w*|avoid\w*|instead|fixed|zero|slight\w*|minor|little|almost|some\w*|few|bit|but|however|though|"
    r"although|except|should|only|less|too|rather|can|could|may|might|seem\w*|partly|mostly|basically|overall|yet|despite|"
    r"if|good|great|nice|well|fine|clear\w*|sharp\w*|perfect\w*|flawless\w*|excellent|correct\w*|right|smooth\w*|fluid\w*|"
    r"natural\w*|realis\w*|consisten\w*|match\w*|intend\w*|intention\w*|deliberate\w*|style|stylistic|artistic|effect|"
    r"suit\w*|fit|fits|fitting|work|works|help\w*|add|adds|enhanc\w*|belong\w*|appropriate\w*|believabl\w*|plausibl\w*|"
    r"beautiful\w*|lovely|pleasant\w*|pleasing\w*|charming\w*|cool|fun|funny|cute|love|like\w*|enjoy\w*|impressive\w*|"
    r"amazing\w*|stunning\w*|convincing\w*|creativ\w*|dream\w*|surreal\w*|fantas\w*|magic\w*|dramatic\w*|mood\w*|"
    r"atmospher\w*|as|ask\w*|request\w*|want\w*|describ\w*|description|caption\w*|prompt\w*|suppos\w*|expect\w*|"
    r"purpose\w*|faithful\w*|accurate\w*|accept\w*|okay|ok|negligible|otherwise|while|until|before|because|since)\b",
    re.IGNORECASE,
)
_FLAWLESS = re.compile(
    r"\b(?:no|without|free of|free from) (?:any )?(?:(?:obvious|visible|apparent|noticeable) )?"
    r"(?:problems?|issues?|errors?|defects?|flaws?|mismatch(?:es)?|art[ei]facts?)\b",
    re.IGNORECASE,
)
_PRAISE = frozenset(
    "perfect perfectly flawless flawlessly excellent smooth smoothly fluid natural naturally matches".split()
)
# Words of three letters, and beginnings of longer ones, that stand in every text.
_COMMON = frozenset(
    "the and for was had has are its his her our but not you she who how all out off with this that from have".split()
)
# Words that take nothing from the praise that they stand with. Any other word may.
_NEUTRAL = frozenset(
    "a all and are caption clip content description everything in is it motion motions move moves movement movements "
    "of prompt quality scene subject subjects text the there this very video with".split()
)


def find_drop(
    row: Annotation, *, min_caption_words: int, clip_problem: str | None = None, rubric: Rubric = LIFT
) -> Drop | None:
    """
    The first rule that a row breaks, in the order of `Rule`; `None` for a row that passes.

    Args:
        min_caption_words: words that a caption must have.
        clip_problem: what `clip_problem` says of the row's clip.
        rubric: what the row's label is of.
    """
    if clip_problem is not None:
        return Drop(Rule.UNREADABLE_CLIP, clip_problem)
    return _caption_drop(row.caption, min_caption_words) or _reason_drop(row, rubric)


def clip_problem(row: Annotation) -> str | None:
    """Why the clip of a row cannot be decoded (every frame is tried), `None` if it can."""
    try:
        probe_video(row.video)
    except (ValueError, FileNotFoundError) as error:
        return str(error)
    return None


def _caption_drop(caption: str, min_words: int) -> Drop | None:
    words = _WORD.findall(caption)
    if len(words) < min_words:
        return Drop(Rule.CAPTION_TOO_SHORT, f"{len(words)} words or characters, at least {min_words} are needed")
    # What stands between quotation marks is written in the picture.
    if found := _PLACEHOLDER.search(_QUOTED.sub(" ", caption)):
        return Drop(Rule.AMBIGUOUS_CAPTION, f"holds the placeholder {found[0]!r}")
    vague = _VAGUE.findall(caption)
    if len(words) <= _SHORT_CAPTION_WORDS and len(vague) >= _NUM_VAGUE:
        return Drop(Rule.AMBIGUOUS_CAPTION, f"names nothing in particular: {', '.join(vague)}")
    return None


def _reason_drop(row: Annotation, rubric: Rubric) -> Drop | None:
    words = re.findall(r"[^\W\d_]+", row.reason.lower())
    if not words:
        return Drop(Rule.EMPTY_REASON, f"no word in {row.reason!r}")
    if len(words) >= _OFF_TOPIC_WORDS and _is_english(row.reason) and not _is_on_topic(row.reason, words, row.caption):
        return Drop(Rule.OFF_TOPIC_REASON, "no word of the caption and none on videos")
    return _contradiction(row.label, row.reason, row.caption, rubric)


def _is_english(reason: str) -> bool:
    """Whether the word lists may judge it. What is not, or may not be, is left to the critic and to people."""
    return reason.isascii() and not _FOREIGN.search(reason)


def _is_on_topic(reason: str, words: list[str], caption: str) -> bool:
    return bool(_TOPIC.search(reason)) or _shares_word(words, caption)


def _shares_word(words: list[str], caption: str) -> bool:
    """Whether a word of three letters or more stands in the caption, endings aside."""
    stems = {word[:5] for word in re.findall(r"[^\W\d_]{3,}", caption.lower())} - _COMMON
    return any(word[:5] in stems for word in words)


def _contradiction(label: str, reason: str, caption: str, rubric: Rubric) -> Drop | None:
    """A best label whose reason names a fault and nothing else, or one of little reward whose reason only praises."""
    reason = reason.replace("\u2019", "'")
    if label == rubric.best:
        fault = _FAULT.search(reason)
        # A fault that the caption names is what was asked for.
        if fault is None or _DOUBT.search(_FAULT.sub("", reason)) or _shares_word(fault[0].lower().split(), caption):
            return None
        return Drop(Rule.REASON_CONTRADICTS_LABEL, f"{label}, but the reason names a fault: {fault[0]!r}")
    if rubric.rewards[label] > _LITTLE_REWARD:
        return None
    rest, num_flawless = _FLAWLESS.subn("", " ".join(reason.split()))
    words = set(re.findall(r"[^\W_]+", rest.lower()))
    if words <= _PRAISE | _NEUTRAL and (num_flawless or words & _PRAISE):
        return Drop(Rule.REASON_CONTRADICTS_LABEL, f"{label}, but the reason only praises: {reason!r}")
    return None
