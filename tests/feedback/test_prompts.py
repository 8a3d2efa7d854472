"""Draws from the category lists, and their expansion by a template or by a (tiny, random, real) chat model."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lift_trl.cli import main
from lift_trl.feedback.categories import SUBJECTS, WORDS, Category, subject_category
from lift_trl.feedback.prompts import (
    Phrase,
    chat_model_expander,
    draw_phrases,
    draw_prompts,
    expand_by_template,
)


def test_lists_are_rich_and_hold_no_word_twice():
    for category, words in WORDS.items():
        assert len(words) >= 28 and len(set(words)) == len(words) and all(words), category
    assert "fixing a leaky faucet" in WORDS[Category.DIFFICULT_ACTION] and "theatre stage" in WORDS[Category.PLACE]
    subjects = [word for category in SUBJECTS for word in WORDS[category]]
    assert len(set(subjects)) == len(subjects)


def test_draws_are_repeatable_different_and_a_prefix_of_longer_draws():
    phrases = draw_phrases(500, seed=3)
    assert phrases == draw_phrases(500, seed=3) and phrases[:50] == draw_phrases(50, seed=3)
    assert len({phrase.text for phrase in phrases}) == 500
    assert phrases[:50] != draw_phrases(50, seed=4)
    with pytest.raises(ValueError, match="at least one"):
        draw_phrases(0)


def test_every_category_is_drawn_in_its_share():
    phrases = draw_phrases(1000)
    drawn = Counter(category for phrase in phrases for category in set(phrase.categories))
    assert set(drawn) == set(Category)
    assert 140 < drawn[Category.IMAGINED_PLACE] < 260 and 420 < drawn[Category.DIFFICULT_ACTION] < 580
    assert 140 < sum(len(phrase.subjects) == 2 for phrase in phrases) < 260
    assert all(len(set(phrase.subjects)) == len(phrase.subjects) in (1, 2) for phrase in phrases)


def test_phrase_in_words():
    owl = Phrase(("owl",), "nodding", "teacup", (Category.OTHER_ANIMAL, Category.EASY_ACTION, Category.IMAGINED_PLACE))
    assert owl.text == "an owl nodding on a teacup"


def test_the_template_keeps_subjects_action_and_place():
    phrases = draw_phrases(200)
    for phrase, prompt in zip(phrases, draw_prompts(200), strict=True):
        assert all(word in prompt.lower() for word in (*phrase.subjects, phrase.action, phrase.place.lower()))
        assert 40 <= len(prompt.split()) <= 110 and prompt.isascii()
    assert expand_by_template(phrases[:1]) == draw_prompts(200)[:1]


def test_the_category_of_a_caption_is_that_of_its_first_subject():
    captions = ("Two Foxes and a waiter", "An old woman and her dog", "A bird sings", "A car")
    assert [subject_category(caption) for caption in captions] == [
        Category.LAND_ANIMAL,
        Category.HUMAN,
        Category.OTHER_ANIMAL,
        None,
    ]
    assert subject_category("a redfoxy cartoon") is None
    right = sum(subject_category(phrase.text) == phrase.categories[0] for phrase in draw_phrases(300))
    assert right == 300


@pytest.fixture
def chat_model(tmp_path: Path) -> Path:
    """A Llama of random weights that writes bytes, saved as a checkpoint."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<pad>", "<end>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")
    fast.chat_template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        initializer_range=0.7,  # so that attention looks at more than the last token
    )
    model = LlamaForCausalLM(config)
    # Only letters: a random model writes white space and broken UTF-8 too, and an empty prompt is an error.
    letters = [number for token, number in vocabulary.items() if token.isascii() and token.isalpha()]
    with torch.no_grad():
        chosen = model.lm_head.weight[letters].clone()
        model.lm_head.weight.zero_()
        model.lm_head.weight[letters] = chosen * 100
    model.save_pretrained(tmp_path / "chat")
    fast.save_pretrained(tmp_path / "chat")
    return tmp_path / "chat"


def test_a_chat_model_expands_greedily_and_alike_in_any_batch(chat_model: Path):
    phrases = draw_phrases(5)
    prompts = [chat_model_expander(str(chat_model), batch_size=size, max_new_tokens=12)(phrases) for size in (1, 2, 5)]
    assert prompts[0] == prompts[1] == prompts[2]
    assert all(prompt.isascii() and len(prompt) == 12 for prompt in prompts[0])
    assert len(set(prompts[0])) > 1  # the phrase is read
    loaded = LlamaForCausalLM.from_pretrained(chat_model), PreTrainedTokenizerFast.from_pretrained(chat_model)
    assert chat_model_expander(*loaded, max_new_tokens=12)(phrases) == prompts[0]
    assert draw_prompts(5, expand=chat_model_expander(str(chat_model), max_new_tokens=12)) == prompts[0]


def test_the_command_writes_one_prompt_a_line(chat_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    by_template, by_model = tmp_path / "template.txt", tmp_path / "model.txt"
    assert main(["prompts", str(by_template), "--num", "3", "--seed", "2"]) == 0
    assert by_template.read_text().splitlines() == draw_prompts(3, seed=2)
    assert main(["prompts", str(by_model), "--num", "2", "--model", str(chat_model)]) == 0
    assert f"2 prompts in {by_model}" in capsys.readouterr().out
    assert by_model.read_text().splitlines() == draw_prompts(2, expand=chat_model_expander(str(chat_model)))


def test_an_empty_answer_and_a_model_without_chat_template_are_errors(chat_model: Path):
    model, tokenizer = (
        LlamaForCausalLM.from_pretrained(chat_model),
        PreTrainedTokenizerFast.from_pretrained(chat_model),
    )
    model.generation_config.eos_token_id = list(range(len(tokenizer)))  # every token ends the answer at once
    model.lm_head.weight.data.zero_()
    with pytest.raises(ValueError, match="with nothing"):
        chat_model_expander(model, tokenizer, max_new_tokens=4)(draw_phrases(1))
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        chat_model_expander(model, tokenizer)
