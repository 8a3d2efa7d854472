"""Agreement of a judge's votes with the majority of people, for `evaluate.load(path)` or as `JudgeAgreementMetric()`."""

# One import a line: `evaluate` reads this file by regular expression and takes `import a, b` for one name.
import datasets
import evaluate

from lift_trl.statistics.win_rate import Vote, agreement


_DESCRIPTION = "How often a judge prefers the video of a pair that the majority of people prefer."
_INPUTS = """
Args:
    predictions: the judge's vote on each pair: 1 for video a, -1 for b, 0 for a tie.
    references: people's votes on each pair, a list of such numbers; equal counts are a tie.
Returns:
    with_ties, without_ties (of the pairs where people named a winner; NaN if none), each with _low and _high (95 % over
    pairs), kappa (Cohen's; NaN if either side gave one outcome only), num_pairs.
"""


class JudgeAgreementMetric(evaluate.Metric):
    """
    >>> result = JudgeAgreementMetric().compute(predictions=[1, -1, 0], references=[[1, 1, -1], [1], [1, -1]])
    >>> round(result["with_ties"], 3), result["without_ties"]
    (0.667, 0.5)
    """

    def _info(self) -> evaluate.MetricInfo:
        votes = datasets.Sequence(datasets.Value("int32"))
        features = datasets.Features({"predictions": datasets.Value("int32"), "references": votes})
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features
        )

    def _compute(self, predictions: list[int], references: list[list[int]]) -> dict[str, float]:
        outside = {*predictions, *(vote for votes in references for vote in votes)} - {1, 0, -1}
        if outside or not all(references):
            raise ValueError(
                f"votes {sorted(outside)}; use 1, 0 and -1, and at least one vote of people on each pair."
            )
        pairs = [str(number) for number in range(len(predictions))]
        judge = [Vote(pair, pair, None, vote, "judge") for pair, vote in zip(pairs, predictions)]
        people = [
            Vote(p, p, None, vote, str(i)) for p, votes in zip(pairs, references) for i, vote in enumerate(votes)
        ]
        found = agreement(people, judge)
        result: dict[str, float] = {"kappa": found.kappa, "num_pairs": len(pairs)}
        for name, estimate in (("with_ties", found.with_ties), ("without_ties", found.without_ties)):
            nan = float("nan")
            low, high = (nan, nan) if estimate is None or estimate.ci95 is None else estimate.ci95
            result |= {name: nan if estimate is None else estimate.value, f"{name}_low": low, f"{name}_high": high}
        return result
