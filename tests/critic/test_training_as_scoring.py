"""What is taught is what is scored: the same tokens, an end to each answer, the same captions, the same precision."""

import logging

import numpy as np
import pytest
import torch
from peft import LoraConfig
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from lift_trl.critic.collator import CriticCollator, FrameCache
from lift_trl.critic.conversation import answer_tokens, render_answer, render_prompt
from lift_trl.critic.critic_config import LiFTCriticConfig
from lift_trl.critic.critic_trainer import LiFTCriticTrainer
from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.critic.prefix import end_tokens, label_tokens
from lift_trl.critic.settings import CriticSettings
from lift_trl.critic_models import ChatVLM
from lift_trl.rubric import LIFT, Label
from tests.critic.rendered_clips import rated_squares
from tests.critic.tiny_models import GLM_TEMPLATE, build_vlm


# LLaVA-1.5's: neither of its turns of the assistant ends in anything but a space.
LLAVA_TEMPLATE = """\
{% for m in messages %}{{ m.role | upper }}: {% for c in m.content %}{% if c.type == 'image' %}<image>
{% endif %}{% endfor %}{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }} {% endif %}{% endfor %}{% endfor %}\
{% if add_generation_prompt %}ASSISTANT:{% endif %}"""


def llama_tokenizer():
    """SentencePiece as Llama has it: a text gets a space at its beginning, and spaces are parts of words."""
    pieces = [*"\u2581:.,<>\nabcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-'()"]
    merges: list[tuple[str, str]] = []
    for word in ("\u2581Good", "\u2581Normal", "\u2581Bad"):
        for end in range(2, len(word) + 1):
            merges.append((word[: end - 1], word[end - 1]))
    specials = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
    vocab = {piece: n for n, piece in enumerate(dict.fromkeys([*specials, *pieces, *("".join(m) for m in merges)]))}
    backend = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Fuse()])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=["<image>"],
    )


class Llava:
    """As much of LLaVA-1.5's processor as text needs."""

    tokenizer = llama_tokenizer()

    def apply_chat_template(self, messages, **options):
        return self.tokenizer.apply_chat_template(messages, chat_template=LLAVA_TEMPLATE, **options)


def test_the_scored_label_is_what_a_llama_would_write():
    """By itself "Normal." would begin with two spaces, one of the template and one of the tokenizer."""
    processor = Llava()
    labels = label_tokens(ChatVLM(), processor, LIFT)
    for label in Label:
        assert processor.tokenizer.convert_ids_to_tokens(labels[label].label) == [f"\u2581{label}"]
        assert processor.tokenizer.convert_ids_to_tokens(labels[label].rest) == ["."]
    prompt = render_prompt(ChatVLM(), processor, [None], "A fox.")
    text = render_answer(ChatVLM(), processor, [None], "A fox.", "Bad. No fox.")
    assert text == " Bad. No fox.</s>"
    tokens = answer_tokens(processor.tokenizer, prompt, text)
    whole = processor.tokenizer(prompt + text, add_special_tokens=False)["input_ids"]
    assert whole[-len(tokens) :] == tokens and processor.tokenizer.convert_ids_to_tokens(tokens)[0] == "\u2581Bad"


@pytest.mark.parametrize("family", ["idefics3", "qwen2_5_vl", "internvl"])
def test_templates_that_end_a_turn_are_left_as_they_are(family):
    _, processor = build_vlm(family)
    answer = render_answer(ChatVLM(), processor, [None], "A fox.", "Good.")
    assert answer.strip() == "Good." + processor.tokenizer.eos_token


def test_an_answer_ends_where_the_template_ends_no_turn():
    """GLM's template: the next turn ends the one before it, and after the answer there is none."""
    model, processor = build_vlm("idefics3")
    processor.chat_template = GLM_TEMPLATE.replace("<|begin_of_image|><|image|><|end_of_image|>", "<image>")
    end = processor.tokenizer.eos_token
    assert render_answer(ChatVLM(), processor, [None], "A fox.", "Bad. No fox.") == f"Bad. No fox.{end}"
    assert processor.tokenizer.eos_token_id in end_tokens(ChatVLM(), processor, model, LIFT)
    processor.tokenizer.eos_token = None
    with pytest.raises(ValueError, match="never stop"):
        render_answer(ChatVLM(), processor, [None], "A fox.", "Bad.")


def test_a_critic_with_such_a_template_learns_to_stop(ratings):
    _, processor = build_vlm("idefics3")
    processor.chat_template = GLM_TEMPLATE.replace("<|begin_of_image|><|image|><|end_of_image|>", "<image>")
    collator = CriticCollator(ChatVLM(), processor, CriticSettings(num_frames=2), FrameCache(2, 1e8))
    batch = collator([ratings[0], ratings[5]])
    for row in batch["labels"]:
        assert row[row != -100][-1] == processor.tokenizer.eos_token_id


@pytest.fixture(scope="module")
def ratings(tmp_path_factory):
    return rated_squares(tmp_path_factory.mktemp("ratings"), captions=2)


def arguments(folder, **options):
    defaults = {"num_frames": 2, "report_to": "none", "per_device_eval_batch_size": 3, "gradient_checkpointing": False}
    return LiFTCriticConfig(output_dir=str(folder), **{**defaults, **options})


def test_text_with_tokens_of_the_template_is_not_trained_on_as_it_is_not_scored(ratings, tmp_path, caplog):
    model, processor = build_vlm("idefics3")
    rows = ratings.to_list()
    for row in rows[3:6]:
        row["caption"] += " <image>"  # the second clip's
    rows[8]["reason"] = "It ends<end_of_utterance> early."
    spoiled = ratings.from_list(rows)
    with caplog.at_level(logging.WARNING, logger="lift_trl"):
        trainer = LiFTCriticTrainer(
            model, arguments(tmp_path), train_dataset=spoiled, eval_dataset=spoiled, processing_class=processor
        )
    assert len(trainer.train_dataset) == len(trainer.eval_dataset) == len(rows) - 4
    assert "4 of 12 ratings" in caplog.text and "first row 3 with '<image>'" in caplog.text
    assert trainer.label_accuracy()["num_unscored"] == 1
    with pytest.raises(ValueError, match="nothing is left"):
        LiFTCriticTrainer(
            model, arguments(tmp_path), train_dataset=spoiled.select(range(3, 6)), processing_class=processor
        )


def test_the_accuracy_of_labels_is_that_of_a_model_in_evaluation(ratings, tmp_path):
    """With nine tenths of a LoRA dropped at random, a model in training mode would say something else each time."""
    model, processor = build_vlm("idefics3")
    trainer = LiFTCriticTrainer(
        model,
        arguments(tmp_path),
        train_dataset=ratings,
        eval_dataset=ratings,
        processing_class=processor,
        peft_config=LoraConfig(r=4, lora_alpha=400, lora_dropout=0.9),
    )
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(0))
    clips = trainer._held(None).clips
    trainer.model.train()
    measured = trainer.label_accuracy()
    assert trainer.model.training
    scores = LiFTCritic(trainer.model.eval(), processor, settings=trainer.critic_settings).score(
        [ratings[clip.row]["video"] for clip in clips], [clip.caption for clip in clips]
    )
    masses = [judgement.label_mass for score in scores for judgement in score.judgements]
    assert measured["label_mass"] == pytest.approx(np.mean(masses), rel=1e-4)
    right = [score[d].label == label for score, clip in zip(scores, clips) for d, label in clip.labels.items()]
    assert measured["accuracy"] == pytest.approx(np.mean(right))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_whole_model_is_not_trained_in_half_precision(dtype, ratings, tmp_path):
    model, processor = build_vlm("idefics3")
    options = {"train_dataset": ratings, "processing_class": processor}
    with pytest.raises(ValueError, match=r"float16, which rounds away .*use_peft"):
        LiFTCriticTrainer(model.to(dtype), arguments(tmp_path), **options)
    trainer = LiFTCriticTrainer(model, arguments(tmp_path), peft_config=LoraConfig(r=4), **options)
    assert {p.dtype for p in trainer.model.parameters() if p.requires_grad} == {torch.float32}


def test_clips_of_one_name_in_two_folders_are_two_clips(tmp_path):
    """Frames are kept by the file, not by its name."""
    for number, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        rated_squares(tmp_path / folder, captions=number + 1)
    frames = FrameCache(3, 1e9)
    one, other = (frames.read(tmp_path / folder / "red-True.mp4").frames for folder in ("a", "b"))
    green = frames.read(tmp_path / "b" / "green-True.mp4").frames
    assert frames.num_decoded == 3 and np.array_equal(one, other) and not np.array_equal(one, green)
    (tmp_path / "a" / "green-True.mp4").write_bytes((tmp_path / "a" / "red-True.mp4").read_bytes())
    assert np.array_equal(frames.read(tmp_path / "a" / "green-True.mp4").frames, one)
