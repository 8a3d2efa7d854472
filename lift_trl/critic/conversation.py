"""A clip and a question as text: the prompt as the chat template renders it, and the answer that follows."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..protocols import CriticModel, RewardModel


def render_prompt(adapter: CriticModel, processor: Any, frames: Sequence[Any], question: str) -> str:
    """The user's turn with placeholders for the frames, up to where the critic begins to answer."""
    messages = adapter.prompt(frames, question)
    text: str = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return text


def render_answer(adapter: CriticModel, processor: Any, frames: Sequence[Any], question: str, answer: str) -> str:
    """
    What follows `render_prompt` when the critic answers: `answer`, as the template writes it, and the end of the turn.

    Where a template ends no turn (LLaVA-1.5, GLM), the tokenizer's end of text does, or the critic would never stop.

    Raises:
        ValueError: if the template writes the prompt differently once there is an answer, or nothing can end it.
    """
    prompt = render_prompt(adapter, processor, frames, question)
    turn = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
    whole: str = processor.apply_chat_template([*adapter.prompt(frames, question), turn], tokenize=False)
    if not whole.startswith(prompt):
        raise ValueError(
            "the chat template changes the prompt when an answer follows it, so the answer cannot be told from it. Set "
            "a template on the processor whose generation prompt is a prefix of the assistant's turn."
        )
    # Some templates end a turn with a line break that no answer needs.
    text = whole[len(prompt) :].rstrip()
    if not text.endswith(answer):
        return text
    end = processor.tokenizer.eos_token
    if end is None:
        raise ValueError(
            "neither the chat template nor the tokenizer ends an answer, so the critic would never stop. Set eos_token."
        )
    return text + str(end)


def answer_tokens(tokenizer: Any, prompt: str, text: str) -> list[int]:
    """
    The tokens of `text` where it follows `prompt`, as the model would write them.

    By itself, text gets a space at its beginning from tokenizers such as Llama's, and so one more than it has here.
    """
    before, whole = tokenizer([prompt, prompt + text], add_special_tokens=False)["input_ids"]
    if whole[: len(before)] == before:
        return list(whole[len(before) :])
    # The prompt's last token would go on into the answer: the model is given that token as it is.
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def caption_of(prompt: str | Sequence[Mapping[str, Any]]) -> str:
    """
    The caption of one of TRL's prompts: the text itself, or that of a conversation's last message.

    >>> caption_of([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "A fox."}]}])
    'A fox.'
    """
    content = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content if part["type"] == "text")


def trl_rewards(reward_model: RewardModel, prompts: Sequence[Any], completions: Sequence[Any]) -> list[float | None]:
    """The reward of each of `completions` (videos) under its prompt's caption, `None` where it is unscored."""
    scores = reward_model.score(completions, [caption_of(prompt) for prompt in prompts])
    return [None if score.unscored else score.reward for score in scores]


def shared_prefix(rows: Sequence[Sequence[int]]) -> int:
    """
    How many tokens all `rows` have in common at their beginning.

    >>> shared_prefix([[1, 2, 3], [1, 2, 4, 5]])
    2
    """
    count = 0
    for column in zip(*rows):
        if len(set(column)) > 1:
            break
        count += 1
    return count
