"""Agreement of a critic's labels with people's, for `evaluate.load(path)` or as `LabelAgreement()`."""

# One import a line: `evaluate` reads this file by regular expression and takes `import a, b` for one name.
import datasets
import evaluate

from lift_trl.rubric import LIFT
from lift_trl.statistics.label_measures import accuracy, balanced_accuracy, confusion, macro_f1


_DESCRIPTION = "Accuracy, balanced accuracy and macro-F1 of labels of video quality."
_INPUTS = """
Args:
    predictions: the critic's label of each video, as text in any case.
    references: people's label of each video.
Returns:
    accuracy, balanced_accuracy, macro_f1, and confusion: counts by (people's label, critic's label), worst label first.
"""


class LabelAgreement(evaluate.Metric):
    """
    >>> LabelAgreement().compute(predictions=["Good", "Good"], references=["Good", "Bad"])["accuracy"]
    0.5
    """

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float | list[list[int]]]:
        table = confusion(
            [LIFT.parse_label(text) for text in references], [LIFT.parse_label(text) for text in predictions]
        )
        return {
            "accuracy": float(accuracy(table)),
            "balanced_accuracy": float(balanced_accuracy(table)),
            "macro_f1": float(macro_f1(table)),
            "confusion": table.astype(int).tolist(),
        }
