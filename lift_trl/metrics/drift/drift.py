"""Drift of a tuned system's clips against the base's, for `evaluate.load(path)` or as `Drift()`. Not VBench."""

# One import a line: `evaluate` reads this file by regular expression and takes `import a, b` for one name.
import datasets
import evaluate

from lift_trl.statistics.drift import NOT_VBENCH, clip_statistics, drift_alarms


_DESCRIPTION = f"Relative change of motion, sharpness, saturation, brightness and diversity. {NOT_VBENCH}"
_INPUTS = """
Args:
    predictions: path of the tuned system's clip for each prompt.
    references: path of the base's clip for the same prompt and seed; each pair counts as a prompt of its own.
Returns:
    for each statistic: base, value, change (relative), change_low, change_high (95 %), level (ok, watch or alarm).
"""


class Drift(evaluate.Metric):
    """Compute it as `Drift().compute(predictions=["lora/0.mp4"], references=["base/0.mp4"])`."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, dict[str, float | str]]:
        statistics = {
            name: {str(number): clip_statistics(path) for number, path in enumerate(paths)}
            for name, paths in (("base", references), ("tuned", predictions))
        }
        prompts = {key: key for key in statistics["base"]}
        found: dict[str, dict[str, float | str]] = {}
        for alarm in drift_alarms(statistics, prompts, base="base"):
            low, high = alarm.change.ci95 or (float("nan"), float("nan"))
            found[alarm.measure] = {
                "base": alarm.base_value,
                "value": alarm.value,
                "change": alarm.change.value,
                "change_low": low,
                "change_high": high,
                "level": alarm.level,
            }
        return found
