"""UnifiedReward-2.0, pointwise: alignment, physics and style from 1 to 5, written as text."""

import re
from collections.abc import Sequence

from torch import Tensor

from ..records import StoredVideo, VideoSource
from ..store.video_io import Clip, read_video
from .native import Scale, UnreadableAnswerError, pick
from .written import WrittenJudge


class UnifiedReward(WrittenJudge):
    """
    Sixteen frames as pictures and one question; the answer names three numbers.

    Its makers send the frames as JPEG of quality 95; here nothing is compressed again.

    Source: CodeGoat24/UnifiedReward, inference_qwen/UnifiedReward-2.0-inference; arXiv 2503.05236.
    """

    released = "CodeGoat24/UnifiedReward-2.0-qwen3vl-8b"
    aspects = ("alignment", "physics", "style")
    default_scale = Scale("linear", 1.0, 5.0)
    prompt_file = "unified_reward.txt"
    native_video, max_new_tokens = False, 256
    num_frames = 16

    def frames(self, video: VideoSource | StoredVideo | str) -> Clip:
        """As `WrittenJudge.frames`: the first frame of each sixteenth of the clip, each frame once."""
        clip = read_video(video)
        total = len(clip.frames)
        return pick(clip, sorted({index * total // self.num_frames for index in range(self.num_frames)}))

    def read(self, answer: str, tokens: Sequence[int], logits: Tensor) -> dict[str, float]:
        """As `WrittenJudge.read`."""
        return read_scores(answer)


def read_scores(answer: str) -> dict[str, float]:
    """
    The three numbers of an answer, each once and from 1 to 5.

    >>> read_scores("Alignment Score (1-5): 2.4\\nPhysics Score (1-5): 3\\nStyle Score (1-5): 3.39")
    {'alignment': 2.4, 'physics': 3.0, 'style': 3.39}

    Raises:
        UnreadableAnswerError: for any other text.
    """
    values = {}
    for aspect in UnifiedReward.aspects:
        found = re.findall(rf"^\W*{aspect} Score \(1-5\): *(\d+(?:\.\d+)?)\W*$", answer, re.IGNORECASE | re.MULTILINE)
        if len(found) != 1 or not 1 <= float(found[0]) <= 5:
            raise UnreadableAnswerError(f"{aspect} is not once a number from 1 to 5 in the answer {answer[:200]!r}.")
        values[aspect] = float(found[0])
    return values
