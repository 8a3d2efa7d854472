# /// script
# requires-python = ">=3.11"
# dependencies = ["lift-trl"]
# ///
"""Stage 3c: rated and real videos to a cache of VAE posteriors and text embeddings.

    accelerate launch --config_file recipes/configs/accelerate/single_gpu.yaml recipes/cache.py \
        --config recipes/configs/cogvideox-2b/cache.yaml
"""

from dataclasses import dataclass, field
from pathlib import Path

from lift_trl.importing import importing


with importing():
    from lift_trl.recipe_parser import RecipeParser
    from lift_trl.records import content_id
    from lift_trl.runtime import leaving_processes, process_state, setup_logging


@dataclass
class CacheArguments:
    model_name_or_path: str = field(metadata={"help": "Folder or repo[@revision] of the text-to-video pipeline."})
    output_dir: str = field(metadata={"help": "Folder of the cache."})
    videos: list[str] = field(
        default_factory=list,
        metadata={"help": "Folders of clips, or dataset repos on the Hub (user/name[@revision])."},
    )
    preferences: str | None = field(
        default=None,
        metadata={
            "help": "Pairs for dpo: the arena's votes, or a CSV with path_A, path_B, prompt, Overall (A, B, same)."
        },
    )
    systems: list[str] = field(
        default_factory=list, metadata={"help": "name=folder of each system that the votes compare."}
    )
    num_frames: int | None = field(default=None, metadata={"help": "Frames; by default the checkpoint's own."})
    height: int | None = field(default=None, metadata={"help": "Pixels; by default the checkpoint's own."})
    width: int | None = field(default=None, metadata={"help": "Pixels; by default the checkpoint's own."})
    fps: float | None = field(default=None, metadata={"help": "Frames a second; by default the model family's own."})
    rows_per_shard: int = field(default=100, metadata={"help": "Clips in one shard, the unit of resuming."})
    validation_prompts: list[str] = field(default_factory=list, metadata={"help": "Prompts to embed for validation."})


ARGUMENTS = (CacheArguments,)


def main(args: CacheArguments) -> None:
    # After the parser: `--help` and a wrong option do not wait for the models' classes.
    with importing():
        from lift_trl.alignment.data.cache import cache_videos, clip_parents
        from lift_trl.alignment.data.cache_format import save_pairs
        from lift_trl.judges.preferences import load_preferences, parse_systems
        from lift_trl.store.rated_videos import load_rated_videos

    state = process_state()
    setup_logging(state)
    videos = [video for source in args.videos for video in load_rated_videos(source)]
    pairs: list[tuple[str, str]] = []
    systems = parse_systems(args.systems)
    parents = clip_parents([*args.videos, *systems.values()])
    if args.preferences:
        found = load_preferences(args.preferences, systems)
        parents["preferences"] = f"{Path(args.preferences).name}@{content_id(*found.pairs)}"
        known = {video.id for video in videos}
        videos, pairs = [*videos, *(video for video in found.videos if video.id not in known)], found.pairs
    if not videos:
        raise ValueError("nothing to cache: give videos, preferences, or both.")
    with state.main_process_first():
        save_pairs(args.output_dir, pairs)
    cache_videos(
        args.model_name_or_path,
        videos,
        args.output_dir,
        num_frames=args.num_frames,
        height=args.height,
        width=args.width,
        fps=args.fps,
        rows_per_shard=args.rows_per_shard,
        extra_prompts=args.validation_prompts,
        parents=parents,
        state=state,
    )
    people = f", and {len(pairs)} pairs that people chose" if pairs else ""
    where = args.output_dir
    state.print(f"{len(videos)} clips cached in {where}{people}. Next: recipes/align.py --cache {where}")


if __name__ == "__main__":
    with leaving_processes():
        main(*RecipeParser(ARGUMENTS).parse_args_and_config())
