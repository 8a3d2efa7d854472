"""The correction mode's tab: the owner decides rows on which rater and critic disagree."""

from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from ..rubric import Dimension, Label
from .annotation import MAX_REASON_CHARS
from .clips import ClipShelf
from .identity import Identity
from .page import QUICK, clip_player, html, notice_html, progress_html, prompt_html, table_html, text_html, told
from .review import ReviewQueue, clip_path
from .verdict import label_html
from .vote_log import Row


class Review(NamedTuple):
    """The correction mode: the queue, and the file that it came from."""

    queue: ReviewQueue
    path: Path


def review_tab(demo: gr.Blocks, review: Review, identity: Identity, shelf: ClipShelf) -> None:
    """The owner's tab: what rater and critic said, and a form with the critic's answer filled in."""
    queue = review.queue
    row_id = gr.Textbox(visible="hidden", elem_id="lift-row")
    with gr.Row(equal_height=False, elem_classes="lift-sides"):
        with gr.Column(scale=5, min_width=300, elem_classes="lift-sticky"):
            player = html()
        with gr.Column(scale=6, min_width=300):
            status, caption = html(), html(elem_classes="lift-caption")
            with gr.Column(visible=False) as form:
                labels = gr.Radio(
                    [(label.value, label.value) for label in reversed(Label)],
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

    def owner(request: gr.Request, profile: gr.OAuthProfile | None) -> str:
        if not identity.is_owner(request, profile):
            raise gr.Error("Only the owner decides.", print_exception=False)
        return identity.voter(request, profile)

    def load(request: gr.Request, profile: gr.OAuthProfile | None = None) -> list[Any]:
        if not identity.is_owner(request, profile):
            return ["", "", "", gr.Column(visible=False), "", None, ""]
        return _review(review, shelf)

    def decide(
        row: str, label: str | None, text: str, request: gr.Request, profile: gr.OAuthProfile | None = None
    ) -> list[Any]:
        reviewer = owner(request, profile)
        with told():
            queue.decide(row, reviewer, label, text)
        return _review(review, shelf)

    def remove(row: str, text: str, request: gr.Request, profile: gr.OAuthProfile | None = None) -> list[Any]:
        reviewer = owner(request, profile)
        with told():
            queue.decide(row, reviewer, None, text, drop=True)
        return _review(review, shelf)

    outputs = [player, caption, row_id, form, status, labels, reason]
    demo.load(load, None, outputs, **QUICK)
    keep.click(decide, [row_id, labels, reason], outputs, **QUICK)
    drop.click(remove, [row_id, reason], outputs, **QUICK)


def _review(review: Review, shelf: ClipShelf) -> list[Any]:
    """What the tab shows next."""
    queue = review.queue
    row = queue.next_row()
    bar = progress_html(queue.num_done, len(queue.rows), "rows decided")
    if row is None:
        return [notice_html("Nothing waits for a decision."), "", "", gr.Column(visible=False), bar, None, ""]
    label, text = queue.suggestion(row)
    video = clip_player([(clip_path(row, review.path), "")], shelf)
    return [video, review_html(row), row["id"], gr.Column(visible=True), bar, label and label.value, text]


def review_html(row: Row) -> str:
    """Caption, and what rater and critic said."""
    dimension = Dimension(row["dimension"])
    critic = label_html(Label(row["critic_label"])) if row.get("critic_label") else "no label"
    said = [
        ["Rater", label_html(Label(row["label"])), text_html(str(row["reason"]))],
        ["Critic", critic, text_html(str(row.get("critic_reason") or ""))],
        ["Why it is here", "", text_html(str(row.get("why", "")))],
    ]
    table = table_html([escape(dimension.words.capitalize()), "", ""], said)
    return prompt_html(str(row["caption"]), "Caption") + table
