"""VBench's quality, semantic and total score, for `evaluate.load(path)` or as `VBenchAggregate()`."""

# One import a line: `evaluate` reads this file by regular expression and takes `import a, b` for one name.
import datasets
import evaluate

from lift_trl.vbench.score import aggregate


_DESCRIPTION = "VBench's quality, semantic and total score of 16 raw dimension values; refused if one is missing."
_INPUTS = """
Args:
    predictions: the raw value of each dimension, in [0, 1].
    references: the name of each dimension, as VBench spells it.
Returns:
    quality_score, semantic_score, total_score.
"""


class VBenchAggregate(evaluate.Metric):
    """
    >>> from lift_trl.vbench.suite import DIMENSIONS
    >>> scores = VBenchAggregate().compute(predictions=[0.9] * 16, references=list(DIMENSIONS))
    >>> round(scores["total_score"], 6)
    0.968201
    """

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {"predictions": datasets.Value("float64"), "references": datasets.Value("string")}
        )
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features
        )

    def _compute(self, predictions: list[float], references: list[str]) -> dict[str, float]:
        if len(set(references)) != len(references):
            raise ValueError(f"a dimension is named twice in {references}; give one value for each.")
        scores = aggregate(dict(zip(references, predictions)))
        return {
            "quality_score": scores.quality,
            "semantic_score": scores.semantic,
            "total_score": scores.total,
        }
