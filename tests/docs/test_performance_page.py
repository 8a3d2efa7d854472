"""docs/performance.md is written by one command."""

import re

import pytest

from benchmarks import growth, performance


def test_the_page_takes_what_the_parts_printed_and_keeps_the_rest(tmp_path, monkeypatch, capsys):
    """A part that is there is not run again; one that is not there is named as such."""
    page, out = tmp_path / "page.md", tmp_path / "parts"
    page.write_text(f"# Speed\n\n{performance.BEGIN}\nold\n{performance.END}\n\nThe end.\n")
    out.mkdir()
    (out / "growth.txt").write_text(
        "2 cores (x86_64), load 1.0 before and 2.0 after\n| CPU ms | 100 rows |\n|---|---|\nratio 1.02\n"
    )
    monkeypatch.setattr("sys.argv", ["performance.py", "--parts", "growth", "--page", str(page), "--out", str(out)])
    performance.main()
    text = page.read_text()
    assert text.startswith("# Speed") and text.endswith("The end.\n") and "\nold\n" not in text
    assert "load 1.0 before" in text and "| CPU ms | 100 rows |\n|---|---|\n\n```text\nratio 1.02\n```" in text
    assert text.count("not measured yet") == len(performance.PARTS) - 1
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="no section between"):
        performance.main()


def test_growth_measures_each_kind_of_row(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["growth.py", "--tiny"])
    growth.main()
    found = dict(re.findall(r"^growth_(\w+) (\S+)$", capsys.readouterr().out, flags=re.MULTILINE))
    assert set(found) == {"scoring", "scoring_again", "inspect", "cache_index", "report"}
    assert all(float(ratio) > 0 for ratio in found.values())  # a bound is the benchmark's own, at its true sizes
