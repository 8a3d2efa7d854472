"""Win, tie and loss shares of pairwise choices, for `evaluate.load(path)` or as `WinRateMetric()`."""

# One import a line: `evaluate` reads this file by regular expression and takes `import a, b` for one name.
import datasets
import evaluate

from lift_trl.statistics.intervals import bootstrap_share
from lift_trl.statistics.win_rate import CHOICES


_DESCRIPTION = "Shares of comparisons that system a won, tied and lost, with intervals over prompts."
_INPUTS = """
Args:
    predictions: the choice of each comparison: "a", "b" or "tie".
    references: the prompt of each comparison; comparisons of one prompt are resampled together.
Returns:
    win, tie, loss (shares), win_low, win_high (95 % interval of win), n (prompts).
"""


class WinRateMetric(evaluate.Metric):
    """
    >>> WinRateMetric().compute(predictions=["a", "a", "tie", "b"], references=["p", "q", "r", "s"])["win"]
    0.5
    """

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        unknown = sorted(set(predictions) - set(CHOICES))
        if unknown:
            raise ValueError(f"choices {unknown}; use {', '.join(CHOICES)}.")
        win, tie, loss = (
            bootstrap_share([choice == wanted for choice in predictions], references) for wanted in ("a", "tie", "b")
        )
        low, high = win.ci95 or (float("nan"), float("nan"))
        return {
            "win": win.value,
            "tie": tie.value,
            "loss": loss.value,
            "win_low": low,
            "win_high": high,
            "n": win.n,
        }
