"""Bradley-Terry strengths of systems from pairwise choices, for `evaluate.load(path)` or as `BradleyTerry()`."""

# One import a line: `evaluate` reads this file by regular expression and takes `import a, b` for one name.
import datasets
import evaluate

from lift_trl.statistics.win_rate import CHOICES, bradley_terry


_DESCRIPTION = (
    "Log-strengths of systems (mean 0) from pairwise choices, ties as half a win, bootstrapped over prompts."
)
_INPUTS = """
Args:
    predictions: the choice of each comparison: "a", "b" or "tie".
    references: of each comparison the three texts [system a, system b, prompt].
Returns:
    strengths: for each system [strength, low, high] (95 % interval; NaN where no resample differs, as after a clean sweep).
"""


class BradleyTerry(evaluate.Metric):
    """
    >>> rows = [["lora", "base", "p"], ["lora", "base", "q"], ["lora", "base", "r"], ["lora", "base", "s"]]
    >>> found = BradleyTerry().compute(predictions=["a", "a", "a", "b"], references=rows)["strengths"]
    >>> round(found["lora"][0] - found["base"][0], 2)  # log of 3 to 1, a little regularised
    1.09
    """

    def _info(self) -> evaluate.MetricInfo:
        texts = datasets.Sequence(datasets.Value("string"))
        features = datasets.Features({"predictions": datasets.Value("string"), "references": texts})
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features
        )

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, dict[str, list[float]]]:
        unknown = sorted(set(predictions) - set(CHOICES))
        if unknown:
            raise ValueError(f"choices {unknown}; use {', '.join(CHOICES)}.")
        if any(len(row) != 3 for row in references):
            raise ValueError("a reference is no [system a, system b, prompt]; give three texts for each comparison.")
        outcome = {"a": 1, "tie": 0, "b": -1}
        results = [(a, b, outcome[choice]) for choice, (a, b, _) in zip(predictions, references)]
        systems = list(dict.fromkeys(system for a, b, _ in results for system in (a, b)))
        fitted = bradley_terry(results, systems, clusters=[prompt for _, _, prompt in references])
        nan = (float("nan"), float("nan"))
        return {"strengths": {s: [found.value, *(found.ci95 or nan)] for s, found in fitted.items()}}
