"""Prompts for stage 1: subjects, a place and an action drawn from lists, joined to a phrase, expanded to a long prompt.

Video models are trained on long prompts, so a chat model expands each phrase; without one a template does.
Source: arXiv 2412.04814, section 3.2 and table 6.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from ..records import seed_from
from .categories import SUBJECTS, WORDS, Category


Expand = Callable[[Sequence["Phrase"]], list[str]]

#: What a chat model is asked. It is given one phrase at a time.
INSTRUCTION = (
    "Expand this short phrase into one detailed prompt for a video generator. Keep every subject, the action and the "
    "place. Describe how the subjects look, how they move, the surroundings, the light and the camera in 60 to 100 words "
    "of plain English, as one paragraph. Answer with the prompt only.\n\nPhrase: {phrase}"
)

_LIGHT = (
    "Soft morning light falls from the left and gives long, gentle shadows.",
    "Warm sunlight of the late afternoon fills the scene.",
    "The light is even and bright, as on a slightly clouded day.",
    "A cool, blue light of the early evening lies over everything.",
)
_CAMERA = (
    "The camera stays still at eye level and shows the whole body.",
    "The camera slowly moves closer until the face fills half of the picture.",
    "The camera glides sideways and keeps the action in the centre.",
    "A wide shot shows the surroundings first, then settles on the action.",
)


@dataclass(frozen=True)
class Phrase:
    """What a prompt is about: one or two subjects of one category each, an action, a place."""

    subjects: tuple[str, ...]
    action: str
    place: str
    categories: tuple[Category, ...]  # of the subjects, the action, the place, in this order

    @property
    def text(self) -> str:
        """
        The phrase in words.

        >>> Phrase(("waiter", "owl"), "washing dishes", "kitchen", ()).text
        'a waiter and an owl washing dishes in a kitchen'
        """
        subjects = " and ".join(with_article(subject) for subject in self.subjects)
        preposition = "on" if Category.IMAGINED_PLACE in self.categories else "in"
        return f"{subjects} {self.action} {preposition} {with_article(self.place)}"


def with_article(noun: str) -> str:
    """`noun` with its indefinite article: `"an owl"`."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def draw_phrases(num_phrases: int, *, seed: int = 0) -> list[Phrase]:
    """
    Different phrases, drawn alike on every machine. The first ones do not depend on `num_phrases`.

    A fifth has two subjects, a fifth an imagined place, half a difficult action [ours; the paper gives no shares].

    Raises:
        ValueError: if `num_phrases` < 1.
    """
    if num_phrases < 1:
        raise ValueError(f"num_phrases={num_phrases}; draw at least one.")
    rng = Random(seed_from("phrases", seed))
    drawn: dict[str, Phrase] = {}
    while len(drawn) < num_phrases:
        phrase = _draw_phrase(rng)
        drawn.setdefault(phrase.text, phrase)
    return list(drawn.values())


def _draw_phrase(rng: Random) -> Phrase:
    subjects: list[tuple[Category, str]] = []
    for _ in range(2 if rng.random() < 0.2 else 1):
        category = rng.choice(SUBJECTS)
        taken = [word for _, word in subjects]
        subjects.append((category, rng.choice([word for word in WORDS[category] if word not in taken])))
    action = Category.DIFFICULT_ACTION if rng.random() < 0.5 else Category.EASY_ACTION
    place = Category.IMAGINED_PLACE if rng.random() < 0.2 else Category.PLACE
    return Phrase(
        subjects=tuple(word for _, word in subjects),
        action=rng.choice(WORDS[action]).replace(" its ", " the " if len(subjects) > 1 else " its "),
        place=rng.choice(WORDS[place]),
        categories=(*(category for category, _ in subjects), action, place),
    )


def draw_prompts(num_prompts: int, *, seed: int = 0, expand: Expand | None = None) -> list[str]:
    """
    Long prompts: phrases drawn by `draw_phrases`, expanded by `expand` (a template for `None`).

    >>> draw_prompts(1, expand=lambda phrases: [phrase.text for phrase in phrases]) == [draw_phrases(1)[0].text]
    True
    """
    return (expand or expand_by_template)(draw_phrases(num_prompts, seed=seed))


def expand_by_template(phrases: Sequence[Phrase]) -> list[str]:
    """The phrases in full sentences with light and camera, always the same for the same phrase."""
    prompts = []
    for phrase in phrases:
        rng = Random(seed_from("template", phrase.text))
        subjects = " and ".join(f"the {subject}" for subject in phrase.subjects)
        verb = "are" if len(phrase.subjects) > 1 else "is"
        prompts.append(
            f"{phrase.text[0].upper()}{phrase.text[1:]}. Every detail of {subjects} is clear and sharp, and the movements "
            f"are natural and fluid while {subjects} {verb} {phrase.action}. {rng.choice(_LIGHT)} {rng.choice(_CAMERA)}"
        )
    return prompts


def chat_model_expander(
    model: Any, tokenizer: Any = None, *, batch_size: int = 8, max_new_tokens: int = 200
) -> Expand:
    """
    A function that expands phrases by a chat model, greedily: the same model gives the same prompts.

    Args:
        model: name of a chat model of the Hub, a local path, or a loaded causal language model.
        tokenizer: the tokenizer (with a chat template) of a loaded model; that of the name by default.
        max_new_tokens: room for a prompt. Families read 128 to 1,000 tokens of it, 226 being about 160 words.

    Raises:
        ValueError: if the tokenizer has no chat template; when called, if the model answers a phrase with nothing.
    """
    from transformers import GenerationConfig, pipeline

    pipe: Any = pipeline("text-generation", model=model, tokenizer=tokenizer)
    words = pipe.tokenizer
    if words.chat_template is None:
        raise ValueError(f"{words.name_or_path or 'the tokenizer'} has no chat template; use a chat (instruct) model.")
    if words.pad_token_id is None:
        words.pad_token = words.eos_token
    words.padding_side = "left"
    greedy = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        pad_token_id=words.pad_token_id,
        eos_token_id=pipe.model.generation_config.eos_token_id or words.eos_token_id,
    )

    def expand(phrases: Sequence[Phrase]) -> list[str]:
        chats = [[{"role": "user", "content": INSTRUCTION.format(phrase=phrase.text)}] for phrase in phrases]
        outputs = pipe(chats, batch_size=batch_size, generation_config=greedy, return_full_text=False)
        prompts = [" ".join(output[0]["generated_text"].split()).strip('"') for output in outputs]
        for phrase, prompt in zip(phrases, prompts):
            if not prompt:
                raise ValueError(
                    f"the model answered {phrase.text!r} with nothing; use another model or the template."
                )
        return prompts

    return expand
