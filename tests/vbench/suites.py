"""A small suite in VBench's form, with its awkward cases."""

import json
from pathlib import Path

import pytest


ROWS = [
    {"prompt_en": "a cat", "dimension": ["object_class"], "auxiliary_info": {"object_class": {"object": "cat"}}},
    {"prompt_en": "a still lake", "dimension": ["temporal_flickering"]},
    {"prompt_en": "a still caf\u00e9", "dimension": ["temporal_flickering"]},
    {"prompt_en": "the bund, oil painting", "dimension": ["appearance_style"]},
    {"prompt_en": "the bund, oil painting", "dimension": ["overall_consistency", "aesthetic_quality"]},
    {"prompt_en": "A fantasy landscape", "dimension": ["overall_consistency", "aesthetic_quality"]},
    {"prompt_en": "a fantasy landscape", "dimension": ["overall_consistency", "aesthetic_quality"]},
    {"prompt_en": "a person is running", "dimension": ["human_action"]},
]


@pytest.fixture
def suite_file(tmp_path: Path) -> Path:
    path = tmp_path / "full_info.json"
    path.write_text(json.dumps([{**row, "prompt_opt": f" Long text {i}. " * 30} for i, row in enumerate(ROWS)]))
    return path


@pytest.fixture
def suite(suite_file: Path):
    from lift_trl.vbench.suite import load_suite

    return load_suite(suite_file)
