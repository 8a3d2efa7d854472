"""Calibration of a critic's probabilities, for `evaluate.load(path)` or as `Calibration()`."""

# One import a line: `evaluate` reads this file by regular expression and takes `import a, b` for one name.
import datasets
import evaluate

from lift_trl.judges.verdicts import calibration_error
from lift_trl.report.data import calibration_bins


_DESCRIPTION = "Expected calibration error of the probability that a critic gives to its label, and the bins of it."
_INPUTS = """
Args:
    predictions: the probability of the label that the critic gave, in [0, 1].
    references: 1 where that label is people's, else 0.
Returns:
    calibration_error (10 equal bins), confidence, accuracy and counts (a list each: the bins that hold an answer).
"""


class Calibration(evaluate.Metric):
    """
    >>> result = Calibration().compute(predictions=[1.0, 1.0, 0.5, 0.5], references=[1, 1, 1, 0])
    >>> result["calibration_error"], result["counts"]
    (0.0, [2, 2])
    """

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("float64"), "references": datasets.Value("int32")})
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features
        )

    def _compute(self, predictions: list[float], references: list[int]) -> dict[str, float | list[float]]:
        outside = [p for p in predictions if not 0 <= p <= 1]
        if outside or set(references) - {0, 1}:
            raise ValueError(
                f"probabilities {outside[:3]}, references {sorted(set(references))}; use [0, 1] and 0 or 1."
            )
        right = [bool(r) for r in references]
        bins = calibration_bins(predictions, right)
        return {
            "calibration_error": calibration_error(predictions, right),
            "confidence": [b.confidence for b in bins],
            "accuracy": [b.accuracy for b in bins],
            "counts": [b.n for b in bins],
        }
