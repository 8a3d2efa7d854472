"""The annotation page: people rate clips, with reasons; the owner also decides a review queue. Variables: README.md."""

import os
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lift_trl.feedback.agreement import krippendorff_alpha
from lift_trl.feedback.correction.review import Decision, decide
from lift_trl.hub.artifact_cards import ratings_card
from lift_trl.store.manifest import read_rows
from lift_trl.store.rubrics.of_data import find_rubric
from lift_trl.ui.annotate.page import annotate_page
from lift_trl.ui.annotate.ratings import RATERS, AnnotationQueue
from lift_trl.ui.annotate.review import ReviewDecision, ReviewQueue, find_queue
from lift_trl.ui.annotate.review_tab import Review
from lift_trl.ui.clips import ClipShelf, load_clips
from lift_trl.ui.page import Settings, number_from_env, serve


def use_the_mini_world() -> None:
    """Something to rate where no clips are named."""
    from lift_trl.mini.world import build_world

    world = build_world(Path(tempfile.mkdtemp(prefix="lift_trl_")) / "world", num_real=1, trained=False)
    os.environ["CLIPS"] = str(world.rated)


def review(source: str) -> Review:
    """The queue of a correction, on this machine's disk (decisions are written into it) or on the Hub (they are not)."""
    path, is_local = find_queue(source, token=settings.token)

    def write(decisions: Sequence[ReviewDecision]) -> None:
        if is_local:
            decide(path, {d.row_id: Decision(d.label, d.reason, d.reviewer, d.decided_at) for d in decisions})

    return Review(ReviewQueue(list(read_rows(path)), decisions, write, rubric=find_rubric(path)), path)


settings = Settings.from_env("annotate")
if "CLIPS" not in os.environ:
    use_the_mini_world()
rubric = find_rubric(os.environ["CLIPS"], os.environ.get("RUBRIC") or None)
identity = settings.identity()
log = settings.log(ratings_card(settings.repo_id or "", os.environ["CLIPS"], rubric))
decisions = settings.log(directory="decisions")
queue = AnnotationQueue(
    load_clips(os.environ["CLIPS"], token=settings.token, cache_dir=settings.clips_dir()),
    log,
    identity,
    gold=load_clips(os.environ["GOLD"], token=settings.token) if os.environ.get("GOLD") else (),
    raters=number_from_env("RATERS", RATERS),
    source=os.environ.get("SOURCE") or "synthetic",
    rubric=rubric,
)
shelf = ClipShelf(identity)
agreement = partial(krippendorff_alpha, rubric=rubric)
to_review = review(os.environ["QUEUE"]) if os.environ.get("QUEUE") else None
demo = annotate_page(queue, shelf, agreement, review=to_review)


def close() -> None:
    log.close()
    decisions.close()


if __name__ == "__main__":
    serve(demo, shelf=shelf, on_exit=close, say=f"The owner's page: add /?owner={identity.owner_key} to the address")
