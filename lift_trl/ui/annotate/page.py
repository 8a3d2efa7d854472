"""The annotation page of the paper: video left, caption right, a label and a reason for each dimension."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from ...rubric import Rubric, words
from ..clips import ClipError, ClipShelf, leave_out_unplayed
from ..identity import SIGN_IN, Identity
from ..page import (
    QUICK,
    answered,
    broken_html,
    clip_player,
    header,
    html,
    notice_html,
    preload_html,
    progress_html,
    prompt_html,
    table_html,
    text_html,
    told,
)
from ..vote_log import Row
from .ratings import (
    MAX_REASON_CHARS,
    READY_REASON,
    AnnotationQueue,
    Rating,
    rater_summaries,
)
from .review_tab import Review, review_tab


#: Agreement of the raters in a dimension, `None` where it is not defined (evaluated on tidy rows without gold clips).
Agreement = Callable[[Sequence[Row], str], float | None]


_KEPT = "You had rated this clip before, in another tab perhaps. That rating stands; this one was not saved."


def annotate_page(
    queue: AnnotationQueue, shelf: ClipShelf, agreement: Agreement, *, review: Review | None = None
) -> gr.Blocks:
    """
    The page. Visitors rate; the owner also sees gold clips, agreement and raters, and decides the review queue.

    Args:
        agreement: what the owner's table shows of the raters' agreement.
        review: the correction mode, where there is a queue.

    Raises:
        ValueError: if browsers play no clip; others that they do not play are left out.
    """
    leave_out_unplayed({name: (clip.path,) for name, clip in queue.clips.items()}, queue.leave_out)
    with gr.Blocks(title="Video annotation", fill_width=True) as demo:
        status = header("Rate the video", "Watch it as often as you like; give each question a label and say why.")
        with gr.Tabs():
            with gr.Tab("Annotate", id="annotate"):
                _annotate_tab(demo, queue, shelf, status)
            if review is not None:
                with gr.Tab("Review", id="review", visible=False) as decisions:
                    review_tab(demo, review, queue.identity, shelf)
                demo.load(_owner_only(queue.identity), None, decisions, **QUICK)
            with gr.Tab("Owner", id="owner", visible=False) as owner_tab:
                panel = html()
        demo.load(_owner_only(queue.identity), None, owner_tab, **QUICK)

        @answered
        def show_owner(request: gr.Request, profile: gr.OAuthProfile | None = None) -> str:
            return owner_html(queue, agreement) if queue.identity.is_owner(request, profile) else ""

        owner_tab.select(show_owner, None, panel, **QUICK)
    return demo


def _owner_only(identity: Identity) -> Callable[..., gr.Tab]:
    @answered
    def visible(request: gr.Request, profile: gr.OAuthProfile | None = None) -> gr.Tab:
        return gr.Tab(visible=identity.is_owner(request, profile))

    return visible


def _annotate_tab(demo: gr.Blocks, queue: AnnotationQueue, shelf: ClipShelf, status: gr.HTML) -> None:
    clip_id = gr.Textbox(visible="hidden", elem_id="lift-clip", elem_classes="lift-item")
    with gr.Row(equal_height=False, elem_classes="lift-sides"):
        with gr.Column(scale=5, min_width=300, elem_classes="lift-sticky"):
            player = html()
        with gr.Column(scale=6, min_width=300):
            caption = html(elem_classes="lift-caption")
            with gr.Column(visible=False, elem_classes="lift-questions lift-answers") as form:
                rubric = queue.rubric
                fields = [field for dimension in rubric.dimensions for field in question_fields(dimension, rubric)]
                submit = gr.Button("Send and next", variant="primary", elem_id="lift-submit")
                html(_keys_html(rubric) + _words_html(rubric))
    skip = gr.Button("The clip is broken? Skip it", elem_id="lift-skip", size="sm")

    @answered
    def load(request: gr.Request, profile: gr.OAuthProfile | None = None) -> list[Any]:
        if queue.identity.require_login and profile is None:
            return _nothing(SIGN_IN, "", rubric)
        return _annotation(queue, shelf, queue.identity.voter(request, profile))

    @answered
    def rate(request: gr.Request, profile: gr.OAuthProfile | None, clip: str, *given: str | None) -> list[Any]:
        answers = [Rating(label, reason or "") for label, reason in zip(given[::2], given[1::2], strict=True)]
        ratings = dict(zip(rubric.dimensions, answers, strict=True))
        with told(), queue.identity.sending(request, profile) as rater:
            is_new = queue.rate(rater, clip, ratings)
        if not is_new and not queue.stands(rater, clip, ratings):
            gr.Warning(_KEPT, title="Not saved")
        return _annotation(queue, shelf, rater)

    @answered
    def skip_clip(clip: str, request: gr.Request, profile: gr.OAuthProfile | None = None) -> list[Any]:
        rater = queue.identity.voter(request, profile)
        with told():
            queue.skip(rater, clip)
        return _annotation(queue, shelf, rater)

    outputs = [player, caption, clip_id, form, status, *fields]
    demo.load(load, None, outputs, **QUICK)
    submit.click(rate, [clip_id, *fields], outputs, **QUICK)
    skip.click(skip_clip, [clip_id], outputs, **QUICK)


def _annotation(queue: AnnotationQueue, shelf: ClipShelf, rater: str) -> list[Any]:
    """What the tab shows `rater` next: the next clip that can be shown."""
    while (clip := queue.next_clip(rater)) is not None:
        try:
            video = clip_player([(clip.path, "")], shelf)
            break
        except ClipError as error:
            queue.leave_out(clip.id, str(error))
    progress = queue.progress(rater)
    bar = progress_html(progress.finished, progress.total, f"clips have all ratings; you rated {progress.mine}")
    if clip is None:
        return _nothing("Nothing is left for you to rate now. Thank you!", bar, queue.rubric)
    after = queue.clip_after(rater)
    video += "" if after is None else preload_html([after.path], shelf)
    return [video, prompt_html(clip.prompt, "Caption"), clip.id, gr.Column(visible=True), bar, *_cleared(queue.rubric)]


def _nothing(why: str, bar: str, rubric: Rubric) -> list[Any]:
    return [notice_html(why), "", "", gr.Column(visible=False), bar, *_cleared(rubric)]


def _cleared(rubric: Rubric) -> list[Any]:
    return [gr.Radio(value=None), gr.Textbox(value="")] * len(rubric.dimensions)


def _ask(rubric: Rubric) -> str:
    """What an empty box of a reason says."""
    below = rubric.labels[-2::-1]
    return f"Why? Needed for {', '.join(below[:-1])}{' and ' if below[1:] else ''}{below[-1]}."


def question_fields(dimension: str, rubric: Rubric) -> tuple[gr.Radio, gr.Textbox]:
    """The labels with their definitions, best first, and the box for the reason."""
    with gr.Group(elem_classes="lift-question lift-tall"):
        labels = gr.Radio(
            # The page's style sets the label itself before its definition.
            [(rubric.definitions[dimension][label], str(label)) for label in reversed(rubric.labels)],
            label=words(dimension).capitalize(),
            elem_id=f"lift-{dimension}",
        )
        reason = gr.Textbox(
            show_label=False,
            label=f"Why this label for {words(dimension)}?",
            placeholder=_ask(rubric),
            lines=1,
            max_lines=4,
            max_length=MAX_REASON_CHARS,
            container=False,
            elem_classes="lift-reason",
            elem_id=f"lift-reason-{dimension}",
        )
    return labels, reason


def _keys_html(rubric: Rubric) -> str:
    keys = "".join(f"<kbd>{n}</kbd> {label} " for n, label in enumerate(reversed(rubric.labels), start=1))
    return (
        f'<div class="lift-hint lift-keys">{keys}&nbsp; <kbd>Enter</kbd> next, then send &nbsp; '
        "<kbd>Space</kbd> play &nbsp; <kbd>,</kbd> <kbd>.</kbd> step</div>"
    )


def _words_html(rubric: Rubric) -> str:
    """What the page's script says in an empty box of a reason once a label is chosen, and the labels' own words."""
    style = "".join(
        f'.lift-tall .wrap label:nth-of-type({n}) span::before {{ content: "{label}"; }}'
        for n, label in enumerate(reversed(rubric.labels), start=1)
    )
    return (
        f'<div id="lift-words" hidden data-best="{rubric.best}" data-ask="{_ask(rubric)}" data-needed="Say why (required)" '
        f'data-ready="{READY_REASON}"></div><style>{style}</style>'
    )


def owner_html(queue: AnnotationQueue, agreement: Agreement) -> str:
    """What only the owner sees: how far the clips are, how well the raters agree, and each rater on the gold clips."""
    rows = queue.ratings()
    ordinary = [row for row in rows if row["video_id"] not in queue.gold]
    counts = queue.num_raters()
    clips = [name for name in queue.clips if name not in queue.gold]
    by_number = [
        [str(n), str(sum(counts[name] == n for name in clips))] for n in range(max(counts.values(), default=0) + 1)
    ]
    agreements = []
    for dimension in queue.rubric.dimensions:
        alpha = agreement(ordinary, dimension)
        agreements.append([words(dimension).capitalize(), "not yet" if alpha is None else f"{alpha:.2f}"])
    raters = [
        [
            f'<span class="lift-name">{text_html(rater.annotator)}</span>',
            str(rater.num_clips),
            "none yet" if rater.gold_accuracy is None else f"{100 * rater.gold_accuracy:.0f}&nbsp;%",
            f"{100 * rater.ready_share:.0f}&nbsp;%",
        ]
        for rater in rater_summaries(rows, queue.gold)
    ]
    pending = queue.log.num_pending
    saved = f"{len(rows)} ratings, {pending} of them not on the Hub yet" if pending else f"{len(rows)} ratings"
    return (
        notice_html(f"{saved}. Gold clips: {len(queue.gold)}. Raters asked for: {queue.raters} a clip.")
        + broken_html(queue.problems())
        + '<div class="lift-columns"><div><h3 class="lift-h">Clips</h3>'
        + table_html(["ratings", "clips"], by_number)
        + '</div><div><h3 class="lift-h">Agreement (Krippendorff&#39;s alpha, ordinal)</h3>'
        + table_html(["dimension", "alpha"], agreements)
        + "</div></div>"
        + '<h3 class="lift-h">Raters</h3>'
        + table_html(["rater", "clips", "gold labels met", "ready phrases"], raters)
    )
