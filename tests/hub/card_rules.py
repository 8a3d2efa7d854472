"""What the Hub's check of a card refuses, by its documentation; of a Space, what keeps it from starting too.

Sources: https://huggingface.co/docs/hub/model-cards, datasets-cards, spaces-config-reference, repositories-licenses, and the
specifications modelcard.md and datasetcard.md of huggingface/hub-docs.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any


LICENSES = set(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m afl-3.0
    artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0
    cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0
    cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0
    epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc mpl-2.0 odc-by
    odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl llama2 llama3 llama3.1 llama3.2 gemma unknown other
    """.split()
)
TASKS = {"text-to-video", "video-classification", "video-text-to-text", "visual-question-answering", "other"}
SIZES = {"n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "n>1T"}
RELATIONS = {"adapter", "merge", "quantized", "finetune"}
COLORS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_LICENSE_NAME = re.compile(r"[a-z0-9-.]+")


def problems(front: Mapping[str, Any], repo_type: str) -> Iterator[str]:
    """One sentence for each field of a card's front matter that the Hub refuses."""
    for name, allowed in _CHOICES[repo_type].items():
        found = front.get(name) or []
        for value in found if isinstance(found, list) else [found]:
            if value not in allowed:
                yield f'"{name}" must be one of [{", ".join(sorted(allowed))}], not {value!r}'
    for name in ("tags", "datasets", "models"):
        values = front.get(name, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            yield f'"{name}" must be an array of strings'
    for name in ("base_model", "datasets", "models"):
        values = front.get(name) or []
        for value in values if isinstance(values, list) else [values]:
            if not _ID.fullmatch(str(value)):
                yield f'"{name}" with value {value!r} is not valid'
    yield from _terms(front)
    yield from {"model": _model, "dataset": _dataset, "space": _space}[repo_type](front)


_CHOICES: Mapping[str, Mapping[str, set[str]]] = {
    "model": {"license": LICENSES, "pipeline_tag": TASKS, "base_model_relation": RELATIONS},
    "dataset": {"license": LICENSES, "task_categories": TASKS, "size_categories": SIZES},
    "space": {"license": LICENSES, "sdk": {"gradio", "docker", "static"}, "colorFrom": COLORS, "colorTo": COLORS},
}


def _terms(front: Mapping[str, Any]) -> Iterator[str]:
    name, link = front.get("license_name"), front.get("license_link")
    if (name or link) and front.get("license") != "other":
        yield '"license_name" and "license_link" need "license: other"'
    if name and not _LICENSE_NAME.fullmatch(name):
        yield f'"license_name" with value {name!r} is not valid'
    if link and link not in ("LICENSE", "LICENSE.md") and not link.startswith(("https://", "http://")):
        yield '"license_link" must be LICENSE, LICENSE.md or a URL'


def _model(front: Mapping[str, Any]) -> Iterator[str]:
    for number, entry in enumerate(front.get("widget") or []):
        output = entry.get("output")
        if not isinstance(entry.get("text"), str) or not (isinstance(output, dict) and output.get("url")):
            yield f'"widget[{number}]" needs a text and an output with a url'
    for entry in front.get("model-index") or []:
        if not entry.get("name"):
            yield '"model-index[0].name" is required'
        for number, result in enumerate(entry.get("results") or []):
            place = f'"model-index[0].results[{number}]'
            if not result.get("task", {}).get("type"):
                yield f'{place}.task.type" is required'
            if not all(result.get("dataset", {}).get(name) for name in ("type", "name")):
                yield f'{place}.dataset.type" and "name" are required'
            if not all({"type", "value"} <= metric.keys() for metric in result.get("metrics") or [{}]):
                yield f'{place}.metrics[0].type" and "value" are required'


def _dataset(front: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(front.get("pretty_name", ""), str):
        yield '"pretty_name" must be a string'
    for number, config in enumerate(front.get("configs") or []):
        if not {"config_name", "data_files"} <= config.keys():
            yield f'"configs[{number}]" needs config_name and data_files'


def _space(front: Mapping[str, Any]) -> Iterator[str]:
    for name in ("title", "sdk"):
        if not front.get(name):
            yield f'"{name}" is required'
    if len(front.get("short_description", "")) > 60:
        yield '"short_description" length must be less than or equal to 60 characters long'
    if front.get("sdk") == "gradio" and not isinstance(front.get("sdk_version"), str):
        yield '"sdk_version" is required'
