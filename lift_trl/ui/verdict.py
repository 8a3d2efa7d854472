"""What a critic says of clips, as a table: label, probabilities and reason for each dimension."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..records import CriticScore, Judgement
from ..rubric import REWARDS, Dimension, Label, parse_label
from .page import notice_html, text_html


def score_of(row: Mapping[str, Any]) -> CriticScore | None:
    """
    The verdict that a scored row carries in its columns, `None` where it has none.

    Raises:
        ValueError: if a label is none, or a dimension has no label.
    """
    name = str(row.get("id", ""))
    if row.get("unscored"):
        return CriticScore(name, str(row.get("critic", "")), unscored=str(row["unscored"]))
    if not any(row.get(dimension) for dimension in Dimension):
        return None
    probs, reasons = row.get("probs") or {}, row.get("reasons") or {}
    judgements = tuple(
        Judgement(
            dimension=dimension,
            label=parse_label(str(row.get(dimension))),
            probs={Label(label): p for label, p in probs[dimension].items()} if probs.get(dimension) else None,
            reason=str(reasons.get(dimension) or ""),
        )
        for dimension in Dimension
    )
    return CriticScore(name, str(row.get("critic", "")), judgements)


def label_html(label: Label) -> str:
    """A label in its colour."""
    return f'<span class="lift-label lift-rank{label.rank}">{label}</span>'


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
        f'<div class="lift-judgement"><span>{judgement.dimension.words.capitalize()}</span>{label_html(judgement.label)}'
        f"{_probabilities(judgement.probs)}{reason}</div>"
    )


def _probabilities(probs: Mapping[Label, float] | None) -> str:
    if probs is None:
        return '<span class="lift-hint">no probabilities</span>'
    bars = "".join(
        f'<i class="lift-rank{label.rank}" style="width:{100 * probs[label]:.1f}%"></i>' for label in reversed(Label)
    )
    words = " ".join(f"<span>{label} {100 * probs[label]:.0f} %</span>" for label in reversed(Label))
    return f'<div class="lift-chances"><div class="lift-probs">{bars}</div><small>{words}</small></div>'


def verdicts_html(verdicts: Sequence[tuple[str, CriticScore | None]]) -> str:
    """Verdicts on the clips of one player, in the same order."""
    if all(score is None for _, score in verdicts):
        return notice_html("No critic has judged these clips.")
    best, worst = (f"{reward:g}" for reward in (max(REWARDS.values()), min(REWARDS.values())))
    note = (
        f"The reward is the mean over the dimensions: {worst} if all are {Label.BAD}, {best} if all are {Label.GOOD}."
    )
    rewards = [score.reward for _, score in verdicts if score is not None and score.unscored is None]
    if len(rewards) == 2:
        note = f"Difference of the rewards: {abs(rewards[0] - rewards[1]):.2f}. {note}"
    cards = "".join(verdict_html(name, score) for name, score in verdicts)
    return f'<div class="lift-videos">{cards}</div><div class="lift-hint">{note}</div>'
