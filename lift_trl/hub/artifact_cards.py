"""Cards of datasets, critics and reports from `templates/*.md`: what it is, how it was made, what it came from."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData
from huggingface_hub.repocard_data import model_index_to_eval_results
from jinja2 import Template

from ..published import published
from ..records import EvalRow
from ..rubric import LIFT, Rubric, words
from ..store.clip_rows import one_a_rater
from ..store.manifest import METADATA_FILE, Artifact, library_versions, read_rows
from .front_matter import TASKS, pretty_name, size_category
from .front_matter import tags as kind_tags
from .model_index import model_index
from .parents import hub_parents, parent_table
from .pushed_base import ADAPTER_CONFIG
from .tables import markdown_table


#: What recipes/evaluate_critic.py leaves in a critic's folder for its card: words and tables, and rows of figures.
EVALUATION_FILE, EVALUATION_FIGURES = "evaluation.md", "evaluation.jsonl"
#: The measures of `critic/{part}/{measure}` that stand in a critic's `model-index`: is it right, and is its order?
_INDEXED = ("accuracy", "balanced_accuracy", "spearman", "auc_good", "auc_bad")
TEMPLATES = Path(__file__).parent / "templates"
CITATION = """```bibtex
@article{wang2024lift,
  title   = {LiFT: Leveraging Human Feedback for Text-to-Video Model Alignment},
  author  = {Wang, Yibin and Tan, Zhiyu and Wang, Junyan and Yang, Xiaomeng and Jin, Cheng and Li, Hao},
  journal = {arXiv preprint arXiv:2412.04814},
  year    = {2024}
}
```"""
_ROWS = """from datasets import load_dataset

rows = load_dataset("{repo}", split="{split}")
print(len(rows), rows[0])"""
_VIDEOS = """from datasets import Video, load_dataset

rows = load_dataset("{repo}", split="{split}").cast_column("video", Video(decode=False))
print(len(rows), {{name: value for name, value in rows[0].items() if name != "video"}})"""
_CACHE = """from lift_trl import stream_cached_videos

rows = iter(stream_cached_videos("{repo}"))
print(next(rows)["prompt"])
rows.close()"""
_CRITIC = """from lift_trl import LiFTCritic

critic = LiFTCritic.from_pretrained("{repo}")
score = critic.score(["fox.mp4"], ["A red fox runs through fresh snow."], with_reason=True)[0]
print(score.reward if score.unscored is None else score.unscored)
for judgement in score.judgements:
    print(judgement.dimension, judgement.label, judgement.probs, judgement.reason)"""
_REPORT = """from pathlib import Path

from huggingface_hub import snapshot_download

folder = Path(snapshot_download("{repo}", repo_type="dataset"))
print((folder / "report.md").read_text(encoding="utf-8"))"""


class CardPart(NamedTuple):
    """What a kind adds to its card: fields of the template, the snippet, and entries of the front matter."""

    fields: Mapping[str, str]
    snippet: str
    data: Mapping[str, Any]


def artifact_card(
    folder: Path | str,
    repo_id: str,
    *,
    license: str = "other",
    tags: Iterable[str] = (),
    datasets: Iterable[str] = (),
) -> str:
    """
    The README of an artefact as it stands in `repo_id`.

    Args:
        folder: with `artifact.yaml`.
        license: a licence of the Hub's list; `other` says that the parents' licences hold.
        tags, datasets: further ones, beside the kind's and those among the parents.

    Raises:
        FileNotFoundError: if the artefact is not finished.
        ValueError: if there is no card for its kind.
    """
    path = Path(folder)
    artifact = Artifact.load(path).published()
    if artifact.kind not in _PARTS:
        raise ValueError(f"{folder}: no card for a {artifact.kind} artefact; there is one for {', '.join(_PARTS)}.")
    part = _PARTS[artifact.kind](path, artifact)
    is_model = artifact.kind == "critic"
    data = {**part.data, "tags": kind_tags(artifact.kind, *tags)}
    if not is_model:
        data |= {"pretty_name": pretty_name(repo_id), "task_categories": TASKS.get(artifact.kind)}
    linked = [*(parent.repo_id for parent in hub_parents(artifact.parents, "dataset")), *datasets]
    if is_model and linked:
        data["datasets"] = list(dict.fromkeys(linked))
    card_class: type[ModelCard] | type[DatasetCard] = ModelCard if is_model else DatasetCard
    data_class: Any = ModelCardData if is_model else DatasetCardData
    card = card_class.from_template(
        data_class(license=license, **data),
        template_path=str(TEMPLATES / f"{artifact.kind}_card.md"),
        title=repo_id,
        snippet=part.snippet.format(repo=repo_id, **_split(path)),
        provenance=_provenance(artifact),
        rewards=_rewards(artifact.rubric),
        citation=CITATION,
        **part.fields,
    )
    return str(card)


def _provenance(artifact: Artifact) -> str:
    return Template((TEMPLATES / "_provenance.md").read_text(encoding="utf-8")).render(
        command=artifact.command,
        config=yaml.safe_dump(dict(artifact.config), sort_keys=False).strip(),
        parents=parent_table(artifact.parents) if artifact.parents else "",
        versions=", ".join(f"{package} {number}" for package, number in artifact.versions.items() if number),
    )


# ---- what each kind says of itself ---------------------------------------------------------------------------------------


def _split(folder: Path) -> dict[str, str]:
    """The split that the snippet names: `train` where there is one."""
    names = sorted(path.name.split("-")[0] for path in folder.glob("data/*.parquet"))
    return {"split": names[0] if names and "train" not in names else "train"}


def _hra(folder: Path, artifact: Artifact) -> CardPart:
    rows = list(_hra_rows(folder))
    counts: Counter[tuple[str, str]] = Counter()
    raters: set[str] = set()
    for row in rows:
        given: dict[str, list[tuple[str, str]]] = {}
        for rating in row["annotations"] or ():
            given.setdefault(rating["dimension"], []).append((rating["annotator"], rating["label"]))
        for dimension, ratings in given.items():
            once = one_a_rater(ratings, artifact.rubric)
            counts.update((dimension, label) for _, label in once)
            raters.update(rater for rater, _ in once)
    contents = {
        "clips": str(len(rows)),
        "of them real": str(sum(row["source"] == "real" for row in rows)),
        "ratings": str(counts.total()),
        "raters": str(len(raters)),
    }
    data = {"size_categories": [size_category(len(rows))]}
    return CardPart({"contents": _pairs(contents), "labels": _label_table(counts, artifact.rubric)}, _VIDEOS, data)


def _hra_rows(folder: Path) -> Iterable[Mapping[str, Any]]:
    """`source` and `annotations` of every clip, without reading a clip."""
    import pyarrow.parquet as pq

    for path in sorted(folder.glob("data/*.parquet")):
        yield from pq.read_table(path, columns=["source", "annotations"]).to_pylist()


def _generated(folder: Path, artifact: Artifact) -> CardPart:
    rows = list(read_rows(folder / METADATA_FILE))

    def values(name: str) -> str:
        found = sorted({str(row[name]) for row in rows if row.get(name) is not None})
        return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")

    contents = {"clips": str(len(rows)), "prompts": str(len({row["prompt"] for row in rows}))}
    names = ("model", "adapter", "num_frames", "height", "width", "fps", "num_inference_steps", "guidance_scale")
    contents |= {name.replace("_", " "): values(name) for name in names if values(name)}
    return CardPart({"contents": _pairs(contents)}, _VIDEOS, {"size_categories": [size_category(len(rows))]})


def _scored(folder: Path, artifact: Artifact) -> CardPart:
    rows = list(read_rows(folder / METADATA_FILE))
    rewards = [row["reward"] for row in rows if row.get("reward") is not None]
    rubric = artifact.rubric
    counts = Counter((d, row[d]) for row in rows for d in rubric.dimensions if row.get(d))
    contents = {
        "clips": str(len(rows)),
        "unscored": str(sum(row.get("unscored") is not None for row in rows)),
        "mean reward": f"{sum(rewards) / len(rewards):.4f}" if rewards else "none",
        "critic": str(artifact.config.get("critic", "")),
    }
    data = {
        "configs": [{"config_name": "default", "data_files": METADATA_FILE}],
        "size_categories": [size_category(len(rows))],
    }
    verdict, meaning = _VERDICT if rubric == LIFT else _OWN_VERDICT, _MEANING.format(rewards=_rewards(rubric))
    table = _label_table(counts, rubric)
    fields = {"contents": _pairs(contents), "labels": table, "verdict": verdict, "meaning": meaning}
    aspects = [row["aspects"] for row in rows if row.get("aspects")]
    if aspects:
        means = {name: sum(values[name] for values in aspects) / len(aspects) for name in aspects[0]}
        table = markdown_table(["aspect", "mean"], [[name, f"{mean:.3f}"] for name, mean in means.items()])
        fields |= {"labels": table, "verdict": _NATIVE_VERDICT, "meaning": _NATIVE_MEANING}
    return CardPart(fields, _ROWS, data)


#: What a scored row holds, and how its reward follows: of a critic, and of a judge with dimensions of its own.
_VERDICT = (
    "a label for each dimension of [LiFT](https://huggingface.co/papers/2412.04814), its probabilities, reasons and the "
    "reward"
)
_OWN_VERDICT = "a label for each dimension of the rubric in `artifact.yaml`, its probabilities, reasons and the reward"
_MEANING = "the mean over the dimensions of the labels' rewards ({rewards})"
_NATIVE_VERDICT = (
    "the values of the judge's own dimensions on its own scale (`aspects`), and the reward that they map to"
)
_NATIVE_MEANING = "the mean over the aspects, each mapped to [0, 1] as the scale behind the `+` of `critic` says"


def _cache(folder: Path, artifact: Artifact) -> CardPart:
    shards = list((folder / "shards").glob("*.parquet"))
    number = sum(1 for _ in read_rows(folder / METADATA_FILE))
    contents = {
        "clips": str(number),
        "shards": str(len(shards)),
        "size": f"{sum(path.stat().st_size for path in shards) / 1e6:.1f} MB",
    }
    data = {
        "configs": [{"config_name": "default", "data_files": "shards/*.parquet"}],
        "size_categories": [size_category(number)],
    }
    return CardPart({"contents": _pairs(contents)}, _CACHE, data)


def _critic(folder: Path, artifact: Artifact) -> CardPart:
    contents = {name.replace("_", " "): str(value) for name, value in artifact.config.items() if name != "dimensions"}
    state = folder / "trainer_state.json"
    log = json.loads(state.read_text(encoding="utf-8"))["log_history"] if state.is_file() else []
    last = next((line for line in reversed(log) if any("accuracy" in name for name in line)), None)
    last = last or next((line for line in reversed(log) if "eval_loss" in line), None)
    figures = {name: f"{value:.4f}" for name, value in (last or {}).items() if isinstance(value, float)}
    base = next((parent.repo_id for parent in hub_parents(artifact.parents, "model")), None)
    evaluation = folder / EVALUATION_FILE
    evaluated = evaluation.read_text(encoding="utf-8") if evaluation.is_file() else None
    fields = {
        "contents": _pairs(contents),
        "dimensions": ", ".join(map(words, artifact.rubric.dimensions)),
        "label_names": ", ".join(reversed(artifact.rubric.labels)),
        "figures": _pairs(figures) if figures else "Not evaluated." if evaluated is None else "",
        "evaluation": evaluated or "",
    }
    data: dict[str, Any] = {"library_name": "lift_trl", "pipeline_tag": _CRITIC_TASK[0]}
    data["base_model_relation"] = "adapter" if (folder / ADAPTER_CONFIG).is_file() else "finetune"
    return CardPart(fields, _CRITIC, data | ({"base_model": base} if base else {}) | _critic_index(folder))


_CRITIC_TASK = ("video-text-to-text", "Video-Text-to-Text")


def _critic_index(folder: Path) -> dict[str, Any]:
    """The figures of the critic's evaluation as `model-index`; nothing of one that was not evaluated."""
    file = folder / EVALUATION_FIGURES
    figures = [EvalRow(**{**row, "system": folder.name}) for row in read_rows(file)] if file.is_file() else []
    shown = [row for row in figures if row.metric.rpartition("/")[2] in _INDEXED]
    if not shown:
        return {}
    index = model_index(shown, model_name=folder.name, task=_CRITIC_TASK)
    name, results = model_index_to_eval_results(index)
    return {"model_name": name, "eval_results": results}


def _report(folder: Path, artifact: Artifact) -> CardPart:
    text = (folder / "report.md").read_text(encoding="utf-8")
    # Its headings go below the card's.
    return CardPart({"report": re.sub(r"^(#+ )", r"##\1", text, flags=re.MULTILINE)}, _REPORT, {"viewer": False})


def _pairs(values: Mapping[str, str]) -> str:
    return markdown_table(["", ""], [[name, value] for name, value in values.items()])


def _label_table(counts: Mapping[tuple[str, str], int], rubric: Rubric) -> str:
    labels = rubric.labels[::-1]
    rows = [[words(d), *(str(counts.get((d, label), 0)) for label in labels)] for d in rubric.dimensions]
    return markdown_table(["ratings", *labels], rows)


def _rewards(rubric: Rubric) -> str:
    return ", ".join(f"{label} {rubric.rewards[label]:g}" for label in reversed(rubric.labels))


_PARTS: Mapping[str, Callable[[Path, Artifact], CardPart]] = {
    "hra": _hra,
    "generated": _generated,
    "scored": _scored,
    "cache": _cache,
    "critic": _critic,
    "report": _report,
}


# ---- what the pages collect ----------------------------------------------------------------------------------------------


def votes_card(repo_id: str, first: str, second: str, rubric: Rubric = LIFT) -> str:
    """The card of the arena's votes."""
    questions = ", ".join([*map(words, rubric.dimensions), "overall"])
    return _page_card("votes_card.md", repo_id, "preference", first=first, second=second, questions=questions)


def comparison_card(repo_id: str, adapters: str) -> str:
    """The card of the comparison page's votes."""
    return _page_card("comparison_card.md", repo_id, "preference", adapters=adapters)


def ratings_card(repo_id: str, items: str, rubric: Rubric = LIFT) -> str:
    """The card of the annotation page's ratings."""
    asked = {"dimensions": ", ".join(map(words, rubric.dimensions)), "labels": ", ".join(rubric.labels)}
    return _page_card("ratings_card.md", repo_id, "lift-hra", items=items, **asked)


def _page_card(template: str, repo_id: str, tag: str, **fields: str) -> str:
    configs = [{"config_name": "default", "data_files": "votes/*.jsonl"}]
    card = DatasetCard.from_template(
        DatasetCardData(
            tags=kind_tags("votes", tag),
            license="other",
            pretty_name=pretty_name(repo_id),
            task_categories=TASKS["hra"],
            configs=configs,
        ),
        template_path=str(TEMPLATES / template),
        title=repo_id,
        snippet=_ROWS.format(repo=repo_id, split="train"),
        version=library_versions()["lift_trl"],
        citation=CITATION,
        **published(fields),
    )
    return str(card)
