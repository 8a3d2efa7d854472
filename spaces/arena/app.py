"""The arena: people compare the clips of two systems, blind. Variables: README.md."""

import os
import tempfile
from pathlib import Path

from lift_trl.hub.artifact_cards import votes_card
from lift_trl.hub_source import NamedSource
from lift_trl.records import Comparison
from lift_trl.statistics.intervals import Estimate
from lift_trl.statistics.win_rate import to_votes, win_rates
from lift_trl.store.rubrics.of_data import find_rubric
from lift_trl.ui.arena.page import arena_page
from lift_trl.ui.arena.results import ResultRow, Share
from lift_trl.ui.arena.votes import Arena, system_of
from lift_trl.ui.clips import ClipShelf, GalleryClip, load_clips, pair_clips
from lift_trl.ui.page import Settings, serve


def clips(variable: str) -> list[GalleryClip]:
    """`FIRST=name=user/dataset`, or a folder; the name is shown in the results only."""
    name, source = NamedSource.parse(os.environ[variable])
    return load_clips(source, system=name or None, token=settings.token)


def use_the_mini_world() -> None:
    """Something to look at where no clips are named: clips with defects against clips without."""
    from lift_trl.mini.world import build_world

    world = build_world(Path(tempfile.mkdtemp(prefix="lift_trl_")) / "world", trained=False)
    os.environ |= {"FIRST": f"flawed={world.rated}", "SECOND": f"clean={world.real}"}


def share(estimate: Estimate) -> Share:
    return Share(estimate.value, estimate.ci95)


def results(votes: list[Comparison]) -> list[ResultRow]:
    base, aligned = arena.systems
    votes_of = to_votes(votes, system_of, first=aligned, second=base)
    return [
        ResultRow(
            dimension=rate.dimension,
            win=share(rate.win),
            tie=share(rate.tie),
            loss=share(rate.loss),
            majority_win=rate.majority_win,
            majority_loss=rate.majority_loss,
            num_votes=rate.num_votes,
            num_pairs=rate.num_pairs,
        )
        for rate in win_rates(votes_of, judge="people", first=aligned, second=base)
    ]


settings = Settings.from_env("arena")
if "FIRST" not in os.environ:
    use_the_mini_world()
identity = settings.identity()
rubric = find_rubric(NamedSource.parse(os.environ["FIRST"]).source, os.environ.get("RUBRIC") or None)
log = settings.log(votes_card(settings.repo_id or "", os.environ["FIRST"], os.environ["SECOND"], rubric))
arena = Arena(pair_clips(clips("FIRST"), clips("SECOND")), log, identity, rubric=rubric)
shelf = ClipShelf(identity)
demo = arena_page(arena, shelf, results)

if __name__ == "__main__":
    serve(
        demo, shelf=shelf, on_exit=log.close, say=f"The owner's page: add /?owner={identity.owner_key} to the address"
    )
