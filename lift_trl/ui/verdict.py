"""What a critic says of clips, as a table: label, probabilities and reason for each dimension."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..records import CriticScore, Judgement
from ..rubric import LIFT, Rubric, words
from .page import notice_html, text_html


def score_of(row: Mapping[str, Any], rubric: Rubric) -> CriticScore | None:
    """
    The verdict that a scored row carries in its columns, labels of `rubric`, `None` where it has none.

    Raises:
        ValueError: if a label is none, or a dimension has no label.
    """
    name = str(row.get("id", ""))
    if row.get("unscored"):
        return CriticScore(name, str(row.get("critic", "")), unscored=str(row["unscored"]))
    if not any(row.get(dimension) for dimension in rubric.dimensions):
        return None
    probs, reasons = row.get("probs") or {}, row.get("reasons") or {}
    judgements = tuple(
        Judgement(
            dimension=dimension,
            label=rubric.parse_label(str(row.get(dimension))),
            probs=probs.get(dimension),
            reason=str(reasons.get(dimension) or ""),
            rubric=rubric,
        )
        for dimension in rubric.dimensions
    )
    return CriticScore(name, str(row.get("critic", "")), judgements)


def rank_class(label: str, rubric: Rubric) -> str:
    """
    The style's class of a label: its rank among three. Of a rubric with more labels those between share the middle one.

    >>> [rank_class(label, LIFT) for label in LIFT.labels]
    ['lift-rank0', 'lift-rank1', 'lift-rank2']
    """
    return f"lift-rank{0 if label == rubric.worst else 2 if label == rubric.best else 1}"


def label_html(label: str, rubric: Rubric) -> str:
    """A label in its colour."""
    return f'<span class="lift-label {rank_class(label, rubric)}">{label}</span>'


def verdict_html(name: str, score: CriticScore | None) -> str:
    """A critic's verdict on one clip."""
    if score is None:
        return notice_html(f"{name}: no critic has judged this clip.")
    if score.unscored is not None:
        return notice_html(f"{name}: unscored, {score.unscored}")
    body = "".join(_judgement(judgement) for judgement in score.judgements)
    head = f"<b>{text_html(name)}</b><span>reward {score.reward:.2f}</span>"
    return f'<div class="lift-verdict"><div class="lift-verdict-head">{head}</div>{body}</div>'


def _judgement(judgement: Judgement) -> str:
    reason = f'<div class="lift-reason-text">{text_html(judgement.reason)}</div>' if judgement.reason else ""
    return (
        f'<div class="lift-judgement"><span>{words(judgement.dimension).capitalize()}</span>'
        f"{label_html(judgement.label, judgement.rubric)}{_probabilities(judgement)}{reason}</div>"
    )


def _probabilities(judgement: Judgement) -> str:
    probs, rubric = judgement.probs, judgement.rubric
    if probs is None:
        return '<span class="lift-hint">no probabilities</span>'
    bars = "".join(
        f'<i class="{rank_class(label, rubric)}" style="width:{100 * probs[label]:.1f}%"></i>'
        for label in reversed(rubric.labels)
    )
    words = " ".join(f"<span>{label} {100 * probs[label]:.0f} %</span>" for label in reversed(rubric.labels))
    return f'<div class="lift-chances"><div class="lift-probs">{bars}</div><small>{words}</small></div>'


def verdicts_html(verdicts: Sequence[tuple[str, CriticScore | None]]) -> str:
    """Verdicts on the clips of one player, in the same order."""
    if all(score is None for _, score in verdicts):
        return notice_html("No critic has judged these clips.")
    rubric = next((score.rubric for _, score in verdicts if score is not None and score.judgements), LIFT)
    best, worst = (f"{rubric.rewards[label]:g}" for label in (rubric.best, rubric.worst))
    note = f"The reward is the mean over the dimensions: {worst} if all are {rubric.worst}, {best} if all are {rubric.best}."
    rewards = [score.reward for _, score in verdicts if score is not None and score.unscored is None]
    if len(rewards) == 2:
        note = f"Difference of the rewards: {abs(rewards[0] - rewards[1]):.2f}. {note}"
    cards = "".join(verdict_html(name, score) for name, score in verdicts)
    return f'<div class="lift-videos">{cards}</div><div class="lift-hint">{note}</div>'
