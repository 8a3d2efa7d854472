from lift_trl.cli import main


def test_inspect_of_a_cache(cache_dir, capsys):
    assert main(["inspect", str(cache_dir)]) == 0
    out = capsys.readouterr().out
    assert "cache" in out and "rows: 8, of which real: 2" in out and "num_frames: 9" in out
    assert "reward: mean 0.5000" in out and "best: clip-5 (0.9000), clip-0 (0.9000)" in out


def test_inspect_of_nothing_says_what_it_looked_for(tmp_path, capsys):
    assert main(["inspect", str(tmp_path)]) == 1
    assert "holds no artifact.yaml, no metadata.jsonl, no votes and no LoRA" in capsys.readouterr().err
