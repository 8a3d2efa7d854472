"""VideoScore2: visual quality, alignment and physical sense from 1 to 5, after a written chain of thought."""

import re
from collections.abc import Sequence

from torch import Tensor

from ..records import StoredVideo, VideoSource
from ..store.video_io import Clip
from .native import Scale, UnreadableAnswerError, fit, frames_at
from .written import WrittenJudge


#: What the answer calls each aspect, in its order.
HEADINGS = ("visual quality:", "text-to-video alignment:", "physical/common-sense consistency:")
#: Source: `VIDEO_MIN_PIXELS`, `VIDEO_MAX_PIXELS`, `VIDEO_TOTAL_PIXELS` of qwen-vl-utils.
MIN_PIXELS, MAX_PIXELS, TOTAL_PIXELS = 128 * 28 * 28, 768 * 28 * 28, 24576 * 28 * 28


class VideoScore2(WrittenJudge):
    """
    TIGER-Lab's judge. A value is the written digit times its share of the probability of the five digits there.

    Its makers sample at temperature 0.7; here the answer is greedy, so that a second run says the same.

    Source: TIGER-AI-Lab/VideoScore2, eval/eval_methods/vs2_float.py; arXiv 2509.22799.
    """

    released = "TIGER-Lab/VideoScore2"
    aspects = ("visual_quality", "alignment", "physical_sense")
    default_scale = Scale("linear", 1.0, 5.0)
    prompt_file = "video_score2.txt"
    native_video, max_new_tokens = True, 1024
    fps = 2.0

    def frames(self, video: VideoSource | StoredVideo | str) -> Clip:
        """As `WrittenJudge.frames`."""
        clip = frames_at(video, self.fps)
        patch = self.processor.video_processor.patch_size * self.processor.video_processor.merge_size
        most = max(min(MAX_PIXELS, TOTAL_PIXELS / len(clip.frames) * 2), int(MIN_PIXELS * 1.05))
        return fit(clip, factor=patch, min_pixels=MIN_PIXELS, max_pixels=int(most))

    def read(self, answer: str, tokens: Sequence[int], logits: Tensor) -> dict[str, float]:
        """As `WrittenJudge.read`."""
        decode = self.processor.tokenizer.decode
        digits = {n: self.processor.tokenizer(str(n), add_special_tokens=False)["input_ids"] for n in range(1, 6)}
        if any(len(ids) != 1 for ids in digits.values()):
            raise ValueError("the tokenizer writes a digit as several tokens, so it has no probability of its own.")
        # Token by token, so that a place in the text is a place among the logits.
        texts = [decode(list(tokens[: i + 1]), skip_special_tokens=True) for i in range(len(tokens))]
        values = {}
        for aspect, (start, digit) in zip(self.aspects, written_digits(answer)):
            place = next(i for i, text in enumerate(texts) if len(text) > start)
            if tokens[place] != digits[digit][0]:
                raise UnreadableAnswerError(
                    f"{aspect}: the digit {digit} is no token of its own in {answer[-200:]!r}."
                )
            probs = logits[place, [digits[n][0] for n in digits]].softmax(dim=-1)
            values[aspect] = digit * float(probs[digit - 1])
        return values


def written_digits(answer: str) -> list[tuple[int, int]]:
    """
    Where in an answer the digit of each aspect stands, and the digit; of the last three headings in their order.

    >>> written_digits("Fine. visual quality: 4; text-to-video alignment: 3, physical/common-sense consistency: 5")
    [(22, 4), (50, 3), (88, 5)]

    Raises:
        UnreadableAnswerError: if a heading has no digit from 1 to 5 behind it.
    """
    pattern = r"\s*([1-5])\b(?!\.\d).*?".join(map(re.escape, HEADINGS)) + r"\s*([1-5])\b(?!\.\d)"
    found = list(re.finditer(pattern, answer, re.IGNORECASE | re.DOTALL))
    if not found:
        raise UnreadableAnswerError(f"no three digits from 1 to 5 behind {', '.join(HEADINGS)} in {answer[-200:]!r}.")
    return [(found[-1].start(i), int(found[-1][i])) for i in (1, 2, 3)]
