"""A critic behind any OpenAI-compatible endpoint (vLLM, SGLang, `transformers serve`, a provider) as a `RewardModel`."""

import base64
import io
import logging
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from huggingface_hub import InferenceClient
from PIL import Image

from ..records import CriticScore, Judgement, VideoSource, content_id
from ..rubric import LIFT, Rubric, UnparsableAnswerError
from ..store.video_io import Clip, describe, sample_frames
from .conversation import trl_rewards


# Not accelerate's logger, which raises where no launcher state was made: a critic is also used by itself.
logger = logging.getLogger(__name__)

#: Alternatives of a token that servers commonly give.
TOP_LOGPROBS = 20
#: Tokens that hold a label and the mark behind it, however a tokenizer cuts them.
LABEL_TOKENS = 16


class ServedCritic:
    """
    Asks a served vision-language model the questions of a rubric about a clip, frames as images, at temperature 0.

    With log-probabilities, a label's probability is that of the first tokens that write it (`"Normal"`, `" normal"`), or
    begin it where none is the whole label (`"N"`), normalised over the labels; every label begins with another letter, so no
    token counts twice. Without them, the label is parsed from the written answer and `probs` is `None`.

    A clip that cannot be read, and an answer that begins with no label ("No obvious problems."), are unscored. A server
    that fails raises: run it again, finished clips are kept.

    Args:
        model: its name at the server.
        base_url: the server's address up to and with `/v1`.
        logprobs: ask for log-probabilities. vLLM and SGLang give them; `transformers serve` does not.
        api_key: for servers that want one.
        num_frames: frames spread uniformly over a clip.
        max_tokens: length at which an answer is cut.
        max_workers: questions asked at the same time.
        timeout_s: seconds to wait for an answer.
        rubric: what it is asked.

    Attributes:
        name: what the scores say of their origin: `model` and a hash of what else changes them.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str,
        logprobs: bool = True,
        api_key: str | None = None,
        num_frames: int = 8,
        max_tokens: int = 64,
        max_workers: int = 8,
        timeout_s: float = 120.0,
        rubric: Rubric = LIFT,
    ) -> None:
        if logprobs:
            check_first_letters(rubric)
        own = () if rubric == LIFT else (rubric.id,)
        self.name = f"{model}@{content_id(model, base_url, logprobs, num_frames, max_tokens, *own)}"
        self.rubric = rubric
        self.model, self.logprobs = model, logprobs
        self.num_frames, self.max_tokens, self.max_workers = num_frames, max_tokens, max_workers
        # Without a key the client would send the user's Hugging Face token to a server that is not the Hub's.
        self._client = InferenceClient(base_url=base_url, api_key=api_key or "none", timeout=timeout_s)

    def score(
        self, videos: Sequence[VideoSource | str], captions: Sequence[str], *, with_reason: bool = False
    ) -> list[CriticScore]:
        """
        As `LiFTCritic.score`.

        Raises:
            ValueError: if `videos` and `captions` differ in number.
            huggingface_hub.errors.HfHubHTTPError: if the server refuses or fails.
        """
        if len(videos) != len(captions):
            raise ValueError(f"{len(videos)} videos and {len(captions)} captions; give one caption for each video.")
        with ThreadPoolExecutor(self.max_workers) as pool:
            return [self._score(pool, video, caption, with_reason) for video, caption in zip(videos, captions)]

    def reward_func(self, prompts: Sequence[Any], completions: Sequence[Any], **kwargs: Any) -> list[float | None]:
        """As `LiFTCritic.reward_func`."""
        return trl_rewards(self, prompts, completions)

    def _score(
        self, pool: ThreadPoolExecutor, video: VideoSource | str, caption: str, with_reason: bool
    ) -> CriticScore:
        def unscored(problem: object) -> CriticScore:
            logger.warning("unscored: %s", problem)
            return CriticScore(unit, self.name, unscored=str(problem))

        unit = content_id(video if isinstance(video, bytes) else describe(video), caption)
        if not caption.strip():
            return unscored("the caption is empty")
        try:
            frames = encode_frames(sample_frames(video, self.num_frames))
        except (ValueError, FileNotFoundError) as error:
            return unscored(error)
        asked = [(d, self.rubric.question(d, caption)) for d in self.rubric.dimensions]
        questions = [(dimension, self._messages(frames, text)) for dimension, text in asked]
        try:
            return CriticScore(
                unit, self.name, tuple(pool.map(lambda item: self._ask(item[0], item[1], with_reason), questions))
            )
        except UnparsableAnswerError as error:
            return unscored(error)

    def _messages(self, frames: Iterable[str], text: str) -> list[dict[str, Any]]:
        images: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": frame}} for frame in frames]
        return [{"role": "user", "content": [*images, {"type": "text", "text": text}]}]

    def _ask(self, dimension: str, messages: list[dict[str, Any]], with_reason: bool) -> Judgement:
        options: dict[str, Any] = {"logprobs": True, "top_logprobs": TOP_LOGPROBS} if self.logprobs else {}
        length = self.max_tokens if with_reason or not self.logprobs else LABEL_TOKENS
        reply = self._client.chat_completion(
            messages, model=self.model, temperature=0.0, max_tokens=length, seed=0, **options
        ).choices[0]
        tokens = reply.logprobs.content if reply.logprobs else None
        if self.logprobs and not tokens:
            raise OSError(
                f"{self.model} returned no log-probabilities. Set logprobs=False to parse its answers instead."
            )
        text = reply.message.content or ""
        # The first token alone cannot tell "Normal." from "No obvious problems."
        answer = self.rubric.parse_answer(text)
        if not self.logprobs or not tokens:
            reason = answer.reason if with_reason else ""
            return Judgement(dimension, answer.label, reason=reason, rubric=self.rubric)
        mass = label_mass(((top.token, top.logprob) for top in tokens[0].top_logprobs), self.rubric)
        total = sum(mass.values())
        if total <= 0:
            raise UnparsableAnswerError(f"no label is among the {TOP_LOGPROBS} likeliest beginnings of {text[:80]!r}.")
        probs = {label: p / total for label, p in mass.items()}
        label = max(probs, key=lambda one: probs[one])
        # A reason is one for the label that it stands behind.
        reason = answer.reason if with_reason and answer.label == label else ""
        return Judgement(dimension, label, probs, reason, min(1.0, total), self.rubric)


def check_first_letters(rubric: Rubric) -> None:
    """Raises `ValueError` where two labels begin alike, so that the beginning of a label tells no probability of it."""
    firsts: dict[str, str] = {}
    for label in rubric.labels:
        other = firsts.setdefault(label[0].lower(), label)
        if other is not label:
            raise ValueError(
                f"labels {other} and {label} begin with the same letter, so the first token of an answer may be that of "
                "either. Set logprobs=False, which parses the written answers, or rename one of them."
            )


def label_mass(tokens: Iterable[tuple[str, float]], rubric: Rubric = LIFT) -> dict[str, float]:
    """
    Probability that the answer begins with each label, from the likeliest first tokens and their log-probabilities.

    Where a token is the whole label, shorter ones are other words ("No"); else they are its beginning.

    >>> tokens = [("Good", -0.69), (" Nor", -1.61), ("Go", -1.9), ("The", -2.3)]
    >>> {label.name: round(p, 2) for label, p in label_mass(tokens).items()}
    {'BAD': 0.0, 'NORMAL': 0.2, 'GOOD': 0.5}

    Raises:
        UnparsableAnswerError: if a label's is no number, as a model's that overflows.
    """
    probs = [(token.strip().lower(), math.exp(logprob)) for token, logprob in tokens]
    mass = {}
    for label in rubric.labels:
        whole = [p for text, p in probs if text == label.lower()]
        begun = [p for text, p in probs if text and label.lower().startswith(text)]
        mass[label] = sum(whole or begun, 0.0)
        if not math.isfinite(mass[label]):
            raise UnparsableAnswerError(f"the log-probability of {label} is not finite.")
    return mass


def encode_frames(clip: Clip) -> list[str]:
    """The frames as data URLs of PNG, which loses nothing."""
    urls = []
    for frame in clip.frames:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, format="PNG")
        urls.append(f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}")
    return urls
