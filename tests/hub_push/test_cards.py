"""Cards of every kind are what the Hub takes and shows, and their clips are there and play."""

import re
from html import escape
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, ModelCard, RepoCard, SpaceCard
from markdown_it import MarkdownIt

from lift_trl.alignment.reward_weighted_config import RewardWeightedVideoConfig
from lift_trl.critic.settings import CriticSettings
from lift_trl.hub.artifact_cards import (
    EVALUATION_FIGURES,
    EVALUATION_FILE,
    artifact_card,
    comparison_card,
    ratings_card,
    votes_card,
)
from lift_trl.hub.cards import AlignedModelCard, BaseModel, ObjectiveFacts
from lift_trl.hub.front_matter import TAGS, licence_of, with_licence
from lift_trl.hub.gallery import MAX_PAIRS, Pair, save_gallery
from lift_trl.hub.push import push
from lift_trl.report.data import ClipRow, Report, mean_row
from lift_trl.report.page import save_report
from lift_trl.store.manifest import Artifact, write_rows
from tests.hub.fixtures import LocalHub
from tests.hub_push.test_push import BASE_COMMIT, CONFIG, PARENTS, artefacts, clip  # noqa: F401  (a fixture)
from tests.structure.source import ROOT


BASE = "zai-org/CogVideoX-2b"
#: Kind -> class of its card.
KINDS = {
    **dict.fromkeys(("lora", "transformer", "critic", "whole critic"), ModelCard),
    **dict.fromkeys(("hra", "generated", "scored", "cache", "report", "votes", "comparison", "ratings"), DatasetCard),
    **dict.fromkeys(("annotate", "arena", "compare", "report's page"), SpaceCard),
}


def aligned(folder: Path, lora: dict[str, object] | None) -> str:
    """The trainer's card; on the Hub its base is known, and the clips' dataset."""
    base = BaseModel(BASE, f"{BASE}@{BASE_COMMIT}", "torch.float16", {"num_frames": 9}, 8, True, "transformer", "P")
    args = RewardWeightedVideoConfig(output_dir=str(folder), report_to="none", use_cpu=True)
    facts = ObjectiveFacts("rwl", "weighted", {}, "clips")
    cache = Artifact("cache", CONFIG, PARENTS)
    AlignedModelCard("user/lora", base, args, facts, None, lora, {}, cache, []).save(folder / "README.md")
    return (folder / "README.md").read_text()


def critic(folder: Path, *, adapter: bool) -> str:
    """An evaluated critic."""
    CriticSettings(num_frames=4).save(folder, parents=PARENTS)
    if adapter:
        (folder / "adapter_config.json").write_text("{}")
    (folder / EVALUATION_FILE).write_text("| | accuracy | Spearman |\n|---|---|---|\n| overall | 0.7 | 0.6 |\n")
    rows = [("critic/overall/accuracy", 0.7), ("critic/overall/spearman", 0.6), ("critic/overall/macro_f1", 0.5)]
    write_rows(
        folder / EVALUATION_FIGURES,
        [
            {"suite": "critic", "metric": m, "system": "runs/c", "value": v, "n": 24, "ci95": [0.4, 0.8]}
            for m, v in rows
        ],
    )
    return artifact_card(folder, "user/critic")


@pytest.fixture(scope="module")
def cards(artefacts, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:  # noqa: F811
    """A card of every kind; the report's page is pushed where a Hub is."""
    root = tmp_path_factory.mktemp("cards")
    cache = root / "cache"
    write_rows(cache / "metadata.jsonl", [{"id": "0"}])
    Artifact("cache", CONFIG, PARENTS).save(cache)
    return {
        "lora": aligned(root / "lora", {"r": 4, "lora_alpha": 4, "target_modules": ["to_q"]}),
        "transformer": aligned(root / "transformer", None),
        "critic": critic(root / "critic", adapter=True),
        "whole critic": critic(root / "whole", adapter=False),
        **{kind: artifact_card(folder, f"user/lift-{kind}_v2") for kind, folder in artefacts.items()},
        "cache": artifact_card(cache, "user/lift-cache_v2"),
        "votes": votes_card("user/lift-votes_v2", "base", "lift"),
        "comparison": comparison_card("user/lift-comparison_v2", "user/lora"),
        "ratings": ratings_card("user/lift-ratings_v2", "user/clips"),
        **{name: (ROOT / "spaces" / name / "README.md").read_text() for name in ("annotate", "arena", "compare")},
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_card_is_what_the_hub_takes(kind: str, cards: dict[str, str], artefacts, hub: LocalHub, tmp_path: Path):  # noqa: F811
    if kind == "report's page":
        (artefacts["report"] / "report.html").write_text("<h1>It helped</h1>")
        push(artefacts["report"], "dev/card-report", private=True)
        cards = {kind: hub.read("dev/card-report", "README.md", repo_type="space").decode()}
    card = KINDS[kind](cards[kind])
    card.validate()  # raises
    data = card.data.to_dict()
    assert tuple(data["tags"][: len(TAGS)]) == TAGS and data["tags"][len(TAGS)].startswith("lift-")
    assert data["license"] == ("apache-2.0" if kind in ("annotate", "arena", "compare") else "other")
    if KINDS[kind] is ModelCard:
        assert (
            data["base_model"] == BASE
            and data["datasets"] == ["user/hra"]
            and data["pipeline_tag"]
            and data["library_name"]
        )
        assert data["base_model_relation"] == ("adapter" if kind in ("lora", "critic") else "finetune")
    if KINDS[kind] is DatasetCard:
        assert data["pretty_name"] == f"lift {kind} v2"
    if kind in ("hra", "generated", "scored", "cache"):
        assert data["task_categories"] and data["size_categories"] == ["n<1K"]
    # As a page: every table is one, and nothing of Markdown is left over.
    html = rendered(RepoCard(cards[kind]), "files")
    assert "|---" not in re.sub(r"<pre>.*?</pre>", "", html, flags=re.DOTALL).replace(" ", "")
    assert html.count("<h1>") == (0 if kind == "report's page" else 1)


@pytest.mark.parametrize(
    ("cls", "front", "field"),
    [
        (ModelCard, "license: apache2", "license.* must be one of"),
        (ModelCard, "license: mit\nlicense_name: mine", "need .*license: other"),
        (ModelCard, "license: other\nlicense_link: terms.txt", "license_link"),
        (ModelCard, "base_model_relation: lora", "base_model_relation"),
        (ModelCard, "base_model: runs/mini/world", "base_model"),
        (ModelCard, "widget:\n- text: a fox\n  output: fox.mp4", "widget|output"),
        (ModelCard, "pipeline_tag: video", "pipeline_tag"),
        (DatasetCard, "task_categories: [rating]", "task_categories"),
        (DatasetCard, "size_categories: [small]", "size_categories"),
        (DatasetCard, "tags: lift", "tags"),
        (SpaceCard, f"title: t\nsdk: static\nshort_description: {'x' * 61}", "short_description"),
        (SpaceCard, "title: t", "sdk"),
    ],
)
def test_the_check_of_the_local_hub_can_fail(cls: type[RepoCard], front: str, field: str, hub: LocalHub):
    with pytest.raises(ValueError, match=field):
        cls(f"---\n{front}\n---\n", ignore_metadata_errors=True).validate()


def test_a_card_that_the_hub_refuses_is_refused_before_anything_is_sent(artefacts, hub: LocalHub):  # noqa: F811
    with pytest.raises(ValueError, match="license.* must be one of"):
        push(artefacts["generated"], "dev/card-refused", license="apache", private=True)
    assert hub.requests("POST", "/repos/create|preupload|/commit/") == []


def test_a_critics_card_has_accuracy_and_order_in_figures(cards: dict[str, str]):
    card = ModelCard(cards["critic"])
    assert "| overall | 0.7 | 0.6 |" in card.text
    found = {result.metric_type: result for result in card.data.eval_results}
    assert {name: result.metric_value for name, result in found.items()} == {
        "critic/overall/accuracy": 0.7, "critic/overall/spearman": 0.6,
    }  # fmt: skip
    spearman = found["critic/overall/spearman"]
    assert spearman.task_type == "video-text-to-text"
    assert spearman.metric_name == "overall/spearman (95% interval 0.4000 to 0.8000, n=24)"


NAMELESS = ("other", "same-as-base-model", "{hub}/dev/terms")


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ("license: mit", ("mit",)),
        (
            "license: other\nlicense_name: cog\nlicense_link: https://example.org/t",
            ("other", "cog", "https://example.org/t"),
        ),
        # A file beside the base's card is not beside the LoRA's.
        (
            "license: other\nlicense_name: c\nlicense_link: LICENSE",
            ("other", "c", "{hub}/dev/terms/blob/main/LICENSE"),
        ),
        ("license: other", NAMELESS),
        ("tags: [x]", NAMELESS),
    ],
)
def test_the_terms_are_the_bases(terms: str, expected: tuple[str, ...], hub: LocalHub):
    hub.api().create_repo("dev/terms", exist_ok=True)
    readme = f"---\n{terms}\n---\n".encode()
    hub.api().upload_file(path_or_fileobj=readme, path_in_repo="README.md", repo_id="dev/terms")
    names = ("license", "license_name", "license_link")
    assert licence_of(hub.api(), "dev/terms") == dict(
        zip(names, (value.format(hub=hub.endpoint) for value in expected))
    )


@pytest.mark.parametrize(
    "own", ["license: mit", "license: other\nlicense_name: mine\nlicense_link: https://example.org/mine"]
)
def test_a_card_keeps_terms_of_its_own(own: str, hub: LocalHub):
    hub.api().create_repo("dev/terms", exist_ok=True)
    hub.api().upload_file(
        path_or_fileobj=b"---\nlicense: apache-2.0\n---\n", path_in_repo="README.md", repo_id="dev/terms"
    )
    given = ModelCard(f"---\n{own}\nbase_model: dev/terms\n---\n# lora\n")
    assert ModelCard(with_licence(hub.api(), str(given))).data.to_dict() == given.data.to_dict()
    bare = "---\nlicense: other\nbase_model: dev/terms\n---\n# lora\n"
    assert ModelCard(with_licence(hub.api(), bare)).data.license == "apache-2.0"


# ---- the clips of a LoRA's card ------------------------------------------------------------------------------------------


def rendered(card: RepoCard, files: str) -> str:
    """The card as the Hub shows it; its gallery is the clip of each entry of `widget` with its words."""
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(card.text)
    entries = card.data.to_dict().get("widget") or []
    figures = "".join(
        f'<figure><video src="{files}/{entry["output"]["url"]}" muted autoplay loop controls></video>'
        f"<figcaption>{escape(entry['text'])}</figcaption></figure>"
        for entry in entries
    )
    return html.replace("<Gallery />", figures)


@pytest.fixture
def lora_with_clips(tmp_path: Path, hub: LocalHub) -> Path:
    """A LoRA of a base with terms of its own; the second prompt's training was cut before its first validation."""
    base = "dev/gallery-base"
    hub.api().create_repo(base, exist_ok=True)
    terms = "license: other\nlicense_name: cog-license\nlicense_link: https://example.org/terms"
    hub.api().upload_file(path_or_fileobj=f"---\n{terms}\n---\n".encode(), path_in_repo="README.md", repo_id=base)
    folder = tmp_path / "lora"
    for number, (name, prompt) in enumerate(
        [
            ("00-aa/base", "a fox"),
            ("00-aa/step-9", "a fox"),
            ("00-aa/step-10", "a fox"),
            ("01-bb/base", "a hen"),
            ("02-cc/base", "a cow"),
            ("02-cc/step-10", "a cow"),
        ]
    ):
        path = clip(folder / "validation" / f"{name}.mp4", 40 * number)
        (path.parent / "prompt.txt").write_text(prompt)
    (folder / "pytorch_lora_weights.safetensors").write_bytes(b"weights")
    card = f"---\nbase_model: {base}\nlicense: other\n---\n# runs/lora\n\nA LoRA.\n\n## Use\n\nSo.\n"
    (folder / "README.md").write_text(card)
    return folder


def test_a_loras_card_shows_clips_of_the_base_beside_its_own(lora_with_clips: Path, hub: LocalHub):
    push(lora_with_clips, "dev/gallery-lora", private=False)
    card = ModelCard.load("dev/gallery-lora")
    assert (card.data.license, card.data.license_name) == ("other", "cog-license")
    assert card.data.license_link == "https://example.org/terms"
    assert "A LoRA.\n\n<Gallery />\n\n## Use" in card.text
    # Two prompts have both clips; of the steps the last by number.
    assert [(entry["text"], entry["output"]["url"]) for entry in card.data.widget] == [
        ("a fox (base model)", "gallery/00-base.mp4"), ("a fox (this model)", "gallery/00-aligned.mp4"),
        ("a cow (base model)", "gallery/01-base.mp4"), ("a cow (this model)", "gallery/01-aligned.mp4"),
    ]  # fmt: skip
    validation = lora_with_clips / "validation"
    assert hub.read("dev/gallery-lora", "gallery/00-aligned.mp4") == (validation / "00-aa/step-10.mp4").read_bytes()
    assert hub.read("dev/gallery-lora", "gallery/01-base.mp4") == (validation / "02-cc/base.mp4").read_bytes()
    push(lora_with_clips, "dev/gallery-lora", private=False, license="mit")
    again = ModelCard.load("dev/gallery-lora")
    assert again.data.license == "mit" and again.text.count("<Gallery />") == 1


@pytest.mark.browser
def test_the_clips_of_a_card_play(lora_with_clips: Path, hub: LocalHub, chromium: str):
    from playwright.sync_api import sync_playwright

    push(lora_with_clips, "dev/gallery-play", private=False)
    html = rendered(ModelCard.load("dev/gallery-play"), f"{hub.endpoint}/dev/gallery-play/resolve/main")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_content(html)
        page.wait_for_function(
            "[...document.querySelectorAll('figure video')].filter((v) => v.currentTime > 0).length === 4"
        )
        assert page.locator("figcaption").all_inner_texts()[2:] == ["a cow (base model)", "a cow (this model)"]
        browser.close()


def test_a_gallery_is_that_of_the_last_call(tmp_path: Path):
    """Files and entries of pairs that are shown no more go; more than eight pairs are too many for a card."""
    folder = tmp_path / "lora"
    own = folder / "gallery" / "my_photos" / "00-base.mp4"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    (own.parents[1] / "fox-base.mp4").write_bytes(b"mine too")
    pairs = [
        Pair(f"prompt {n}", clip(tmp_path / f"b{n}.mp4", 10 * n), clip(tmp_path / f"a{n}.mp4", 10 * n + 5))
        for n in range(MAX_PAIRS + 1)
    ]
    card = ModelCard("---\nlicense: other\n---\n# lora\n\nA LoRA.\n\n## Use\n")
    save_gallery(folder / "README.md", card, pairs)
    assert len(card.data.widget) == 2 * MAX_PAIRS == len(list((folder / "gallery").glob("0?-*.mp4")))
    save_gallery(folder / "README.md", card, pairs[2:4])
    assert {path.name: path.read_bytes() for path in (folder / "gallery").glob("0?-*.mp4")} == {
        "00-base.mp4": pairs[2].base.read_bytes(), "00-aligned.mp4": pairs[2].aligned.read_bytes(),
        "01-base.mp4": pairs[3].base.read_bytes(), "01-aligned.mp4": pairs[3].aligned.read_bytes(),
    }  # fmt: skip
    assert [entry["text"] for entry in card.data.widget][1:3] == ["prompt 2 (this model)", "prompt 3 (base model)"]
    assert card.text.count("<Gallery />") == 1
    assert own.read_bytes() == b"mine" and (own.parents[1] / "fox-base.mp4").read_bytes() == b"mine too"


def test_a_gallery_that_is_killed_leaves_a_card_with_its_clips(tmp_path: Path, monkeypatch):
    """Whatever was done last: each clip that the card on the disk shows is there."""
    readme = tmp_path / "README.md"
    readme.write_text("---\nlicense: other\n---\n# lora\n\nA LoRA.\n\n## Use\n")
    clips = [clip(tmp_path / f"{n}.mp4", 30 * n) for n in range(3)]
    save_gallery(readme, ModelCard.load(readme), [Pair(f"prompt {n}", clips[n], clips[n]) for n in range(3)])

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    for name in ("pathlib.Path.replace", "lift_trl.hub.gallery.write_text", "pathlib.Path.unlink"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(name, killed)
            save_gallery(readme, ModelCard.load(readme), [Pair("one", clips[2], clips[1])])
        shown = [entry["output"]["url"] for entry in ModelCard.load(readme).data.widget]
        assert len(shown) == (2 if name.endswith("unlink") else 6) and all(
            (tmp_path / file).is_file() for file in shown
        )


def test_the_clips_of_a_report_go_with_the_card(lora_with_clips: Path, hub: LocalHub, tmp_path: Path):
    """What the card shows is in the repository, as the report chose it; what an earlier report left is not."""
    prompts = ["a fox", "a hen | a cow"]
    rows = tuple(
        ClipRow(p, {s: clip(tmp_path / f"{s}{n}.mp4", 20 * n + 7 * k) for k, s in enumerate(("base", "rwl"))})
        for n, p in enumerate(prompts)
    )
    figures = (mean_row("reward", "mean_reward", "rwl", {"a": 0.5, "b": 0.7}, {"a": "a", "b": "b"}),)
    report = Report("t", "base", rows=figures, clips=rows, cards={"rwl": lora_with_clips})
    save_report(report, tmp_path / "report")
    (lora_with_clips / "gallery" / "07-base.mp4").write_bytes(b"of an earlier report")
    push(lora_with_clips, "dev/gallery-report", private=False)
    card = ModelCard.load("dev/gallery-report")
    shown = [entry["output"]["url"] for entry in card.data.widget]
    there = [name for name in hub.api().list_repo_files("dev/gallery-report") if name.startswith("gallery/")]
    assert sorted(shown) == sorted(there) and len(shown) == 4
    assert hub.read("dev/gallery-report", shown[3]) == rows[1].clips["rwl"].read_bytes()
    assert card.data.eval_results[0].metric_value == pytest.approx(0.6)
    (lora_with_clips / shown[2]).unlink()
    with pytest.raises(ValueError, match=r"README.md shows gallery/01-base.mp4, which is not there"):
        push(lora_with_clips, "dev/gallery-report", private=False)


def test_a_card_that_was_written_anew_shows_the_clips_of_its_training(lora_with_clips: Path, hub: LocalHub):
    """The trainer's card knows nothing of a gallery that an earlier report left in the folder."""
    (lora_with_clips / "gallery").mkdir()
    (lora_with_clips / "gallery" / "00-base.mp4").write_bytes(b"of an earlier report")
    push(lora_with_clips, "dev/gallery-anew", private=False)
    validation = lora_with_clips / "validation"
    assert hub.read("dev/gallery-anew", "gallery/00-base.mp4") == (validation / "00-aa/base.mp4").read_bytes()
    assert len(ModelCard.load("dev/gallery-anew").data.widget) == 4
