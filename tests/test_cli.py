import json
import subprocess

import pytest

import lift_trl
from lift_trl.cli import main
from lift_trl.rubric import Dimension
from tests.alignment.conftest import moving_square
from tests.critic.tiny_models import build_vlm


@pytest.fixture
def clips(tmp_path):
    for index in range(3):
        moving_square(tmp_path / f"{index}.mp4", index)
    return tmp_path


def write(folder, *rows):
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_env_names_what_a_bug_report_needs(capsys):
    assert main(["env"]) == 0
    out = capsys.readouterr().out
    assert all(f"{package}: " in out for package in ("lift_trl", "torch", "diffusers", "peft", "accelerator"))


def test_validate_passes_good_rows(clips, capsys):
    labels = dict.fromkeys(Dimension, "Good")
    write(
        clips,
        {"file_name": "0.mp4", "prompt": "a fox", "reward": 0.5},
        {"file_name": "1.mp4", "prompt": "a fox", **labels},
        {"file_name": "2.mp4", "prompt": "a fox", "is_real": True},
    )
    assert main(["validate", str(clips)]) == 0
    assert "3 clips can be used (1 real), 0 bad rows" in capsys.readouterr().out


def test_validate_lists_every_bad_row_with_file_row_and_remedy(clips, capsys):
    (clips / "cut.mp4").write_bytes((clips / "0.mp4").read_bytes()[:900])
    write(
        clips,
        {"file_name": "0.mp4", "prompt": "a fox", "reward": 0.5},
        {"file_name": "gone.mp4", "prompt": "a fox", "reward": 0.5},
        {"file_name": "cut.mp4", "prompt": "a fox", "reward": 0.5},
        {"file_name": "1.mp4", "prompt": "", "reward": 0.5},
        {"file_name": "1.mp4", "prompt": "a fox"},
        {"file_name": "1.mp4", "prompt": "a fox", "reward": 2},
        {"file_name": "1.mp4", "prompt": "a fox", "reward": "high"},
        {"file_name": "1.mp4", "prompt": "a fox", "semantic_consistency": "Fine"},
        {"file_name": "1.mp4", "prompt": "a fox", "semantic_consistency": "Good"},
        {"file_name": "0.mp4", "prompt": "a fox", "reward": 0.7},
        {"prompt": "a fox", "reward": 0.7},
    )
    assert main(["validate", str(clips)]) == 1
    lines = capsys.readouterr().out.splitlines()
    problems = {
        2: "gone.mp4: no such video file",
        3: "truncated",
        4: "no prompt",
        5: "no rating",
        6: r"reward 2.0 is not in [0, 1]",
        7: "reward 'high' is no number",
        8: "label 'Fine' is unknown",
        9: "no label for motion_smoothness, video_fidelity",
        10: "is taken by",
        11: "no clip; fill the column file_name",
    }
    for row, problem in problems.items():
        assert any(f"metadata.jsonl, row {row}" in line and problem in line for line in lines), (row, problem, lines)
    assert lines[-2] == "for alignment: 1 clips can be used (0 real), 10 bad rows"


def test_validate_without_metadata_says_what_to_write(tmp_path, capsys):
    assert main(["validate", str(tmp_path)]) == 1
    assert "metadata.jsonl" in capsys.readouterr().err


def test_inspect_counts_labels_rewards_and_names_the_best(clips, capsys):
    write(
        clips,
        {"file_name": "0.mp4", "prompt": "a fox", **dict.fromkeys(Dimension, "Good")},
        {"file_name": "1.mp4", "prompt": "a fox", **dict.fromkeys(Dimension, "Bad")},
        {"file_name": "2.mp4", "prompt": "a fox", "is_real": True},
    )
    assert main(["inspect", str(clips)]) == 0
    out = capsys.readouterr().out
    assert "rows: 3, of which real: 1" in out and "unscored: 0" in out and "reward: mean 0.4750" in out
    assert "motion_smoothness: Good 1, Normal 0, Bad 1" in out
    assert "0.mp4 (0.9000)" in out.split("worst")[0]


def test_audit_needs_clips_and_captions_only(clips, tmp_path_factory, capsys):
    """A random critic of real classes: what is shown is that every check is made, and what the exit code says."""
    critic = tmp_path_factory.mktemp("critic")
    build_vlm("idefics3", save_directory=critic)
    write(clips, *({"file_name": f"{i}.mp4", "prompt": f"a {c} fox"} for i, c in enumerate(("red", "blue", "grey"))))
    code = main(["audit", str(critic), str(clips)])
    lines = capsys.readouterr().out.splitlines()
    checks = ["swapped_captions", "blank_video", *(f"blank_video/{dimension}" for dimension in Dimension)]
    checks += ["frozen_video", "shuffled_frames", "repeated_run", "reversed_frames", "half_size", "spread", "unscored"]
    assert [line.split(":")[0] for line in lines] == checks
    assert lines[7].startswith("repeated_run: 0.0000 ok") and lines[-1].startswith("unscored: 0.0000")
    assert code == int(any("FAILED" in line for line in lines))


def test_recipes_are_copied_and_never_over_something(tmp_path, capsys):
    assert main(["recipes", str(tmp_path / "r")]) == 0
    assert (tmp_path / "r" / "align.py").is_file() and (
        tmp_path / "r" / "configs" / "accelerate" / "cpu.yaml"
    ).is_file()
    assert main(["recipes", str(tmp_path / "r")]) == 1
    assert "is not empty" in capsys.readouterr().err


def completions(script: str, *words: str, folder) -> list[str]:
    """What bash offers for the last of `words`, as its completion calls the function of `lift-trl`."""
    program = f"""{script}
COMP_WORDS=({" ".join(f"'{word}'" for word in words)}); COMP_CWORD={len(words) - 1}
function=$(complete -p lift-trl | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function lift-trl "${{COMP_WORDS[COMP_CWORD]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    run = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True, cwd=folder)
    return run.stdout.split()


def test_bash_completes_commands_options_choices_and_files(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        main(["--print-completion", "bash"])
    script = capsys.readouterr().out
    assert left.value.code == 0
    (tmp_path / "rated").mkdir()
    (tmp_path / "rates.yaml").touch()
    assert completions(script, "lift-trl", "in", folder=tmp_path) == ["inspect"]
    assert set(completions(script, "lift-trl", "mini", folder=tmp_path)) == {"mini-world", "mini-rate"}
    assert completions(script, "lift-trl", "convert", "--bad", folder=tmp_path) == ["--bad-rows"]
    assert completions(script, "lift-trl", "convert", "a", "b", "--bad-rows", "d", folder=tmp_path) == ["drop"]
    assert set(completions(script, "lift-trl", "validate", "ra", folder=tmp_path)) == {"rated", "rates.yaml"}
    assert completions(script, "lift-trl", "estimate", "--rates", "rates", folder=tmp_path) == ["rates.yaml"]
    assert completions(script, "lift-trl", "eval", "p", folder=tmp_path) == ["plan"]


def test_zsh_has_the_same_commands(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--print-completion", "zsh"])
    script = capsys.readouterr().out
    assert left.value.code == 0 and script.startswith("#compdef lift-trl")
    assert all(f" {name}:'" in script for name in ("validate", "mini-rate")) and "(raise drop)" in script


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"lift-trl {lift_trl.__version__}\n"
