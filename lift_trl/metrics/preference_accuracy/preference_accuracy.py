"""Pairwise accuracy of a reward against people's preferences, for `evaluate.load(path)` or as `PreferenceAccuracy()`."""

# One import a line: `evaluate` reads this file by regular expression and takes `import a, b` for one name.
import datasets
import evaluate

from lift_trl.judges.preference_benchmarks import pairwise_accuracy


_DESCRIPTION = "Share of video pairs on which a reward prefers what people prefer, with and without ties."
_INPUTS = """
Args:
    predictions: the reward of video a minus that of video b, for each pair.
    references: what people prefer: 1 for a, -1 for b, 0 for neither.
Returns:
    without_ties (NaN if people preferred none), with_ties (at the best threshold of a tie), each with _low and _high (95 %,
    Wilson), num_pairs, num_decided.
"""


class PreferenceAccuracy(evaluate.Metric):
    """
    >>> result = PreferenceAccuracy().compute(predictions=[0.5, 0.4, 0.1], references=[1, -1, 0])
    >>> result["without_ties"], result["num_decided"]
    (0.5, 2)
    """

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("float64"), "references": datasets.Value("int32")})
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features
        )

    def _compute(self, predictions: list[float], references: list[int]) -> dict[str, float]:
        found = pairwise_accuracy(references, predictions)
        result: dict[str, float] = {"num_pairs": found.num_pairs, "num_decided": found.num_decided}
        for name, estimate in (("without_ties", found.without_ties), ("with_ties", found.with_ties)):
            nan = float("nan")
            low, high = (nan, nan) if estimate is None or estimate.ci95 is None else estimate.ci95
            result |= {name: nan if estimate is None else estimate.value, f"{name}_low": low, f"{name}_high": high}
        return result
