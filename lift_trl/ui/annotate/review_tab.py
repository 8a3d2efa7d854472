"""The correction mode's tab: the owner decides rows on which rater and critic disagree."""

from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from ...rubric import Rubric, words
from ..clips import ClipError, ClipShelf
from ..identity import Identity
from ..page import (
    QUICK,
    answered,
    clip_player,
    html,
    notice_html,
    progress_html,
    prompt_html,
    table_html,
    text_html,
    told,
)
from ..verdict import label_html
from ..vote_log import Row
from .ratings import MAX_REASON_CHARS
from .review import ReviewQueue, clip_path


_KEPT = "This row was decided before, in another tab perhaps. That decision stands; this one was not saved."


class Review(NamedTuple):
    """The correction mode: the queue, and the file that it came from."""

    queue: ReviewQueue
    path: Path


class _Form(NamedTuple):
    """What a row fills in, in this order."""

    player: gr.HTML
    caption: gr.HTML
    row_id: gr.Textbox
    form: gr.Column
    status: gr.HTML
    labels: gr.Radio
    reason: gr.Textbox


def _form(rubric: Rubric) -> tuple[_Form, gr.Button, gr.Button]:
    """The tab's parts, and its buttons: to keep a row with this label, and to drop it."""
    row_id = gr.Textbox(visible="hidden", elem_id="lift-row", elem_classes="lift-item")
    with gr.Row(equal_height=False, elem_classes="lift-sides"):
        with gr.Column(scale=5, min_width=300, elem_classes="lift-sticky"):
            player = html()
        with gr.Column(scale=6, min_width=300):
            status, caption = html(), html(elem_classes="lift-caption")
            with gr.Column(visible=False, elem_classes="lift-answers") as form:
                labels = gr.Radio(
                    [(str(label), str(label)) for label in reversed(rubric.labels)],
                    label="Decision",
                    elem_classes="lift-question",
                    elem_id="lift-decision",
                )
                reason = gr.Textbox(
                    label="Reason", lines=2, max_length=MAX_REASON_CHARS, elem_id="lift-decision-reason"
                )
                with gr.Row():
                    keep = gr.Button("Save decision", variant="primary", elem_id="lift-decide")
                    drop = gr.Button("Drop this row", elem_id="lift-drop")
    return _Form(player, caption, row_id, form, status, labels, reason), keep, drop


def review_tab(demo: gr.Blocks, review: Review, identity: Identity, shelf: ClipShelf) -> None:
    """The owner's tab: what rater and critic said, and a form with the critic's answer filled in."""
    queue = review.queue
    tab, keep, drop = _form(queue.rubric)

    def owner(request: gr.Request, profile: gr.OAuthProfile | None) -> str:
        if not identity.is_owner(request, profile):
            raise gr.Error("Only the owner decides.", print_exception=False)
        return identity.voter(request, profile)

    @answered
    def load(request: gr.Request, profile: gr.OAuthProfile | None = None) -> list[Any]:
        if not identity.is_owner(request, profile):
            return ["", "", "", gr.Column(visible=False), "", None, ""]
        return _review(review, shelf)

    @answered
    def refill(
        row: str, label: str | None, text: str, request: gr.Request, profile: gr.OAuthProfile | None = None
    ) -> str:
        owner(request, profile)
        return queue.refill(row, label, text)

    @answered
    def decide(
        row: str, label: str | None, text: str, request: gr.Request, profile: gr.OAuthProfile | None = None
    ) -> list[Any]:
        reviewer = owner(request, profile)
        with told():
            is_first = queue.decide(row, reviewer, label, text)
        if not is_first:
            gr.Warning(_KEPT, title="Not saved")
        return _review(review, shelf)

    @answered
    def remove(row: str, text: str, request: gr.Request, profile: gr.OAuthProfile | None = None) -> list[Any]:
        reviewer = owner(request, profile)
        with told():
            is_first = queue.decide(row, reviewer, None, text, drop=True)
        if not is_first:
            gr.Warning(_KEPT, title="Not saved")
        return _review(review, shelf)

    demo.load(load, None, list(tab), **QUICK)
    tab.labels.input(refill, [tab.row_id, tab.labels, tab.reason], tab.reason, **QUICK)
    keep.click(decide, [tab.row_id, tab.labels, tab.reason], list(tab), **QUICK)
    drop.click(remove, [tab.row_id, tab.reason], list(tab), **QUICK)


def _review(review: Review, shelf: ClipShelf) -> list[Any]:
    """What the tab shows next."""
    queue = review.queue
    row = queue.next_row()
    bar = progress_html(queue.num_done, len(queue.rows), "rows decided")
    if row is None:
        return [notice_html("Nothing waits for a decision."), "", "", gr.Column(visible=False), bar, None, ""]
    label, text = queue.suggestion(row)
    try:
        video = clip_player([(clip_path(row, review.path), "")], shelf)
    except ClipError as error:
        video = notice_html(f"This clip cannot be shown, so drop the row or put the clip back. {error}")
    shown = review_html(row, queue.rubric)
    return [video, shown, row["id"], gr.Column(visible=True), bar, label and str(label), text]


def review_html(row: Row, rubric: Rubric) -> str:
    """Caption, and what rater and critic said."""
    critic = label_html(rubric.parse_label(row["critic_label"]), rubric) if row.get("critic_label") else "no label"
    said = [
        ["Rater", label_html(rubric.parse_label(row["label"]), rubric), text_html(str(row["reason"]))],
        ["Critic", critic, text_html(str(row.get("critic_reason") or ""))],
        ["Why it is here", "", text_html(str(row.get("why", "")))],
    ]
    table = table_html([escape(words(row["dimension"]).capitalize()), "", ""], said)
    return prompt_html(str(row["caption"]), "Caption") + table
