"""Training a tiny critic of real classes: what has a loss, what moves, what is saved."""

import dataclasses
import inspect
import math

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from trl import ModelConfig, SFTConfig

from lift_trl.critic.critic_config import FIXED, LiFTCriticConfig, model_init_kwargs
from lift_trl.critic.critic_trainer import LiFTCriticTrainer
from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.critic.settings import load_settings
from lift_trl.rubric import Dimension, Label
from lift_trl.runtime import fit, last_checkpoint
from tests.critic.rendered_clips import rated_squares
from tests.critic.tiny_models import build_vlm


@pytest.fixture(scope="module")
def ratings(tmp_path_factory):
    return rated_squares(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="module", params=["idefics3", "qwen2_5_vl", "qwen3_vl"])
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    build_vlm(request.param, save_directory=folder)
    return str(folder)


def config(folder, **options):
    defaults = {
        "num_frames": 4,
        "max_steps": 3,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "learning_rate": 1e-2,
        "warmup_steps": 0,
        "logging_steps": 3,
        "report_to": "none",
        "save_strategy": "no",
        "gradient_checkpointing": False,
        "disable_tqdm": True,
    }
    return LiFTCriticConfig(output_dir=str(folder), **{**defaults, **options})


def lora():
    return LoraConfig(r=4, lora_alpha=8)


def test_the_loss_is_on_the_answers_only_and_every_row_has_one(checkpoint, ratings, tmp_path):
    trainer = LiFTCriticTrainer(checkpoint, config(tmp_path), train_dataset=ratings, peft_config=lora())
    tokenizer = trainer.processing_class.tokenizer
    end = "<end_of_utterance>" if "idefics3" in checkpoint else "<|im_end|>"
    lead = " " if "idefics3" in checkpoint else ""
    rows = [trainer.train_dataset[i] for i in range(6)]
    batch = trainer.data_collator(rows)
    assert batch["labels"].shape == batch["input_ids"].shape == batch["attention_mask"].shape
    for row, labels, ids in zip(rows, batch["labels"], batch["input_ids"]):
        text = tokenizer.decode(labels[labels != -100])
        assert text == f"{lead}{row['label']}. {row['reason']}{end}"
        whole = tokenizer.decode(ids[: int(batch["attention_mask"][0].sum()) + 50])
        assert row["caption"] in whole and row["caption"] not in text
    assert (batch["labels"] != -100).any(dim=1).all()


def test_without_reasons_the_answer_is_the_label(checkpoint, ratings, tmp_path):
    trainer = LiFTCriticTrainer(
        checkpoint, config(tmp_path, with_reason=False), train_dataset=ratings, peft_config=lora()
    )
    batch = trainer.data_collator([trainer.train_dataset[0]])
    text = trainer.processing_class.tokenizer.decode(batch["labels"][batch["labels"] != -100])
    assert text.strip().startswith("Good.<")


def test_lora_moves_and_nothing_else_does(checkpoint, ratings, tmp_path):
    trainer = LiFTCriticTrainer(
        checkpoint, config(tmp_path, logging_steps=1), train_dataset=ratings, peft_config=lora()
    )
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 3 and all(math.isfinite(loss) and loss > 0 for loss in losses)
    for name, value in trainer.model.named_parameters():
        moved = not torch.equal(before[name], value)
        assert moved == ("lora_" in name), name
        assert value.requires_grad == ("lora_" in name), name
        assert "lora_" not in name or "language_model" in name or "text_model" in name
    # 8 clips are decoded once each, however many rows and steps ask for them.
    assert trainer.data_collator.frames.num_decoded <= 8


def test_without_lora_the_tower_and_projector_are_frozen(checkpoint, ratings, tmp_path):
    trainer = LiFTCriticTrainer(checkpoint, config(tmp_path, learning_rate=1e-3), train_dataset=ratings)
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, value in trainer.model.named_parameters() if not torch.equal(before[name], value)}
    vision = {name for name in before if "vis" in name or "connector" in name}
    assert vision and not moved & vision
    assert {name for name in before if "layers" in name} - vision <= moved


def test_checkpointing_runs_a_frozen_tower_once_and_changes_no_weight(checkpoint, ratings, tmp_path):
    """One that is adapted is run again, and gone back through."""

    def trained(name, **options):
        args = config(tmp_path / name, max_steps=1, **options)
        torch.manual_seed(0)
        trainer = LiFTCriticTrainer(checkpoint, args, train_dataset=ratings, peft_config=lora())
        passes, tower = [], trainer.model.get_base_model().get_encoder(modality="image")
        layer = next(part for part in tower.modules() if isinstance(part, GradientCheckpointingLayer))
        # Hooks of the layer itself stay outside of its checkpoint.
        next(layer.children()).register_forward_pre_hook(lambda *_: passes.append(torch.is_grad_enabled()))
        trainer.train()
        weights = {name: value for name, value in trainer.model.named_parameters() if value.requires_grad}
        return passes, weights

    plain, found = trained("plain"), trained("again", gradient_checkpointing=True)
    assert plain[0] == found[0] == [False]
    assert all(torch.equal(value, found[1][name]) for name, value in plain[1].items())
    adapted, _ = trained("adapted", gradient_checkpointing=True, vision_learning_rate=1e-3)
    assert adapted == [True, True]


def test_accumulation_trains_like_one_large_batch(checkpoint, ratings, tmp_path):
    """Answers differ in length, so this fails if micro-batches are averaged instead of their tokens."""
    tuned = []
    for size, steps in ((8, 1), (2, 4)):
        args = config(tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=steps)
        trainer = LiFTCriticTrainer(checkpoint, args, train_dataset=ratings, peft_config=lora())
        trainer.train()
        tuned.append({name: value.detach() for name, value in trainer.model.named_parameters() if "lora_B" in name})
    assert max(float(value.abs().max()) for value in tuned[0].values()) > 1e-3
    for name, value in tuned[0].items():
        torch.testing.assert_close(value, tuned[1][name], atol=2e-4, rtol=0)


def test_what_is_saved_scores_the_same(checkpoint, ratings, tmp_path):
    trainer = LiFTCriticTrainer(
        checkpoint, config(tmp_path), train_dataset=ratings, eval_dataset=ratings, peft_config=lora()
    )
    trainer.train()
    trainer.save_model()
    names = {path.name for path in tmp_path.iterdir()}
    assert {"adapter_model.safetensors", "artifact.yaml", "README.md"} <= names and "model.safetensors" not in names
    loaded = LiFTCritic.from_pretrained(tmp_path)
    assert loaded.settings.num_frames == 4 and load_settings(str(tmp_path)) == trainer.critic_settings
    videos, captions = ratings["video"][::3], ratings["caption"][::3]
    trainer.model.eval()
    here = LiFTCritic(trainer.model, trainer.processing_class, settings=trainer.critic_settings)
    for one, other in zip(here.score(videos, captions), loaded.score(videos, captions)):
        for a, b in zip(one.judgements, other.judgements):
            assert a.label == b.label
            assert a.probs == pytest.approx(b.probs, abs=1e-5)
    untuned = LiFTCritic.from_pretrained(checkpoint)
    assert untuned.score(videos[:1], captions[:1])[0].judgements[0].probs != pytest.approx(
        loaded.score(videos[:1], captions[:1])[0].judgements[0].probs, abs=1e-4
    )


def test_evaluation_reports_the_accuracy_of_the_scores(checkpoint, ratings, tmp_path):
    trainer = LiFTCriticTrainer(
        checkpoint, config(tmp_path), train_dataset=ratings, eval_dataset=ratings, peft_config=lora()
    )
    metrics = trainer.evaluate()
    critic = LiFTCritic(trainer.model, trainer.processing_class, settings=trainer.critic_settings)
    scores = critic.score(ratings["video"][::3], ratings["caption"][::3])
    truth = [Label(label) for label in ratings["label"]]
    right = [score[d].label == truth[3 * i + j] for i, score in enumerate(scores) for j, d in enumerate(Dimension)]
    assert metrics["eval_accuracy"] == pytest.approx(sum(right) / len(right))
    first = Dimension.SEMANTIC_CONSISTENCY
    assert metrics[f"eval_accuracy_{first}"] == pytest.approx(sum(right[::3]) / 8)
    assert metrics["eval_num_unscored"] == 0 and 0 < metrics["eval_label_mass"] <= 1
    assert math.isfinite(metrics["eval_loss"])


def test_an_evaluation_is_of_the_ratings_that_it_is_given(ratings, tmp_path):
    """Of other clips than those of the constructor, of one row a clip, and of several sets by name."""
    build_vlm("idefics3", save_directory=tmp_path / "vlm")
    few = ratings.select(range(6))
    other = ratings.select(range(6, 21)).map(lambda row: {"label": {"Good": "Bad", "Bad": "Good"}[row["label"]]})
    by_clip = Dataset.from_list(
        [
            {"id": rows[0]["video_id"], "video": rows[0]["video"], "caption": rows[0]["caption"], "annotations": rows}
            for rows in (other.select(range(i, i + 3)).to_list() for i in range(0, len(other), 3))
        ]
    )

    def trainer(eval_dataset):
        options = {"train_dataset": ratings, "eval_dataset": eval_dataset, "peft_config": lora()}
        return LiFTCriticTrainer(str(tmp_path / "vlm"), config(tmp_path / "o"), **options)

    def figures(metrics, prefix):
        own = {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}
        return {name: value for name, value in own.items() if name.startswith(("loss", "accuracy", "label", "num_un"))}

    own, none, both = trainer(few), trainer(None), trainer({"few": few, "other": other})
    expected = figures(own.evaluate(), "eval_"), figures(trainer(other).evaluate(), "eval_")
    assert abs(expected[0]["accuracy"] - expected[1]["accuracy"]) > 0.1 and "loss" in expected[0]
    for one in (own, none):
        assert figures(one.evaluate(other), "eval_") == pytest.approx(expected[1])
        assert figures(one.evaluate(by_clip, metric_key_prefix="test"), "test_") == pytest.approx(expected[1])
    assert none.label_accuracy(few)["accuracy"] == expected[0]["accuracy"]
    assert figures(own.evaluate(own.eval_dataset), "eval_") == pytest.approx(expected[0])
    assert "accuracy" in figures(own.evaluate(own.train_dataset, None, "train"), "train_")
    found = both.evaluate()
    for name, wanted in zip(("few", "other"), expected):
        assert figures(found, f"eval_{name}_") == pytest.approx(wanted)
        assert both.label_accuracy(name)["accuracy"] == wanted["accuracy"]
    none.eval_dataset = few
    assert figures(none.evaluate(), "eval_") == pytest.approx(expected[0])
    none.eval_dataset, given = None, none.evaluate({"a": few})
    assert figures(given, "eval_a_") == pytest.approx(expected[0])
    for one, message in ((none, "no eval_dataset"), (both, r"name one of \['few', 'other'\]")):
        with pytest.raises(ValueError, match=message):
            one.label_accuracy()
    with pytest.raises(ValueError, match="requires an eval_dataset"):
        none.evaluate()


def test_a_critic_learns_what_depends_on_the_question(ratings, tmp_path):
    """Half of the answers to one question are Bad, by the caption; all others are Good."""
    build_vlm("idefics3", save_directory=tmp_path / "vlm")
    options = {"max_steps": 60, "per_device_train_batch_size": 8, "learning_rate": 2e-2}
    trainer = LiFTCriticTrainer(
        str(tmp_path / "vlm"),
        config(tmp_path / "critic", with_reason=False, **options),
        train_dataset=ratings,
        eval_dataset=ratings,
        peft_config=lora(),
    )
    before = trainer.label_accuracy()
    trainer.train()
    after = trainer.label_accuracy()
    # The frozen head of a random tiny model bounds its certainty, so the mass grows but does not get near 1.
    assert after["label_mass"] > 1e4 * before["label_mass"]
    assert before["accuracy"] < 0.5 and after["accuracy"] > 0.9, (before, after)


def test_a_finished_run_that_is_started_again_changes_nothing(ratings, tmp_path):
    """Stock trains one step more than `max_steps` each time, so that the scores kept so far were another critic's."""
    build_vlm("idefics3", save_directory=tmp_path / "vlm")
    options = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "constant"}
    weights = []
    for _ in range(3):
        args = config(tmp_path / "critic", **options)
        assert len(ratings) > 3 * args.per_device_train_batch_size, "the run must end within an epoch"
        trainer = LiFTCriticTrainer(str(tmp_path / "vlm"), args, train_dataset=ratings, peft_config=lora())
        fit(trainer)
        assert trainer.state.global_step == 3
        weights.append((tmp_path / "critic" / "adapter_model.safetensors").read_bytes())
    assert weights[0] == weights[1] == weights[2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_length": 512}, "max_length=512"),
        ({"remove_unused_columns": True}, "remove_unused_columns=True"),
        ({"completion_only_loss": False}, "only the answer"),
        ({"num_frames": 0}, "at least 1 frame"),
        ({"mismatched_captions": 2.0}, "share in"),
    ],
)
def test_settings_that_would_spoil_a_critic_are_refused(options, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        config(tmp_path, **options)


#: What of `SFTConfig` acts on a critic as TRL says, apart from what `LiFTCriticConfig` has a default of its own for.
ACTS = {
    *("model_init_kwargs", "trust_remote_code", "router_aux_loss_coef", "chat_template_path", "eos_token"),
    *("loss_type", "activation_offloading"),
}


def test_no_option_of_trl_is_ignored(tmp_path):
    """Each acts or is refused; a new one of another TRL must be put to one of the two."""
    own, mine = (set(inspect.get_annotations(config)) for config in (SFTConfig, LiFTCriticConfig))
    assert own - mine - set(FIXED) == ACTS and not ACTS & set(FIXED)
    for name in FIXED:
        with pytest.raises(ValueError, match=f"{name}='odd' does not go with a critic: .*Leave it out"):
            config(tmp_path, **{name: "odd"})
    args = config(tmp_path)
    args.dataset_kwargs = {"skip_prepare_dataset": True}  # as the trainer leaves them
    assert dataclasses.replace(args).num_frames == args.num_frames


def test_defaults_are_the_papers(tmp_path):
    args = LiFTCriticConfig(output_dir=str(tmp_path), report_to="none")
    assert (args.learning_rate, args.lr_scheduler_type, args.warmup_steps) == (1e-5, "cosine", 0.03)
    assert (args.num_train_epochs, args.num_frames, args.max_length) == (20, 8, None)
    if not torch.accelerator.is_available():
        assert args.use_cpu and args.bf16 is False


def test_quantisation_reaches_the_model_and_what_the_user_gave_stays():
    quantised = model_init_kwargs(ModelConfig(load_in_4bit=True, dtype="bfloat16"), {"attn_implementation": "eager"})
    assert quantised.pop("quantization_config").bnb_4bit_compute_dtype is torch.bfloat16
    assert quantised == {"revision": "main", "dtype": "bfloat16", "attn_implementation": "eager"}
    assert model_init_kwargs(ModelConfig(load_in_8bit=True), None)["quantization_config"].load_in_8bit
    with pytest.raises(ValueError, match="give a mapping"):
        model_init_kwargs(ModelConfig(), "revision=v2")
    for options, given, message in (
        (
            {"attn_implementation": "eager"},
            {"attn_implementation": "sdpa"},
            "'sdpa', and attn_implementation says 'eager'",
        ),
        ({"model_revision": "v2"}, {"revision": "v3"}, "revision: 'v3', and model_revision says 'v2'"),
        ({"load_in_4bit": True}, {"quantization_config": {"load_in_8bit": True}}, "load_in_8bit or load_in_4bit says"),
    ):
        with pytest.raises(ValueError, match=message):
            model_init_kwargs(ModelConfig(**options), given)


def test_the_adapter_remembers_the_revision_of_its_base(ratings, tmp_path):
    """Else it would be loaded on the base's main branch, whatever it was trained on."""
    build_vlm("idefics3", save_directory=tmp_path / "vlm")
    args = config(tmp_path / "critic", model_init_kwargs={"revision": "v2"})
    trainer = LiFTCriticTrainer(str(tmp_path / "vlm"), args, train_dataset=ratings, peft_config=lora())
    trainer.save_model()
    assert PeftConfig.from_pretrained(str(tmp_path / "critic")).revision == "v2"


def test_a_checkpoint_without_its_optimizer_is_no_whole_one(ratings, tmp_path):
    """The Trainer saves the model first: a process that is killed after that must not go on from there."""
    build_vlm("idefics3", save_directory=tmp_path / "vlm")
    trainer = LiFTCriticTrainer(
        str(tmp_path / "vlm"),
        config(tmp_path / "out", max_steps=1, save_strategy="steps", save_steps=1),
        train_dataset=ratings,
        peft_config=lora(),
    )
    trainer.save_model(str(tmp_path / "out" / "checkpoint-1"), _internal_call=True)
    assert last_checkpoint(tmp_path / "out") is None
    trainer.train()
    assert last_checkpoint(tmp_path / "out") == str(tmp_path / "out" / "checkpoint-1")
    assert (tmp_path / "out" / "checkpoint-1" / "optimizer.pt").is_file()
