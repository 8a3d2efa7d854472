"""The LiFT reward of videos from their critic's written answers, for `evaluate.load(path)` or as `LiFTReward()`."""

# One import a line: `evaluate` reads this file by regular expression and takes `import a, b` for one name.
import datasets
import evaluate

from lift_trl.rubric import LIFT, UnparsableAnswerError
from lift_trl.statistics.intervals import bootstrap_mean


_DESCRIPTION = "Mean reward of videos (equation 2 of arXiv 2412.04814) with a bootstrap interval."
_INPUTS = """
Args:
    predictions: for each video, the answers to the three questions in the order of `Dimension`, as text.
Returns:
    reward (mean over the videos that have one), reward_low, reward_high (95 %), num_scored, num_unscored.
    A video with an answer that begins with no label is unscored; it counts neither as 0 nor as anything else.
"""


class LiFTReward(evaluate.Metric):
    """
    >>> answers = ["Good. Nothing is wrong."] * 3
    >>> result = LiFTReward().compute(predictions=[answers, ["It is fine."] * 3])
    >>> result["reward"], result["num_unscored"]
    (0.9, 1)
    """

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Sequence(datasets.Value("string"))})
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features
        )

    def _compute(self, predictions: list[list[str]]) -> dict[str, float]:
        rewards = [reward for answers in predictions if (reward := _reward(answers)) is not None]
        if not rewards:
            raise ValueError(f"none of {len(predictions)} videos has three answers that begin with a label.")
        mean = bootstrap_mean(rewards)
        low, high = mean.ci95 or (float("nan"), float("nan"))
        return {
            "reward": mean.value,
            "reward_low": low,
            "reward_high": high,
            "num_scored": len(rewards),
            "num_unscored": len(predictions) - len(rewards),
        }


def _reward(answers: list[str]) -> float | None:
    try:
        return LIFT.mean_reward(
            {d: LIFT.parse_answer(text).label for d, text in zip(LIFT.dimensions, answers, strict=True)}
        )
    except UnparsableAnswerError:
        return None
