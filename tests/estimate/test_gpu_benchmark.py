"""`benchmarks/gpu.py` on a CPU, whose rates `lift-trl estimate` then reads."""

import json
import re
import sys
import time

import torch
import yaml

from benchmarks import gpu
from lift_trl.cli import main
from lift_trl.mini.checkpoints import WEIGHTS


PARTS = ["cogvideox align, batch 1", "cogvideox align, batch 2", "cogvideox cache, batch 1",
         "cogvideox generate, batch 1", "wan align, batch 1", "wan align, batch 2"]  # fmt: skip


def test_every_part_runs_and_its_rates_are_read(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--tiny", "--gpu", "h100", "--out", str(tmp_path)])
    failed = gpu.main()
    printed = capsys.readouterr().out
    assert not failed, printed
    lines = dict(line.split(": ", 1) for line in printed.splitlines()[1:])
    assert list(lines) == PARTS
    numbers = {name: re.fullmatch(r"(\S+) GB counted, not measured on a CPU; (\S+) s counted, (\S+) measured", text)
               for name, text in lines.items()}  # fmt: skip
    gb, counted, measured = zip(*([float(one) for one in found.groups()] for found in numbers.values()), strict=True)
    assert gb[1] > gb[0] > 0 and gb[5] > gb[4] and counted[1] > counted[0] > 0 and min(measured) > 0

    card = yaml.safe_load((tmp_path / "rates.yaml").read_text())["h100"]
    assert (card["source"], card["price"]) == ("measured", 3.0)  # the price of the card that estimate knows
    recipe = {"model_name_or_path": str(WEIGHTS / "video_model"), "num_frames": 9, "height": 48, "width": 48}
    (tmp_path / "cache.yaml").write_text(yaml.safe_dump(recipe))
    options = ["--gpu", "h100", "--rates", str(tmp_path / "rates.yaml"), "--clips", "1", "--prompts", "1", "--json"]
    assert main(["estimate", "--config", str(tmp_path / "cache.yaml"), *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["rates"] == "measured"
    assert f"{report['parts'][1]['seconds']:.3g}" == f"{counted[2]:.3g}"  # as the benchmark printed it


def test_a_part_that_fails_or_takes_too_long_is_named_and_passed_over(capsys):
    failed: list[str] = []
    with gpu.attempt("large", 5, failed):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
    with gpu.attempt("slow", 1, failed):
        time.sleep(3)
    with gpu.attempt("good", 5, failed):
        print("good")
    assert failed == ["large", "slow"]
    assert capsys.readouterr().out.splitlines() == [
        "large: FAILED, OutOfMemoryError: CUDA out of memory.",
        "slow: FAILED, TimeoutError: took more than its 1 s",
        "good",
    ]
