"""The annotation page: people rate clips, with reasons; the owner also decides a review queue. Variables: README.md."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lift_trl.feedback.agreement import krippendorff_alpha
from lift_trl.feedback.review import Decision, decide
from lift_trl.hub.artifact_cards import ratings_card
from lift_trl.store.manifest import read_rows
from lift_trl.ui.annotate import annotate_page
from lift_trl.ui.annotation import RATERS, AnnotationQueue
from lift_trl.ui.clips import ClipShelf, load_clips
from lift_trl.ui.page import Settings, serve
from lift_trl.ui.review import ReviewDecision, ReviewQueue, find_queue
from lift_trl.ui.review_tab import Review


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

    return Review(ReviewQueue(list(read_rows(path)), decisions, write), path)


settings = Settings.from_env("annotate")
if "CLIPS" not in os.environ:
    use_the_mini_world()
identity = settings.identity()
log = settings.log(ratings_card(settings.repo_id or "", os.environ["CLIPS"]))
decisions = settings.log(directory="decisions")
queue = AnnotationQueue(
    load_clips(os.environ["CLIPS"], token=settings.token, cache_dir=settings.data_dir / "clips"),
    log,
    identity,
    gold=load_clips(os.environ["GOLD"], token=settings.token) if os.environ.get("GOLD") else (),
    raters=int(os.environ.get("RATERS", RATERS)),
    source=os.environ.get("SOURCE", "synthetic"),
)
shelf = ClipShelf(identity)
demo = annotate_page(
    queue, shelf, krippendorff_alpha, review=review(os.environ["QUEUE"]) if os.environ.get("QUEUE") else None
)


def close() -> None:
    log.close()
    decisions.close()


if __name__ == "__main__":
    serve(demo, shelf=shelf, on_exit=close, say=f"The owner's page: add /?owner={identity.owner_key} to the address")
