import json
from collections import Counter

import pytest

from lift_trl.vbench.suite import DIMENSIONS, SUBSETS, find_suite, load_suite, select_dimensions


def test_sixteen_dimensions_in_two_groups():
    assert Counter(d.group for d in DIMENSIONS.values()) == {"quality": 7, "semantic": 9}
    assert sum(d.weight for d in DIMENSIONS.values() if d.group == "quality") == 6.5
    assert {name: len(names) for name, names in SUBSETS.items()} == {
        "all": 16, "no-detectron": 12, "quality": 7, "semantic": 9, "custom6": 6,
    }  # fmt: skip


def test_selection_is_in_official_order_and_refuses_what_is_unknown():
    assert select_dimensions(["scene", "color", "color"]) == ("color", "scene")
    assert select_dimensions("all") == tuple(DIMENSIONS)
    with pytest.raises(ValueError, match="colour.*no-detectron"):
        select_dimensions(["colour"])


def test_duplicate_prompts_become_one_with_the_first_text(suite_file):
    suite = load_suite(suite_file, prompt_set="lift_opt")
    assert len(suite.prompts) == 7
    (bund,) = [p for p in suite.prompts if p.prompt_en.startswith("the bund")]
    assert bund.text.startswith("Long text 3.")
    assert bund.dimensions == ("aesthetic_quality", "appearance_style", "overall_consistency")
    assert len(bund.rows) == 2 and all("prompt_opt" not in row for row in bund.rows)
    assert "first text wins" in suite.notes[0] and "case only" in suite.notes[1]


def test_prompt_sets(suite_file, tmp_path):
    assert load_suite(suite_file).prompts[0].text == "a cat"
    longer = tmp_path / "longer.txt"
    longer.write_text("\n".join(f"longer {i}" for i in range(8)))
    assert load_suite(suite_file, prompt_set="vbench_longer", longer_prompts=longer).prompts[0].text == "longer 0"
    longer.write_text("one line")
    with pytest.raises(ValueError, match="1 lines for the 8 rows"):
        load_suite(suite_file, prompt_set="vbench_longer", longer_prompts=longer)
    rows = json.loads(suite_file.read_text())
    del rows[2]["prompt_opt"]
    suite_file.write_text(json.dumps(rows))
    with pytest.raises(ValueError, match="prompt_opt"):
        load_suite(suite_file, prompt_set="lift_opt")


def test_the_suite_is_found_in_a_checkout_or_an_environment(tmp_path, suite_file):
    package = tmp_path / "env" / "lib" / "python3.11" / "site-packages" / "vbench"
    package.mkdir(parents=True)
    target = package / "VBench_full_info.json"
    target.write_text(suite_file.read_text())
    assert find_suite(tmp_path / "env") == find_suite(package) == find_suite(package.parent) == target
    with pytest.raises(FileNotFoundError, match="checkout"):
        find_suite(tmp_path)
    target.write_text('{"a": 1}')
    with pytest.raises(ValueError, match="not in the form"):
        load_suite(target)


@pytest.mark.real
def test_the_real_suite(real_data):
    (path,) = (real_data / "vbench").glob("*.json")
    rows = json.loads(path.read_text(encoding="utf-8"))
    texts: dict[str, list[str]] = {}
    for row in rows:
        texts.setdefault(row["prompt_en"], []).append(row["prompt_opt"])
    suite = load_suite(path, prompt_set="lift_opt")
    assert {prompt.prompt_en: prompt.text for prompt in suite.prompts} == {
        name: found[0] for name, found in texts.items()
    }
    assert sum(len(prompt.rows) for prompt in suite.prompts) == len(rows)
    differ = sum(len(set(found)) > 1 for found in texts.values())
    assert sum("first text wins" in note for note in suite.notes) == differ
    for names in SUBSETS.values():
        counted = {row["prompt_en"] for row in rows if set(row["dimension"]) & set(names)}
        assert {prompt.prompt_en for prompt in suite.prompts if set(names) & set(prompt.dimensions)} == counted
