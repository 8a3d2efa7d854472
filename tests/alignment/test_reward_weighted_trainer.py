import io
from pathlib import Path

import datasets
import pytest
import torch
from diffusers import CogVideoXPipeline
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close
from transformers.trainer_callback import TrainerCallback

from lift_trl.alignment.data.video_dataset import CachedVideoDataset, collate
from lift_trl.alignment.reward_weighted_config import RewardWeightedVideoConfig
from lift_trl.alignment.reward_weighted_trainer import RewardWeightedVideoTrainer
from lift_trl.alignment.training.draws import draw_rows
from lift_trl.hub.lora.files import DIFFUSERS_LORA_FILE
from lift_trl.rubric import Dimension
from lift_trl.runtime import fit
from tests.alignment.conftest import LABELS, REWARDS, SIZE, lora_metadata, make_trainer, trainable


def sample(pipe, **kwargs):
    """Frames of a fixed prompt and seed, as a tensor."""
    return pipe(
        "a red circle moving left",
        **SIZE,
        num_inference_steps=2,
        guidance_scale=3.0,
        max_sequence_length=6,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
        **kwargs,
    ).frames


def test_every_trainable_parameter_moves_and_no_frozen_one(tmp_path, pipeline_dir, cached):
    trainer = make_trainer(pipeline_dir, tmp_path, cached, max_steps=3)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    for name, parameter in trainer.model.named_parameters():
        assert parameter.requires_grad == ("lora_" in name), name
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name


def test_forty_steps_lower_the_loss(tmp_path, pipeline_dir, cached):
    trainer = make_trainer(pipeline_dir, tmp_path, cached, max_steps=40, caption_dropout=0.0, logging_steps=1)
    trainer.train()
    losses = [line["loss_unweighted"] for line in trainer.state.log_history if "loss" in line]
    assert len(losses) == 40 and sum(losses[-8:]) < 0.9 * sum(losses[:8])


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_trainable_parameters_are_float32(tmp_path, pipeline_dir, cached, precision):
    trainer = make_trainer(pipeline_dir, tmp_path, cached, bf16=precision == "bf16", max_steps=2)
    trainer.train()
    dtypes = {p.requires_grad: p.dtype for p in trainer.model.parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16 if precision == "bf16" else torch.float32}
    assert all(torch.isfinite(p).all() for p in trainable(trainer).values())


@pytest.mark.parametrize("alpha", [4, 16])
def test_diffusers_loads_a_lora_that_equals_the_trained_model(tmp_path, pipeline_dir, cached, alpha):
    trainer = make_trainer(pipeline_dir, tmp_path, cached, peft_config=LoraConfig(r=4, lora_alpha=alpha), max_steps=4)
    trainer.train()
    trainer.save_model()
    assert lora_metadata(tmp_path / DIFFUSERS_LORA_FILE)["transformer.lora_alpha"] == alpha
    pipe = CogVideoXPipeline.from_pretrained(pipeline_dir)
    base = sample(pipe)
    pipe.transformer = trainer.model.get_base_model().eval()
    trained = sample(pipe)
    pipe = CogVideoXPipeline.from_pretrained(pipeline_dir)
    pipe.load_lora_weights(tmp_path)
    assert torch.equal(sample(pipe), trained)
    assert (trained - base).abs().max() > 1e-3


def test_targets_left_empty_come_from_the_family(tmp_path, pipeline_dir, cached):
    trainer = make_trainer(pipeline_dir, tmp_path, cached)
    assert isinstance(trainer.model, PeftModel)
    modules = {name.split(".lora_A")[0].rsplit(".attn1.")[-1] for name in trainable(trainer) if "lora_A" in name}
    assert modules == {"to_q", "to_k", "to_v", "to_out.0"}


def test_a_target_that_matches_nothing_is_an_error(tmp_path, pipeline_dir, cached):
    with pytest.raises(ValueError, match="no_such_layer"):
        make_trainer(pipeline_dir, tmp_path, cached, peft_config=LoraConfig(target_modules=["no_such_layer"]))


def test_the_gradient_follows_the_reward(tmp_path, pipeline_dir, cached):
    """The gradient of a batch is sum_i w_i g_i / N with g_i the gradient of row i alone."""
    trainer = make_trainer(pipeline_dir, tmp_path, cached, caption_dropout=0.0)
    trainer.train()  # LoRA's B must have left zero
    trainer.model.train()

    def gradient(rows, weights):
        batch = collate(rows)
        batch["weight"] = torch.tensor(weights)
        trainer.model.zero_grad()
        trainer.compute_loss(trainer.model, batch).backward()
        return torch.cat([p.grad.flatten().double() for p in trainer.model.parameters() if p.requires_grad])

    rows = [trainer.train_dataset[index] for index in (0, 1)]
    alone = [gradient([row], [1.0]) for row in rows]
    assert_close(gradient(rows, [0.9, 0.05]), (0.9 * alone[0] + 0.05 * alone[1]) / 2, rtol=1e-4, atol=1e-9)
    assert_close(gradient(rows, [0.0, 1.0]), alone[1] / 2, rtol=1e-4, atol=1e-9)


def test_weights_of_one_equal_plain_fine_tuning(tmp_path, pipeline_dir, cached):
    """SFT on sampled clips alone against a loop that knows nothing of rewards, from the same draws."""
    steps = 3
    trainer = make_trainer(
        pipeline_dir, tmp_path, cached, objective="sft", real_weight=0.0, per_device_train_batch_size=6, max_steps=steps,
        caption_dropout=0.0, max_grad_norm=0.0, optim="sgd", learning_rate=1.0,
    )  # fmt: skip
    assert_close(trainer.train_dataset.weight, torch.ones(6))
    start = trainable(trainer)
    trainer.train()
    finish = trainable(trainer)

    model = trainer.model
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(start[name])
    rows = [trainer.train_dataset[index] for index in range(6)]
    batch = collate(rows)
    for step in range(steps):
        draws = draw_rows(
            batch["id"],
            batch["latent_mean"].shape[1:],
            key=(42, step, (0.0, 1.0)),
            num_timesteps=1000,
            caption_dropout=0.0,
        )
        x0 = batch["latent_mean"].float() + torch.exp(0.5 * batch["latent_logvar"].float()) * draws.posterior_noise
        alpha = trainer.scheduler.alphas_cumprod[draws.timesteps].float().view(-1, 1, 1, 1, 1)
        x_t = alpha.sqrt() * x0 + (1 - alpha).sqrt() * draws.noise
        velocity = alpha.sqrt() * draws.noise - (1 - alpha).sqrt() * x0
        prediction = model(
            hidden_states=x_t,
            encoder_hidden_states=batch["text"]["prompt_embeds"],
            timestep=draws.timesteps,
            return_dict=False,
        )[0]
        model.zero_grad()
        torch.nn.functional.mse_loss(prediction, velocity).backward()
        with torch.no_grad():
            for parameter in parameters.values():
                parameter -= 1.0 * parameter.grad
    for name, parameter in parameters.items():
        assert_close(parameter, finish[name], rtol=1e-4, atol=1e-7)


def test_gradient_checkpointing_changes_nothing(tmp_path, pipeline_dir, cached):
    plain = make_trainer(pipeline_dir, tmp_path / "a", cached)
    checkpointed = make_trainer(pipeline_dir, tmp_path / "b", cached, activation_checkpointing=True)
    assert checkpointed.model.get_base_model().gradient_checkpointing
    plain.train()
    checkpointed.train()
    for name, value in trainable(plain).items():
        assert_close(trainable(checkpointed)[name], value)


def test_logged_figures_are_the_datasets(tmp_path, pipeline_dir, cached):
    trainer = make_trainer(pipeline_dir, tmp_path, cached, per_device_train_batch_size=8, max_steps=1)
    trainer.train()
    line = trainer.state.log_history[0]
    weight = trainer.train_dataset.weight
    assert line["reward_mean"] == pytest.approx(sum(REWARDS) / 6)
    assert line["real_fraction"] == pytest.approx(0.25)
    for index, dimension in enumerate(Dimension):
        rewards = {"Good": 0.9, "Normal": 0.2, "Bad": 0.05}
        assert line[f"reward/{dimension}"] == pytest.approx(sum(rewards[labels[index]] for labels in LABELS) / 6)
    assert line["effective_sample_fraction"] == pytest.approx(float(weight.sum() ** 2 / weight.square().sum() / 8))
    assert line["loss_unweighted"] > 0 and any(f"loss_timestep/q{quarter}" in line for quarter in (1, 2, 3, 4))


def test_evaluation_is_stratified_repeats_and_never_shifts_training(tmp_path, pipeline_dir, cache_dir, cached):
    quiet = make_trainer(pipeline_dir, tmp_path / "a", cached, max_steps=4)
    quiet.train()
    trainer = make_trainer(
        pipeline_dir,
        tmp_path / "b",
        cached,
        max_steps=4,
        eval_strategy="steps",
        eval_steps=1,
        eval_dataset=CachedVideoDataset(cache_dir),
    )
    first, second = trainer.evaluate(), trainer.evaluate()
    assert first["eval_loss"] == second["eval_loss"]
    assert all(f"eval_loss_timestep/q{quarter}" in trainer.state.log_history[0] for quarter in (1, 2, 3, 4))
    trainer.train()
    for name, value in trainable(quiet).items():
        assert torch.equal(trainable(trainer)[name], value)


def test_a_non_finite_loss_stops_and_names_the_clips(tmp_path, pipeline_dir, cached):
    """Before the weights move by it, also where it is the first micro-batch of two."""
    trainer = make_trainer(
        pipeline_dir, tmp_path, cached, per_device_train_batch_size=4, gradient_accumulation_steps=2
    )
    before = trainable(trainer)

    def poisoned(rows):
        batch = dict(collate(rows))
        if "clip-1" in batch["id"]:
            batch["latent_mean"][batch["id"].index("clip-1"), 0, 0, 0, 0] = float("nan")
        return batch

    trainer.data_collator = poisoned
    with pytest.raises(FloatingPointError, match=r"the loss of \['clip-1'\] is not finite at optimiser step 0"):
        trainer.train()
    assert all(torch.equal(value, before[name]) for name, value in trainable(trainer).items())


def test_no_micro_batch_is_looked_at_for_the_log(tmp_path, pipeline_dir, cached):
    """Stock asks each loss whether it is finite, which waits for the device; the figures are the same without."""

    class Asked(TorchFunctionMode):
        count = 0

        def __torch_function__(self, function, types, args=(), kwargs=None):
            self.count += function in (torch.isnan, torch.isinf)
            return function(*args, **(kwargs or {}))

    logs = []
    for name, filtered in (("quiet", False), ("stock", True)):
        options = {
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "logging_nan_inf_filter": filtered,
        }
        trainer = make_trainer(pipeline_dir, tmp_path / name, cached, **options)
        with Asked() as asked:
            trainer.train()
        assert asked.count == (2 * 2 * 2 if filtered else 0)
        logs.append([log["loss"] for log in trainer.state.log_history if "loss" in log])
    assert logs[0] == logs[1] and len(logs[0]) == 2


def test_hra_rows_as_load_dataset_returns_them(tmp_path, pipeline_dir, rated_videos):
    """Published LiFT-HRA: one row a clip, several raters, pooled by majority to the clip's reward (equation 2)."""
    from lift_trl.records import hra_features

    def annotation(dimension, label, annotator):
        return {
            "dimension": dimension,
            "label": label,
            "reason": "",
            "annotator": annotator,
            "created_at": None,
            "ui_version": None,
        }

    rows = []
    for video, labels in zip(rated_videos[:2], LABELS):
        annotations = [annotation(d, label, who) for d, label in zip(Dimension, labels) for who in ("a", "b")]
        annotations += [annotation(d, "Bad", "c") for d in Dimension]
        rows.append(
            {"id": video.id, "video": {"bytes": video.video.read_bytes(), "path": None}, "caption": video.prompt,
             "source": "synthetic", "annotations": annotations}
        )  # fmt: skip
    rows.append({**rows[0], "id": "r", "source": "real", "annotations": []})
    datasets.Dataset.from_list(rows, features=hra_features()).to_parquet(tmp_path / "data" / "train.parquet")
    dataset = datasets.load_dataset(str(tmp_path / "data"), split="train")
    trainer = make_trainer(pipeline_dir, tmp_path / "out", dataset, **SIZE, max_steps=1)
    assert_close(trainer.train_dataset.ratings.reward[:2], torch.tensor(REWARDS[:2]))
    assert trainer.train_dataset.ratings.is_real.tolist() == [False, False, True]
    trainer.train()
    assert (tmp_path / "out" / "_cache" / "train" / "artifact.yaml").is_file()


def test_scored_rows_and_dimension_weights(tmp_path, pipeline_dir, rated_videos, cached):
    rows = [{"video": str(v.video), "prompt": v.prompt, "reward": 0.25 * i} for i, v in enumerate(rated_videos[:3])]
    dataset = datasets.Dataset.from_list(rows).cast_column("video", datasets.Video(decode=False))
    trainer = make_trainer(pipeline_dir, tmp_path / "a", dataset, **SIZE)
    assert_close(trainer.train_dataset.weight, torch.tensor([0.0, 0.25, 0.5]))
    weights = {Dimension.SEMANTIC_CONSISTENCY: 1.0, Dimension.MOTION_SMOOTHNESS: 0.0, Dimension.VIDEO_FIDELITY: 0.0}
    trainer = make_trainer(pipeline_dir, tmp_path / "b", cached, dimension_weights=weights)
    assert_close(trainer.train_dataset.ratings.reward[:6], torch.tensor([0.9, 0.9, 0.05, 0.9, 0.05, 0.9]))
    # The data's rubric says which names there are; of raw rows before anything is encoded.
    for data in (cached, dataset):
        with pytest.raises(ValueError, match="one weight for each of .*motion_smoothness"):
            make_trainer(pipeline_dir, tmp_path / "c", data, **SIZE, dimension_weights={"style": 1.0})
    assert not (tmp_path / "c").exists()


def test_the_critics_expected_reward_is_an_option(tmp_path, pipeline_dir, rated_videos, cached):
    """As recipes/score.py writes it: beside the labels, which weigh the clips otherwise."""
    labels = dict.fromkeys(Dimension, "Good")
    rows = [
        {"video": str(v.video), "prompt": v.prompt, **labels, "reward": 0.9, "expected_reward": reward}
        for v, reward in zip(rated_videos[:2], (0.6, 0.8))
    ]
    dataset = datasets.Dataset.from_list(rows)
    for expected, weight in ((True, [0.6, 0.8]), (False, [0.9, 0.9])):
        trainer = make_trainer(pipeline_dir, tmp_path, dataset, **SIZE, expected_reward=expected)
        assert_close(trainer.train_dataset.weight, torch.tensor(weight))
    with pytest.raises(ValueError, match="expected_reward: 6 clips have none. Score them"):
        make_trainer(pipeline_dir, tmp_path, cached, expected_reward=True)


def test_rs_trains_on_the_best_clips_only(tmp_path, pipeline_dir, cached):
    trainer = make_trainer(pipeline_dir, tmp_path, cached, objective="rs")
    assert [row["id"] for row in trainer.train_dataset] == ["clip-0", "clip-5", "real-0", "real-1"]


def test_a_cache_of_another_model_is_refused(tmp_path, cached):
    from lift_trl.mini.checkpoints import build_tiny_pipeline

    build_tiny_pipeline(tmp_path / "other", seed=7)
    with pytest.raises(ValueError, match="was encoded by .*tiny, whose VAE or text encoder is not that of .*other"):
        make_trainer(tmp_path / "other", tmp_path / "out", cached)


def test_rows_without_a_reward_are_listed(tmp_path, pipeline_dir, rated_videos):
    rows = [
        {"video": str(rated_videos[0].video), "prompt": "a fox", "reward": reward} for reward in (float("nan"), None)
    ]
    dataset = datasets.Dataset.from_list(rows)
    with pytest.raises(ValueError, match=r"2 bad rows.*\n.*row 1.*no rating.*\n.*row 2.*no rating"):
        make_trainer(pipeline_dir, tmp_path, dataset, **SIZE)


def test_full_fine_tuning_resumes_and_loads_in_diffusers(tmp_path, pipeline_dir, cached):
    settings = {"peft_config": None, "learning_rate": 1e-3, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole = make_trainer(pipeline_dir, tmp_path / "a", cached, **settings)
    whole.train()
    whole.save_model()
    resumed = make_trainer(pipeline_dir, tmp_path / "b", cached, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    for name, value in trainable(whole).items():
        assert torch.equal(trainable(resumed)[name], value), name
    loaded = type(whole.model).from_pretrained(tmp_path / "a" / "transformer")
    for name, value in loaded.state_dict().items():
        assert torch.equal(whole.model.state_dict()[name], value), name


@pytest.mark.parametrize("kind", ["default", None], ids=["lora", "whole"])
def test_the_best_checkpoint_is_loaded_at_the_end(tmp_path, pipeline_dir, cached, kind):
    """The rate is so high that the first step's model is the best."""
    trainer = make_trainer(
        pipeline_dir, tmp_path, cached, peft_config=kind, eval_dataset=cached, max_steps=3, learning_rate=0.3,
        save_strategy="steps", save_steps=1, eval_strategy="steps", eval_steps=1, load_best_model_at_end=True,
    )  # fmt: skip
    trainer.train()
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-1")
    file = "adapter_model.safetensors" if kind else "transformer/diffusion_pytorch_model.safetensors"
    first, last = (load_file(tmp_path / f"checkpoint-{step}" / file) for step in (1, 3))
    held = {name.replace(".default", ""): value for name, value in trainable(trainer).items()}
    assert held.keys() == first.keys()
    assert all(torch.equal(held[name], first[name]) for name in first)
    assert any(not torch.equal(first[name], last[name]) for name in first)


def test_checkpoints_hold_the_lora_and_never_the_base(tmp_path, pipeline_dir, cached):
    trainer = make_trainer(pipeline_dir, tmp_path, cached, save_strategy="steps", save_steps=1, max_steps=1)
    trainer.train()
    files = {path.name: path.stat().st_size for path in (tmp_path / "checkpoint-1").iterdir()}
    assert {
        DIFFUSERS_LORA_FILE,
        "adapter_model.safetensors",
        "optimizer.pt",
        "trainer_state.json",
        "README.md",
    } <= set(files)
    base = sum(p.numel() * 4 for p in trainer.model.get_base_model().parameters())
    assert sum(files.values()) < base / 4


def test_validation_videos_have_a_base_twin(tmp_path, pipeline_dir, cached):
    prompts = ["a red circle moving left", "a red circle moving left, slowly"]
    trainer = make_trainer(
        pipeline_dir, tmp_path, cached, max_steps=3, validation_prompts=prompts, validation_steps=2,
        validation_num_inference_steps=2, validation_guidance_scale=1.0,
    )  # fmt: skip
    plain = make_trainer(pipeline_dir, tmp_path / "plain", cached, max_steps=3)
    trainer.train()
    plain.train()
    folders = sorted((tmp_path / "validation").iterdir())
    assert [sorted(path.name for path in folder.iterdir()) for folder in folders] == [
        ["base.mp4", "prompt.txt", "step-2.mp4", "step-3.mp4"]
    ] * 2
    assert (folders[0] / "base.mp4").read_bytes() != (folders[0] / "step-3.mp4").read_bytes()
    for name, value in trainable(plain).items():
        assert torch.equal(trainable(trainer)[name], value), "sampling shifted training"


def test_a_second_run_in_a_folder_has_its_own_videos_and_a_pipeline_stays_whole(tmp_path, pipeline_dir, cached):
    pipe = CogVideoXPipeline.from_pretrained(pipeline_dir)
    video = {
        "validation_prompts": ["a red circle"],
        "validation_num_inference_steps": 1,
        "validation_guidance_scale": 1.0,
    }
    make_trainer(pipe, tmp_path, cached, max_steps=2, **video).train()
    assert pipe.transformer is not None
    (folder,) = (tmp_path / "validation").iterdir()
    stale = (folder / "base.mp4").read_bytes()
    make_trainer(pipeline_dir, tmp_path, cached, max_steps=1, validation_seed=7, **video).train()
    (folder,) = (tmp_path / "validation").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["base.mp4", "prompt.txt", "step-1.mp4"]
    assert (folder / "base.mp4").read_bytes() != stale


def test_another_run_is_not_resumed(tmp_path, pipeline_dir, cached):
    make_trainer(pipeline_dir, tmp_path, cached, max_steps=1, save_strategy="steps", save_steps=1).train()
    other = make_trainer(pipeline_dir, tmp_path, cached, objective="sft", peft_config=LoraConfig(r=8, lora_alpha=16))
    differences = "lora_r=4 there, 8 here; objective='rwl' there, 'sft' here. Set them back .* another output_dir"
    with pytest.raises(ValueError, match=differences):
        fit(other)


def test_a_finished_run_that_is_started_again_changes_nothing(tmp_path, pipeline_dir, cached):
    weights = []
    for _ in range(3):
        options = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "constant"}
        trainer = make_trainer(pipeline_dir, tmp_path, cached, **options)
        assert len(trainer.get_train_dataloader()) not in (1, 3), "the run must end within an epoch"
        fit(trainer)
        assert trainer.state.global_step == 3
        weights.append(trainable(trainer))
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]) and torch.equal(value, weights[2][name]), name


def test_caption_dropout_of_one_trains_on_the_cached_empty_prompt(tmp_path, pipeline_dir, cached):
    dropped, kept = (make_trainer(pipeline_dir, tmp_path, cached, caption_dropout=p) for p in (1.0, 0.0))
    batch = collate([cached[0], cached[1]])
    empty = cached.text_cache().load("")
    text = {name: value[None].expand_as(batch["text"][name]) for name, value in empty.items()}
    with_empty = {**batch, "text": text}
    loss = dropped.compute_loss(dropped.model.train(), batch)
    assert_close(loss, kept.compute_loss(kept.model.train(), with_empty))
    assert (loss - kept.compute_loss(kept.model, batch)).abs() > 2e-5


def test_a_stream_and_settings_that_do_nothing_are_refused(tmp_path, pipeline_dir, rated_videos, cached):
    rows = [{"video": str(v.video), "prompt": v.prompt, "reward": 0.5} for v in rated_videos[:2]]
    dataset = datasets.Dataset.from_list(rows)
    with pytest.raises(ValueError, match="the train dataset is a stream.*without streaming=True"):
        make_trainer(pipeline_dir, tmp_path, dataset.to_iterable_dataset(), **SIZE)
    weights = dict.fromkeys(Dimension, 1.0)
    with pytest.raises(ValueError, match="dimension_weights act on labels, but 2 clips have only a reward"):
        make_trainer(pipeline_dir, tmp_path, dataset, **SIZE, dimension_weights=weights)
    with pytest.raises(ValueError, match="num_frames=17, but .* was encoded with num_frames=9. Leave num_frames out"):
        make_trainer(pipeline_dir, tmp_path, cached, num_frames=17)


@pytest.mark.parametrize(
    "option, remedy",
    [
        ({"objective": "ppo"}, "use one of sft, rwl, rs, best_of_n, exp, dpo, kto, nft, awm"),
        ({"loss_type": "robust"}, "use one of sigmoid, hinge, ipo"),
        ({"beta": 0.0}, "beta=0.0; use a number above 0"),
        ({"keep_per_prompt": 0}, "keep_per_prompt=0; use 1 or more"),
        ({"real_weight": -1.0}, "lambda must be >= 0"),
        ({"caption_dropout": 2.0}, r"a probability in \[0, 1\]"),
        ({"validation_steps": 5}, "validation_prompts is empty"),
        ({"neftune_noise_alpha": 5.0}, "no token embeddings"),
        ({"remove_unused_columns": True}, "leave it False"),
        ({"validation_prompts": "a fox"}, r"one text, not a list; in a YAML write it as \['a fox'\]"),
        ({"fp16": True, "use_cpu": True}, "on a CPU use bf16: true"),
        ({"label_smoothing_factor": 0.1}, "there are no labels"),
        ({"train_sampling_strategy": "group_by_length"}, "leave it random"),
        ({"auto_find_batch_size": True}, "set clips_per_step and a smaller per_device_train_batch_size"),
    ],
)
def test_options_that_cannot_be_are_refused_with_the_remedy(tmp_path, option, remedy):
    with pytest.raises(ValueError, match=remedy):
        RewardWeightedVideoConfig(str(tmp_path), **option)


def test_no_dataset_is_an_error(tmp_path, pipeline_dir):
    with pytest.raises(ValueError, match="give a train_dataset or an eval_dataset"):
        RewardWeightedVideoTrainer(pipeline_dir, RewardWeightedVideoConfig(str(tmp_path), report_to="none"))


def test_callbacks_see_the_metrics(tmp_path, pipeline_dir, cached):
    seen = []

    class Recorder(TrainerCallback):
        def on_log(self, args, state, control, logs, **kwargs):
            seen.append(logs)

    trainer = make_trainer(pipeline_dir, tmp_path, cached, max_steps=1)
    trainer.add_callback(Recorder())
    trainer.train()
    assert "reward_mean" in seen[0] and Path(tmp_path).is_dir()


def test_tensorboard_gets_the_videos_as_animated_gifs(tmp_path, pipeline_dir, cached):
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = make_trainer(
        pipeline_dir, tmp_path, cached, max_steps=1, report_to="tensorboard", validation_prompts=["a red circle"],
        validation_num_inference_steps=1, validation_guidance_scale=1.0,
    )  # fmt: skip
    trainer.train()
    events = EventAccumulator(str(tmp_path / "runs"), size_guidance={"images": 0})
    events.Reload()
    (image,), (base,) = events.Images("validation/00"), events.Images("validation/00/base")
    assert image.step == base.step == 1 and image.encoded_image_string != base.encoded_image_string
    order = [type(callback).__name__ for callback in trainer.callback_handler.callbacks]
    assert order.index("ValidationVideos") < order.index("TensorBoardCallback"), (
        "a tracker ends its run in on_train_end"
    )
    gif = Image.open(io.BytesIO(image.encoded_image_string))
    assert (gif.format, gif.n_frames, gif.size) == ("GIF", SIZE["num_frames"], (SIZE["width"], SIZE["height"]))


def test_an_evaluation_drops_no_caption(tmp_path, pipeline_dir, cached):
    kept, dropped = (
        make_trainer(
            pipeline_dir, tmp_path / str(share), cached, eval_dataset=cached, caption_dropout=share
        ).evaluate()
        for share in (0.0, 1.0)
    )
    assert kept["eval_loss"] == dropped["eval_loss"]


@pytest.mark.parametrize("setting", [{"learning_rate": 3e-3}, {"seed": 7}, {"caption_dropout": 0.35}])
def test_a_run_with_another_setting_is_not_resumed(tmp_path, pipeline_dir, cached, setting):
    trainer = make_trainer(pipeline_dir, tmp_path, cached, max_steps=1, save_strategy="steps", save_steps=1)
    trainer.train()
    (name,) = setting
    with pytest.raises(ValueError, match=f"other settings: {name}="):
        make_trainer(pipeline_dir, tmp_path, cached, **setting).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-1")
        )
