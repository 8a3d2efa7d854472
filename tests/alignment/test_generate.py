"""Prompts to videos: seeds, batches, resuming, processes, adapters, the plan of VBench, bad input."""

import json
import shutil
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import load_dataset
from diffusers import CogVideoXPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from lift_trl.alignment.sampling import generate
from lift_trl.alignment.sampling.generate import PromptSeed, _distinct_ids, generate_videos, plan_videos, read_prompts
from lift_trl.alignment.sampling.settings import Sampling
from lift_trl.hub.lora.origin import adapter_identity
from lift_trl.store.manifest import PARTS_DIR, Artifact, read_rows
from lift_trl.store.video_io import probe_video, read_video, write_video
from lift_trl.vbench.plan import PlannedVideo
from tests.alignment.conftest import WatchedSource


FAST = Sampling(num_inference_steps=2, guidance_scale=1.0, batch_size=3)
PROMPTS = ("a red circle moving left", "a blue square moving up")


def digests(folder):
    return {row["id"]: row["sha256"] for row in read_rows(folder / "metadata.jsonl")}


@pytest.fixture(scope="module")
def videos():
    return plan_videos(PROMPTS, videos_per_prompt=4, seed=3)


@pytest.fixture(scope="module")
def lora_dir(pipeline_dir, tmp_path_factory):
    """A LoRA that does something: both of its halves are drawn."""
    pipe = CogVideoXPipeline.from_pretrained(pipeline_dir)
    torch.manual_seed(0)
    pipe.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    folder = tmp_path_factory.mktemp("lora")
    CogVideoXPipeline.save_lora_weights(folder, get_peft_model_state_dict(pipe.transformer))
    return folder


@pytest.fixture(scope="module")
def whole(pipeline_dir, videos, tmp_path_factory):
    return generate_videos(pipeline_dir, videos, tmp_path_factory.mktemp("generated") / "whole", sampling=FAST)


def test_a_row_says_all_that_made_the_video_and_load_dataset_reads_it(whole, videos, pipeline_dir):
    rows = list(read_rows(whole / "metadata.jsonl"))
    assert [(row["prompt"], row["seed"], row["index"]) for row in rows] == [tuple(video) for video in videos]
    assert len({row["sha256"] for row in rows}) == 8
    first = rows[0]
    assert (first["model"], first["adapter"]) == (str(pipeline_dir), None)
    assert (first["num_frames"], first["height"], first["width"], first["fps"]) == (9, 48, 48, 8.0)
    assert (first["num_inference_steps"], first["guidance_scale"]) == (2, 1.0)
    info = probe_video(whole / first["file_name"])
    assert (info.num_frames, info.height, info.width, info.fps) == (9, 48, 48, 8.0)
    assert Artifact.load(whole).config["num_videos"] == 8
    assert not (whole / ".text").exists()
    dataset = load_dataset(str(whole), split="train")
    assert dataset["seed"] == [video.seed for video in videos]


def test_videos_keep_the_day_on_which_they_were_sampled(whole, videos, pipeline_dir, tmp_path):
    """Also where the same command runs again, which samples nothing; a day with a new video is a new day."""
    folder = shutil.copytree(whole, tmp_path / "again")
    today = Artifact.load(folder).made_on
    replace(Artifact.load(folder), made_on="2020-09-13").save(folder)
    generate_videos(pipeline_dir, videos, folder, sampling=FAST)
    assert Artifact.load(folder).made_on == "2020-09-13"
    generate_videos(pipeline_dir, plan_videos(["another"], seed=3), folder, sampling=FAST)
    assert Artifact.load(folder).made_on >= today
    (folder / "artifact.yaml").write_text("")
    generate_videos(pipeline_dir, videos, folder, sampling=FAST)
    assert Artifact.load(folder).made_on >= today


def test_a_seed_depends_on_prompt_and_number_alone(videos):
    more = plan_videos(["another", *reversed(PROMPTS)], videos_per_prompt=6, seed=3)
    assert {video for video in more if video.number < 4 and video.prompt != "another"} == set(videos)
    assert not {video.seed for video in plan_videos(PROMPTS, videos_per_prompt=4, seed=4)} & {v.seed for v in videos}


def test_the_video_is_the_pipelines_own(whole, videos, pipeline_dir, tmp_path):
    pipe = CogVideoXPipeline.from_pretrained(pipeline_dir)
    batch = videos[:3]
    frames = pipe(
        prompt=[video.prompt for video in batch],
        num_frames=9,
        num_inference_steps=2,
        guidance_scale=1.0,
        max_sequence_length=pipe.transformer.config.max_text_seq_length,
        generator=[torch.Generator().manual_seed(video.seed) for video in batch],
        output_type="np",
    ).frames
    for video, clip in zip(batch, frames, strict=True):
        write_video(tmp_path / "own.mp4", (clip * 255).round().astype(np.uint8), fps=8)
        assert (whole / "videos" / f"{video.id}.mp4").read_bytes() == (tmp_path / "own.mp4").read_bytes()


def test_three_prompts_of_a_batch_with_guidance_and_a_lora_are_the_pipelines_own(pipeline_dir, lora_dir, tmp_path):
    """Each with its own text, on a clip that is not square, guided by 3 and not by 1, the LoRA at its full strength."""
    size = {"num_frames": 9, "height": 32, "width": 48, "num_inference_steps": 2, "guidance_scale": 3.0}
    batch = plan_videos([*PROMPTS, "a green triangle moving down"], seed=3)
    sampling = Sampling(**size, negative_prompt="blurry", batch_size=3)
    folder = generate_videos(pipeline_dir, batch, tmp_path / "out", sampling=sampling, adapter=lora_dir)
    pipe = CogVideoXPipeline.from_pretrained(pipeline_dir)
    pipe.load_lora_weights(lora_dir)
    frames = pipe(
        prompt=[video.prompt for video in batch],
        negative_prompt=["blurry"] * 3,
        max_sequence_length=pipe.transformer.config.max_text_seq_length,
        generator=[torch.Generator().manual_seed(video.seed) for video in batch],
        output_type="np",
        **size,
    ).frames
    for video, clip in zip(batch, frames, strict=True):
        write_video(tmp_path / "own.mp4", (clip * 255).round().astype(np.uint8), fps=8)
        own = read_video(tmp_path / "own.mp4").frames
        assert np.array_equal(read_video(folder / "videos" / f"{video.id}.mp4").frames, own)


def test_a_run_that_was_cut_equals_a_whole_one(whole, videos, pipeline_dir, tmp_path):
    folder = tmp_path / "cut"
    # What a kill within the second batch leaves: four finished videos, half a row of the fifth, and its half file.
    rows = [json.dumps(row) for row in read_rows(whole / "metadata.jsonl")]
    (folder / PARTS_DIR).mkdir(parents=True)
    (folder / PARTS_DIR / "rank0.jsonl").write_text("\n".join(rows[:4]) + "\n" + rows[4][:40])
    (folder / "videos").mkdir()
    for video in videos[:4]:
        (folder / "videos" / f"{video.id}.mp4").write_bytes((whole / "videos" / f"{video.id}.mp4").read_bytes())
    (folder / "videos" / f".{videos[4].id}.mp4.1.tmp").write_bytes(b"half")
    before = (folder / "videos" / f"{videos[0].id}.mp4").stat().st_mtime_ns
    generate_videos(pipeline_dir, videos, folder, sampling=FAST)
    assert digests(folder) == digests(whole) and not list(folder.rglob("*.tmp"))
    assert (folder / "videos" / f"{videos[0].id}.mp4").stat().st_mtime_ns == before


def test_a_video_is_written_while_the_next_batch_is_sampled(videos, pipeline_dir, tmp_path, monkeypatch):
    sampled = [threading.Event() for _ in range(3)]
    sample, store = generate.sample_batch, generate._store

    def watched(*args):
        next(event for event in sampled if not event.is_set()).set()
        return sample(*args)

    def waiting(plan, video, *args):
        number = [v.id for v in videos].index(video.id)
        assert sampled[min(number + 1, 2)].wait(20), "the next batch was not begun"
        return store(plan, video, *args)

    monkeypatch.setattr(generate, "sample_batch", watched)
    one = replace(FAST, batch_size=1)
    monkeypatch.setattr(generate, "_store", waiting)
    folder = generate_videos(pipeline_dir, videos[:3], tmp_path / "g", sampling=one)
    monkeypatch.undo()
    plain = generate_videos(pipeline_dir, videos[:3], tmp_path / "plain", sampling=one)
    assert digests(folder) == digests(plain)


def test_a_write_that_fails_names_its_video_and_what_was_written_has_its_row(whole, videos, pipeline_dir, tmp_path):
    folder = tmp_path / "g"
    blocked = folder / "videos" / f"{videos[4].id}.mp4"
    (blocked / "in the way").mkdir(parents=True)
    with pytest.raises(OSError, match=rf"{videos[4].id}\.mp4: .*The video was not written; those with a row are kept"):
        generate_videos(pipeline_dir, videos, folder, sampling=FAST)
    rows = {row["id"] for row in read_rows(folder / PARTS_DIR / "rank0.jsonl")}
    assert {video.id for video in videos[:4]} <= rows and videos[4].id not in rows
    assert all((folder / "videos" / f"{row}.mp4").is_file() for row in rows)
    (blocked / "in the way").rmdir()
    blocked.rmdir()
    assert digests(generate_videos(pipeline_dir, videos, folder, sampling=FAST)) == digests(whole)


def test_an_adapter_changes_the_videos_and_its_folder_is_its_own(whole, videos, pipeline_dir, lora_dir, tmp_path):
    folder = generate_videos(pipeline_dir, videos[:3], tmp_path / "lora", sampling=FAST, adapter=lora_dir)
    base = digests(whole)
    assert (
        all(base[name] != digest for name, digest in digests(folder).items()) and digests(folder).keys() < base.keys()
    )
    assert Artifact.load(folder).parents["adapter"] == adapter_identity(lora_dir)
    with pytest.raises(ValueError, match="another model, adapter or settings"):
        generate_videos(pipeline_dir, videos[:3], folder, sampling=FAST)


def test_videos_of_other_prompts_are_added_to_those_that_are_there(videos, pipeline_dir, tmp_path):
    folder = generate_videos(pipeline_dir, videos[:2], tmp_path / "grown", sampling=FAST)
    first = digests(folder)
    generate_videos(pipeline_dir, videos[4:5], folder, sampling=FAST)
    assert [row["id"] for row in read_rows(folder / "metadata.jsonl")] == [v.id for v in (videos[4], *videos[:2])]
    assert first.items() <= digests(folder).items()
    assert Artifact.load(folder).config["num_videos"] == 3 and Artifact.load(folder).config["num_prompts"] == 2


def test_the_text_encoder_has_left_before_the_transformer_comes(videos, pipeline_dir, tmp_path):
    source = WatchedSource(pipeline_dir)
    generate_videos(source, videos[:1], tmp_path / "out", sampling=FAST)
    assert source.loads == [("tokenizer", "text_encoder"), ("transformer", "vae")]
    assert source.in_memory() == []


def test_guidance_and_enlargement(videos, pipeline_dir, whole, tmp_path):
    sampling = Sampling(num_inference_steps=2, guidance_scale=3.0, batch_size=3, enlarge=2)
    folder = generate_videos(pipeline_dir, videos[:1], tmp_path / "guided", sampling=sampling)
    stored = read_video(folder / "videos" / f"{videos[0].id}.mp4").frames
    plain = read_video(whole / "videos" / f"{videos[0].id}.mp4").frames
    assert stored.shape == (9, 96, 96, 3)
    assert abs(stored[:, ::2, ::2].astype(int) - plain).max() > 5


def test_a_plan_gives_prompts_with_their_seeds(tmp_path):
    planned = PlannedVideo("x", "a long prompt", "a prompt", 1, "a prompt-1.mp4", 77, ("scene",))
    (tmp_path / "metadata.jsonl").write_text(json.dumps(planned.__dict__) + "\n" + '{"prompt": " a fox "}\n')
    first, *others = read_prompts(tmp_path, videos_per_prompt=2, seed=5)
    assert first == PromptSeed("a long prompt", 77, 1)
    assert others == plan_videos(["a fox"], videos_per_prompt=2, seed=5)
    (tmp_path / "prompts.txt").write_text("a fox\n\n  a bird\na fox\n")
    assert [video.prompt for video in read_prompts(tmp_path / "prompts.txt")] == ["a fox", "a bird"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"seed": 1}', "row 1: no prompt"),
        ('{"prompt": "a fox", "seed": "7"}', "row 1: seed '7' is not a whole number"),
        ('{"prompt": "a fox", "seed": true}', "row 1: seed True is not a whole number"),
        ('{"prompt": "a fox", "seed": false}', "row 1: seed False is not a whole number"),
        ('{"prompt": "a fox", "seed": 0.0}', "row 1: seed 0.0 is not a whole number"),
        ('{"prompt": "a fox", "seed": []}', r"row 1: seed \[\] is not a whole number"),
        ('{"prompt": "a fox", "seed": 7, "index": {}}', "row 1: index {} is not a whole number"),
        ('{"prompt": "a fox", "seed": 7, "index": "first"}', "row 1: index 'first' is not a whole number"),
    ],
)
def test_bad_rows_are_named(row, message, tmp_path):
    (tmp_path / "plan.jsonl").write_text(row + "\n")
    with pytest.raises(ValueError, match=message):
        read_prompts(tmp_path / "plan.jsonl")


def test_an_index_of_null_is_none(tmp_path):
    (tmp_path / "plan.jsonl").write_text('{"prompt": "a fox", "seed": 7, "index": null}\n')
    assert read_prompts(tmp_path / "plan.jsonl") == [PromptSeed("a fox", 7, 0)]


def test_many_videos_are_looked_through_at_once():
    """One of 60,000 that stands twice is found in a moment; pairwise it took a minute."""
    videos = [PromptSeed(f"prompt {number}", number) for number in range(60_000)]
    started_s = time.process_time()
    with pytest.raises(ValueError, match="prompt 59999.*stands twice"):
        _distinct_ids([*videos, videos[-1]])
    assert time.process_time() - started_s < 10


def test_bad_input_is_refused(videos, pipeline_dir, tmp_path):
    with pytest.raises(FileNotFoundError, match="one prompt a line"):
        read_prompts(tmp_path / "missing.txt")
    with pytest.raises(ValueError, match="the list is empty"):
        generate_videos(pipeline_dir, [], tmp_path / "out", sampling=FAST)
    with pytest.raises(ValueError, match="stands twice"):
        generate_videos(pipeline_dir, [videos[0], videos[0]], tmp_path / "out", sampling=FAST)
    with pytest.raises(ValueError, match="8N \\+ 1"):
        generate_videos(pipeline_dir, videos, tmp_path / "out", sampling=Sampling(num_frames=13))
    with pytest.raises(ValueError, match="batch_size=0"):
        Sampling(batch_size=0)
    with pytest.raises(FileNotFoundError, match="holds no LoRA"):
        generate_videos(pipeline_dir, videos, tmp_path / "out", sampling=FAST, adapter=tmp_path)


def test_a_pipeline_is_left_as_it_was_also_by_a_run_that_fails(videos, pipeline_dir, lora_dir, whole, tmp_path):
    """A LoRA left on it made the next call's base videos tuned ones, or ended it with a KeyError."""
    pipe = CogVideoXPipeline.from_pretrained(pipeline_dir)
    names, steps = list(pipe.transformer.state_dict()), pipe.scheduler.timesteps.clone()

    def is_untouched() -> bool:
        return (
            list(pipe.transformer.state_dict()) == names
            and pipe.get_list_adapters() == {}
            and not pipe.vae.use_tiling
            and torch.equal(pipe.scheduler.timesteps, steps)
            and not hasattr(pipe, "_progress_bar_config")
        )

    tuned = generate_videos(pipe, videos, tmp_path / "tuned", sampling=FAST, adapter=lora_dir)
    assert is_untouched()
    base = generate_videos(pipe, videos, tmp_path / "base", sampling=FAST)
    assert digests(base) == digests(whole) != digests(tuned)
    with torch.no_grad():
        pipe.transformer.proj_out.bias.fill_(float("inf"))
    with pytest.raises(ValueError, match="not finite"):
        generate_videos(pipe, videos, tmp_path / "bad", sampling=FAST, adapter=lora_dir)
    assert is_untouched()


def test_a_lora_of_another_model_makes_no_video(videos, pipeline_dir, lora_dir, tmp_path):
    """diffusers would load nothing of it, warn, and the base's videos would be called the LoRA's."""
    other = tmp_path / "lora"
    other.mkdir()
    weights = load_file(lora_dir / "pytorch_lora_weights.safetensors")
    save_file({key.replace("transformer.", "unet."): value for key, value in weights.items()}, other / "a.safetensors")
    with pytest.raises(ValueError, match="none of a transformer's LoRA"):
        generate_videos(pipeline_dir, videos, tmp_path / "out", sampling=FAST, adapter=other)
    assert not list((tmp_path / "out").rglob("*.mp4"))


def test_prompts_of_any_table_and_text(tmp_path):
    """A byte order mark is no part of a prompt, nor is a header; a last line needs no newline; missing is missing."""
    for name, text in (
        ("a.txt", "\ufeffa fox\r\na dog"),
        ("a.csv", "\ufeffprompt,seed\r\na fox,7\r\na dog,\r\n"),
        ("a.jsonl", '\ufeff{"prompt": "a fox", "seed": 7}\n{"prompt": "a dog", "seed": NaN, "index": NaN}'),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
        fox, dog = read_prompts(tmp_path / name, seed=3)
        assert (fox.prompt, dog) == ("a fox", plan_videos(["a dog"], seed=3)[0])
        assert fox.seed == 7 or name == "a.txt"
    (tmp_path / "a.jsonl").replace(tmp_path / "PLAN.JSONL")
    assert [video.prompt for video in read_prompts(tmp_path / "PLAN.JSONL", seed=3)] == ["a fox", "a dog"]
    (tmp_path / "a.csv").replace(tmp_path / "a.CSV")
    assert [video.prompt for video in read_prompts(tmp_path / "a.CSV", seed=3)] == ["a fox", "a dog"]
    for name in ("prompts.json", "prompts.yaml", "prompts.ndjson", "prompts.xlsx"):
        (tmp_path / name).write_text('[\n "a fox"\n]')
        with pytest.raises(ValueError, match=rf"{name}: prompts are read from a text with one a line \(.txt\)"):
            read_prompts(tmp_path / name)
    (tmp_path / "a.jsonl").write_text('{"prompt": "nan"}\n')
    with pytest.raises(ValueError, match="row 1: no prompt"):
        read_prompts(tmp_path / "a.jsonl")
    (tmp_path / "a.txt").write_bytes("a fox\na caf\u00e9\n".encode("cp1252"))
    with pytest.raises(ValueError, match=r"a\.txt, line 2: byte 0xe9 is not UTF-8.*Save the file as UTF-8"):
        read_prompts(tmp_path / "a.txt")
