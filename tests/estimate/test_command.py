"""`lift-trl estimate`, cards and batch settings."""

import json
import logging
import re
from dataclasses import dataclass

import pytest
import torch
import yaml

from lift_trl.alignment.reward_weighted_config import LoraArguments, RewardWeightedVideoConfig
from lift_trl.cli import main
from lift_trl.estimate.gpus import find_gpu, load_gpus, overheads
from lift_trl.estimate.options import spared_imports
from lift_trl.estimate.plan import Job, largest_batch
from lift_trl.estimate.planners import read_plan
from lift_trl.estimate.weightless.meter import Count
from lift_trl.recipe_parser import RecipeParser
from tests.critic.tiny_models import build_vlm
from tests.estimate.mid_size import SIZE
from tests.estimate.written import write
from tests.own_rubric import SIGNS
from tests.structure.source import RECIPES
from tests.structure.test_recipe_configs import load_recipe


MINI = RECIPES / "configs" / "mini"


@dataclass
class AlignLike:
    """What recipes/align.py asks for by itself."""

    model_name_or_path: str
    cache: str


@pytest.fixture
def align_yaml(tiny, tmp_path):
    size = {"num_frames": SIZE.num_frames, "height": SIZE.height, "width": SIZE.width}
    return write(
        tmp_path / "align_small.yaml", model_name_or_path=str(tiny), cache="runs/cache", lora_r=16, clips_per_step=64,
        per_device_train_batch_size=4, num_train_epochs=3, output_dir="runs/lora", **size,
    )  # fmt: skip


def test_report_as_json(align_yaml, capsys, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)  # no count may go to a GPU
    assert (
        main(["estimate", "--config", str(align_yaml), "--gpu", "h100", "--num-gpus", "2", "--clips", "640", "--json"])
        == 0
    )
    report = json.loads(capsys.readouterr().out)
    (step,) = report["parts"]
    assert step["runs"] == 640 / 4 * 3
    assert step["total_gb"] == pytest.approx(sum(step["memory_gb"].values()) + sum(step["overheads_gb"].values()))
    assert "gradients' buckets of DDP" in step["overheads_gb"]
    assert report["hours"] == pytest.approx(step["seconds"] * 480 / 2 / 0.95 / 3600)
    assert report["price_usd"] == pytest.approx(report["hours"] * 2 * find_gpu("h100").price)
    assert report["notes"] == ["64 clips a step: 4 on each of 2 cards, accumulated 8 times"]
    assert report["fits"] and report["rates"] == "assumed"
    assert logging.getLogger("lift_trl").isEnabledFor(logging.WARNING)  # what runs next warns again


@pytest.mark.parametrize(
    "name, settings, kept",
    [
        ("cache", {}, set()),
        ("align_rwl", {"quantization": "int8"}, {"torchao"}),
        ("align_kto", {"second_judge": "video_reward"}, {"datasets", "torchvision"}),
        ("iterate", {}, {"datasets", "torchvision"}),
        ("train_critic", {}, {"datasets", "torchvision"}),
    ],
)
def test_a_count_does_without_what_it_does_not_run(tmp_path, name, settings, kept):
    everything = {"scipy", "torchao", "datasets", "torchvision"}
    assert {*spared_imports(str(write(tmp_path / f"{name}.yaml", **settings)), None)} == everything - kept


def test_it_warns_and_does_not_refuse(align_yaml, tmp_path, capsys):
    card = write(tmp_path / "rates.yaml", toy={"memory_gb": 0.6, "attention": 1, "matmul": 1, "conv": 1, "traffic": 0.1,
                                                "price": 0, "source": "measured"})  # fmt: skip
    assert main(["estimate", "--config", str(align_yaml), "--gpu", "toy", "--rates", str(card)]) == 0
    out = capsys.readouterr().out
    assert "DOES NOT FIT" in out and "WARNING: out of memory" in out and "largest batch that fits: none" in out
    assert "measured" in out.splitlines()[-2]


def test_cache_and_generation(mid_size, tmp_path, capsys):
    common = {"model_name_or_path": str(mid_size), "num_frames": 9, "height": 96, "width": 128, "output_dir": "runs/x"}
    cache = write(tmp_path / "cache.yaml", videos=["clips"], **common)
    assert main(["estimate", "--config", str(cache), "--gpu", "t4", "--clips", "70", "--prompts", "7", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["disk_gb"]["posteriors"] == pytest.approx(70 * 2 * (3 * 8 * 24 * 32) * 2 / 1e9)
    assert [part["runs"] for part in report["parts"]] == [7, 70]
    sample = write(tmp_path / "generate.yaml", prompts="p.txt", num_inference_steps=20, batch_size=2, **common)
    assert main(["estimate", "--config", str(sample), "--gpu", "t4", "--videos", "10", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["parts"][1]["runs"] == 5 and report["parts"][1]["tflop"] > 0


@pytest.mark.parametrize(
    "options, message",
    [
        (["--gpu", "h1000"], "gpu 'h1000' is unknown; there are h200"),
        (["--gpu", "h100", "--num-gpus", "0"], "give 1 or more"),
        (["--gpu", "h100", "--stage", "aline"], "--stage"),
    ],
)
def test_wrong_options_are_named(align_yaml, capsys, options, message):
    assert main(["estimate", "--config", str(align_yaml), *options]) == 1
    assert message in capsys.readouterr().err


def test_rates_over_the_table(tmp_path):
    gpu = load_gpus(write(tmp_path / "r.yaml", h100={"matmul": 700, "source": "measured"}))["h100"]
    assert (gpu.matmul, gpu.source, gpu.attention) == (700, "measured", find_gpu("h100").attention)
    assert gpu.seconds(Count(matmul_flops=7e14, traffic_bytes=2.7e12)) == pytest.approx(2.0)
    for wrong, message in (
        ({"h100": {"speed": 1}}, "speed"),
        ({"x": {"matmul": 1}}, "missing"),
        (["h100"], "no table"),
    ):
        (tmp_path / "w.yaml").write_text(yaml.safe_dump(wrong))
        with pytest.raises(ValueError, match=message):
            load_gpus(tmp_path / "w.yaml")


def test_rates_are_numbers_as_people_write_them(tmp_path):
    (tmp_path / "r.yaml").write_text("h100: {matmul: 6e2, price: '3', traffic: 1e0, source: measured}\n")
    gpu = load_gpus(tmp_path / "r.yaml")["h100"]  # 6e2 is text to PyYAML
    assert (gpu.matmul, gpu.price, gpu.traffic) == (600.0, 3.0, 1.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("price: -5", "price=-5; give US dollars"), ("price: two", "price: 'two' is of another type; give a number"),
        ("price: null", "price: None"), ("price: .inf", "price=inf"), ("price: .nan", "price=nan"),
        ("memory_gb: .inf", "memory_gb=inf; give a number above 0"), ("memory_gb: .nan", "memory_gb=nan"),
        ("matmul: true", "matmul: True is of another type"), ("matmul: [600]", r"matmul: \[600\]"),
        ("source: 5", "source: 5"), ("matmul: 600, matmul: 700", "line 1: matmul stands in line 1 too"),
        ("memory_gb: 1e400", "memory_gb=inf"),
    ],
)  # fmt: skip
def test_a_rate_that_is_no_rate_is_named(values, message, tmp_path):
    (tmp_path / "r.yaml").write_text(f"h100: {{{values}}}\n")
    with pytest.raises(ValueError, match=f"r.yaml: .*{message}"):
        load_gpus(tmp_path / "r.yaml")


@pytest.mark.parametrize("line", ["num_frames: 49.5", "height: true", "batch_size: '4.5'"])
def test_a_count_of_another_type_is_named_with_the_file(line, tmp_path, capsys):
    (tmp_path / "cache.yaml").write_text(f"model_name_or_path: m\noutput_dir: o\n{line}\n")
    assert main(["estimate", "--config", str(tmp_path / "cache.yaml"), "--gpu", "h100"]) == 1
    error = capsys.readouterr().err
    assert f"cache.yaml: {line.split(':')[0]}: " in error and "a whole number" in error


def test_largest_batch_fits_and_the_next_does_not():
    gpu = find_gpu("rtx4090")
    one, two = (Count(peaks={"run": {"weights": 4e9, "activations": n * 3e9}}) for n in (1, 2))

    def total(batch):
        count = Count(peaks={"run": {"weights": 4e9, "activations": batch * 3e9}})
        return count.peak_bytes + sum(overheads(count).values())

    batch = largest_batch(one, two, gpu)
    assert total(batch) <= gpu.memory_gb * 1e9 < total(batch + 1)


def config(tmp_path, **settings):
    return RewardWeightedVideoConfig(str(tmp_path), report_to=[], **settings)


def test_accumulation_follows_from_the_clips_of_a_step(tmp_path):
    assert config(tmp_path, per_device_train_batch_size=2, clips_per_step=64).gradient_accumulation_steps == 32
    with pytest.raises(ValueError, match="cannot be made of 6 clips at a time.*Nearest: 66"):
        config(tmp_path, per_device_train_batch_size=6, clips_per_step=64)
    for steps in (1, 8):
        with pytest.raises(ValueError, match=f"gradient_accumulation_steps={steps} and clips_per_step=64 contradict"):
            config(tmp_path, per_device_train_batch_size=2, clips_per_step=64, gradient_accumulation_steps=steps)
    assert config(tmp_path, clips_per_step=24, gradient_accumulation_steps=3).gradient_accumulation_steps == 3
    assert config(tmp_path).gradient_accumulation_steps == 1


def test_settings_by_memory(tmp_path):
    by_memory = {16: {"per_device_train_batch_size": 2}, 80: {"per_device_train_batch_size": 4, "learning_rate": 0.5}}
    small, large = (config(tmp_path, memory_gb=n, by_memory=by_memory, clips_per_step=64) for n in (24, 80))
    assert (small.per_device_train_batch_size, small.gradient_accumulation_steps) == (2, 32)
    assert (large.per_device_train_batch_size, large.gradient_accumulation_steps, large.learning_rate) == (4, 16, 0.5)
    for wrong, message in (({"memory_gb": 8, "by_memory": by_memory}, "less than 16 GB"), ({"memory_gb": 8}, "go together"),
                           ({"memory_gb": 16, "by_memory": by_memory, "per_device_train_batch_size": 3},
                            "per_device_train_batch_size=3 stands beside by_memory, which has 2 for 16 GB")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            config(tmp_path, **wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch": 2}, "batch is no setting"),
        ({"to_dict": 5}, "to_dict is no setting"),
        ({"memory_gb": 3}, "memory_gb is no setting"),
        ({"quantization": "int3"}, "int3"),
        ({"caption_dropout": 7}, "caption_dropout=7"),
        ({"objective": "nope"}, "nope"),
        ({"validation_steps": 5}, "validation_prompts is empty"),
    ],
)
def test_settings_by_memory_are_checked_as_all_are(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, memory_gb=16, by_memory={16: wrong})
    if "is no setting" in message:  # whatever the card
        with pytest.raises(ValueError, match=message):
            config(tmp_path, memory_gb=16, by_memory={16: {}, 80: wrong})


@pytest.mark.parametrize("name", ["align_rwl", "iterate"])
def test_the_command_line_goes_before_the_settings_by_memory(name, tmp_path, monkeypatch):
    path = RECIPES / "configs" / "cogvideox-2b" / f"{name}.yaml"
    arguments = load_recipe(RECIPES / f"{name.partition('_')[0]}.py").ARGUMENTS
    monkeypatch.chdir(tmp_path)

    def read(*words):
        words = ["--config", str(path), "--use_cpu", "true", *words]
        args = RecipeParser(arguments).parse_args_and_config(words)[2]
        return args.per_device_train_batch_size, args.gradient_accumulation_steps, args.activation_checkpointing

    assert read() == ((2, 32, True) if name == "align_rwl" else (4, 16, True))  # for 16 and for 24 GB
    assert read("--memory_gb", "80") == (1, 64, False)
    assert read("--memory_gb", "24", "--per_device_train_batch_size", "1") == (1, 64, True)
    assert read("--memory_gb", "80", "--per_device_train_batch_size", "8") == (8, 8, False)  # 8 is stock's default
    assert read("--memory_gb", "80", "--activation_checkpointing", "true") == (1, 64, True)
    assert read("--memory_gb", "24", "--activation_checkpointing=false") == (4, 16, False)
    with pytest.raises(ValueError, match="gradient_accumulation_steps=1 and clips_per_step=64 contradict"):
        read("--gradient_accumulation_steps", "1")


def test_a_recipe_counts_itself_and_stops(align_yaml, capsys, monkeypatch):
    """With the options of its command line, before anything is loaded; it warns and does not refuse."""
    parser = RecipeParser((LoraArguments, RewardWeightedVideoConfig, AlignLike))
    parser.prog = "align.py"
    words = ["--config", str(align_yaml), "--use_cpu", "true", "--per_device_train_batch_size", "2"]
    with pytest.raises(SystemExit) as left:
        parser.parse_args_and_config([*words, "--dry_run", "t4"])
    out = capsys.readouterr().out
    assert left.value.code == 0 and "training step of 2 clips" in out and "lift-trl estimate takes yours" in out
    assert parser.parse_args_and_config(words)[1].per_device_train_batch_size == 2  # without it, a run
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as left:
        parser.parse_args_and_config([*words, "--dry_run", "t4"])
    assert left.value.code == 1 and "run the recipe with python" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("evaluate", ["--config", str(MINI / "evaluate.yaml")], "evaluate.py runs is not counted: VBench.*recipes/score.py"),
        ("score", ["--videos", "x", "--output_dir", "y", "--critic", "a/b/c"], "score.py: critic 'a/b/c' is no folder"),
        ("align", ["--model_name_or_path", "no/such/model", "--cache", "x", "--output_dir", "y"], "no/such/model"),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_counted_says_why_and_stops(name, words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no YAML of anybody lies beside
    parser = RecipeParser(load_recipe(RECIPES / f"{name}.py").ARGUMENTS)
    parser.prog = f"{name}.py"
    with pytest.raises(SystemExit) as left:
        parser.parse_args_and_config([*words, "--dry_run", "h100"])
    out, error = capsys.readouterr()
    assert left.value.code == 1 and out == "" and re.search(rf"^{name}.py: error: --dry_run: .*{message}", error)


def test_an_evaluation_is_not_counted_and_says_what_is(tmp_path, capsys):
    config = write(tmp_path / "evaluate.yaml", systems=["a=b"])
    assert main(["estimate", "--config", str(config), "--gpu", "h100"]) == 1
    assert "recipes/evaluate.py runs is not counted" in capsys.readouterr().err


def test_a_critic_that_is_not_trained_yet_is_the_one_beside(tmp_path, capsys, monkeypatch):
    vlm = tmp_path / "vlm"
    build_vlm("internvl", save_directory=vlm)
    common = {
        "model_name_or_path": str(vlm),
        "use_peft": True,
        "lora_r": 8,
        "num_frames": 2,
        "output_dir": "runs/critic",
    }
    (tmp_path / "a").mkdir()
    own = {
        "bf16": True,
        "per_device_train_batch_size": 2,
        "gradient_checkpointing": False,
        "preferences": "runs/votes",
    }
    write(tmp_path / "a" / "train_critic.yaml", **own, **common)
    score = write(
        tmp_path / "score.yaml", critic="runs/critic", videos="runs/x", output_dir="runs/y", batch_size=3,
        quantization="int8",
    )  # fmt: skip
    nested = tmp_path / "b" / "score.yaml"
    nested.parent.mkdir()
    nested.write_text(score.read_text())
    options = ["--gpu", "h100", "--clips", "600", "--json"]  # less than one of the 1000 pairs a row
    assert main(["estimate", "--config", str(nested), *options]) == 0
    (part,) = (report := json.loads(capsys.readouterr().out))["parts"]
    assert (part["runs"], part["clips"], report["model"]) == (200, 3, "runs/critic") and part["memory_gb"]["LoRA"] > 0
    assert report["disk_gb"] and report["hours"] > 0 and part["largest_batch"] > 3
    with monkeypatch.context() as patched:
        patched.setattr(torch.accelerator, "is_available", lambda: True)  # no count may go to a GPU
        assert main(["estimate", "--config", str(tmp_path / "a" / "train_critic.yaml"), *options]) == 0
    (part,) = (report := json.loads(capsys.readouterr().out))["parts"]
    assert part["runs"] == 600 * 3 / 2 * 20 and part["unit"] == "rows"
    assert any(note.startswith("1000 pairs (--pairs)") for note in report["notes"])
    shared = ["--num-gpus", "4", "--sharded"]
    assert main(["estimate", "--config", str(tmp_path / "a" / "train_critic.yaml"), *options, *shared]) == 0
    (spread,) = json.loads(capsys.readouterr().out)["parts"]
    assert spread["memory_gb"]["weights"] == part["memory_gb"]["weights"] / 4
    assert part["memory_gb"]["weights"] / 4 < spread["memory_gb"]["layers gathered"] < part["memory_gb"]["weights"]
    assert main(["estimate", "--config", str(nested), *options, *shared]) == 1
    assert "--sharded: scoring" in capsys.readouterr().err
    score.write_text("critic: runs/other/critic\nvideos: x\noutput_dir: y\n")
    (tmp_path / "a" / "prompts.yaml").write_text("[output_dir, a fox, runs/other/critic]\n")  # no recipe
    assert main(["estimate", "--config", str(score), *options]) == 1
    error = capsys.readouterr().err
    assert "score.yaml" in error and "no YAML beside this one writes it" in error


def test_a_critic_of_an_own_rubric_has_its_rows_and_each_pair_its_work(tmp_path):
    """The peak is that of a batch whose every row has as many pairs as any, the work that of a mean row."""
    build_vlm("internvl", save_directory=tmp_path / "vlm")
    (tmp_path / "rubric.yaml").write_text(yaml.safe_dump(SIGNS))
    common = {"model_name_or_path": str(tmp_path / "vlm"), "use_peft": True, "lora_r": 4, "num_frames": 2}
    common |= {"rubric": str(tmp_path / "rubric.yaml"), "output_dir": "runs/critic", "per_device_train_batch_size": 3}
    common |= {"gradient_checkpointing": False}
    paired = write(tmp_path / "train_critic.yaml", preferences="runs/votes", **common)
    some, all_rows = (read_plan(paired, Job(clips=30, pairs=pairs)).parts[0] for pairs in (15, 60))
    none, scoring = read_plan(write(tmp_path / "correct.yaml", **common), Job(clips=30)).parts
    assert some.runs == 30 * 2 / 3 * 20
    assert (none.runs, scoring.runs) == (2 * some.runs, 30 / 8)
    assert some.count.peak_bytes == all_rows.count.peak_bytes > none.count.peak_bytes
    assert some.count.flops - none.count.flops == pytest.approx((all_rows.count.flops - none.count.flops) / 4)
