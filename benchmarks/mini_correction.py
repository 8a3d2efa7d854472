"""How many wrong ratings the three-step correction finds in the mini world, with a critic that learns from the very ratings.

    OMP_NUM_THREADS=1 python benchmarks/mini_correction.py      # three trainings as in the quickstart, resumable

Samples of the mini base are rated by the mini raters, one rater a clip, who err in a fifth of the ratings: a neighbouring
label, and a reason that fits it. `recipes/correct.py` runs with its YAML and the package's VLM until it is finished; its
queues are answered with what the pixels show. Options after `--` go to that recipe. Prints `name: value` lines:

    precision        share of the ratings shown to a person that were wrong
    recall           share of the wrong ratings that were shown to a person
    wrong_before     share of wrong ratings before
    wrong_after      the same of the corrected ratings
    asked            share of all ratings that were shown to a person
"""

import argparse
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from lift_trl.feedback.correction.loop import CORRECTED, STEPS
from lift_trl.feedback.correction.review import QUEUE_FILE, Decision, decide
from lift_trl.feedback.hra import load_hra
from lift_trl.mini.annotator import RATERS, Rater, Rating
from lift_trl.mini.checkpoints import WEIGHTS
from lift_trl.mini.oracle import observe
from lift_trl.mini.shapes import SCENES, parse_prompt
from lift_trl.rubric import Dimension, Label
from lift_trl.store.manifest import ARTIFACT_FILE, METADATA_FILE, read_rows, write_rows, write_text
from lift_trl.store.video_io import read_video


RECIPES = Path(__file__).parents[1] / "recipes"
ERROR_RATE = 0.2
TRUTHFUL = Rater("oracle", error_rate=0.0, phrasing=0)

Key = tuple[str, str]  # video, dimension
Truth = dict[Key, Rating]


class Figures(NamedTuple):
    """What is printed."""

    precision: float
    recall: float
    wrong_before: float
    wrong_after: float
    asked: float


def launch(recipe: str, *options: str) -> None:
    """A recipe with its mini YAML, on two processes."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    launcher += ["--config_file", str(RECIPES / "configs" / "accelerate" / "cpu_2.yaml")]
    config = RECIPES / "configs" / "mini" / f"{recipe}.yaml"
    subprocess.run([*launcher, str(RECIPES / f"{recipe}.py"), "--config", str(config), *options], check=True)


def sample(out: Path, num_prompts: int, videos_per_prompt: int) -> Path:
    """Videos of the mini base."""
    prompts = "".join(f"{scene.prompt}\n" for scene in SCENES[:num_prompts])
    write_text(out / "prompts.txt", prompts)
    made = {
        "model_name_or_path": WEIGHTS / "video_model",
        "prompts": out / "prompts.txt",
        "output_dir": out / "videos",
    }
    options = {**made, "videos_per_prompt": videos_per_prompt, "seed": 0}
    launch("generate", *(word for name, value in options.items() for word in (f"--{name}", str(value))))
    return out / "videos"


def rate(videos: Path, folder: Path) -> Truth:
    """Writes the ratings with errors into `folder`; returns the right ones. The same videos always get the same ratings."""
    raters = [replace(rater, error_rate=ERROR_RATE) for rater in RATERS]
    truth: Truth = {}
    rows = []
    for number, video in enumerate(read_rows(videos / METADATA_FILE)):
        path = (videos / video["file_name"]).absolute()
        seen, caption = observe(read_video(path).frames), parse_prompt(video["prompt"])
        for right in TRUTHFUL.rate_observation(video["id"], seen, caption):
            truth[video["id"], right.dimension] = right
        for given in raters[number % len(raters)].rate_observation(video["id"], seen, caption):
            named = {"file_name": str(path), "video_id": video["id"], "caption": video["prompt"]}
            rows.append({**named, **given._asdict()})
    write_rows(folder / METADATA_FILE, rows)
    return truth


def answer(queue: Path, keys: dict[str, Key], truth: Truth) -> None:
    """A person who sees what the pixels show decides every row of a queue."""
    right = {row["id"]: truth[keys[row["id"]]] for row in read_rows(queue)}
    decide(queue, {row_id: Decision(one.label, one.reason, one.annotator) for row_id, one in right.items()})


def correct(out: Path, ratings: Path, truth: Truth, options: list[str]) -> set[Key]:
    """Runs the recipe until it is finished; returns the ratings that were shown to a person."""
    run = out / "run"
    made = ["--hra", str(ratings), "--model_name_or_path", str(WEIGHTS / "vlm"), "--output_dir", str(run), *options]
    while not (run / CORRECTED / ARTIFACT_FILE).is_file():
        launch("correct", *made)
        for queue in run.glob(f"*/{QUEUE_FILE}"):
            answer(queue, _keys(queue), truth)
    return {key for step in STEPS[1:] for key in _keys(run / step / QUEUE_FILE).values()}


def _keys(queue: Path) -> dict[str, Key]:
    """The rating that each row of a queue is about; the videos are called by their ids."""
    return {row["id"]: (Path(row["video"]).stem, row["dimension"]) for row in read_rows(queue)}


def figures(before: dict[Key, Label], after: dict[Key, Label], asked: set[Key], truth: Truth) -> Figures:
    """
    The figures of some ratings (all dimensions or one).

    Raises:
        ValueError: if nobody was asked or no rating was wrong; then there is neither precision nor recall.
    """
    wrong = {key for key, label in before.items() if label != truth[key].label}
    shown = asked & before.keys()
    if not wrong or not shown:
        raise ValueError(f"{len(wrong)} wrong ratings and {len(shown)} questions; take more prompts or videos.")
    return Figures(
        precision=len(shown & wrong) / len(shown),
        recall=len(shown & wrong) / len(wrong),
        wrong_before=len(wrong) / len(before),
        wrong_after=sum(label != truth[key].label for key, label in after.items()) / len(after),
        asked=len(shown) / len(before),
    )


def main() -> None:
    """Reads the command line, runs what is missing, prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/mini_correction"))
    parser.add_argument("--prompts", type=int, default=len(SCENES))
    parser.add_argument("--videos-per-prompt", type=int, default=8)
    parser.add_argument("options", nargs="*", help="after --: options of recipes/correct.py")
    args = parser.parse_args()
    ratings = args.out / "ratings"
    truth = rate(sample(args.out, args.prompts, args.videos_per_prompt), ratings)
    asked = correct(args.out, ratings, truth, args.options)
    before, after = (
        {(row["video_id"], row["dimension"]): Label(row["label"]) for row in load_hra(folder)["train"]}
        for folder in (ratings, args.out / "run" / CORRECTED)
    )
    print(f"{len(before)} ratings; by dimension:")
    for dimension in Dimension:
        parts = [{key: label for key, label in part.items() if key[1] == dimension} for part in (before, after)]
        part = figures(parts[0], parts[1], asked, truth)
        print(f"  {dimension.words}: " + ", ".join(f"{name} {value:.3f}" for name, value in part._asdict().items()))
    for name, value in figures(before, after, asked, truth)._asdict().items():
        print(f"{name}: {value:.4f}")


if __name__ == "__main__":
    main()
