"""`import lift_trl` is cheap, and every public name resolves."""

import subprocess
import sys

import pytest


MAX_IMPORT_CPU_S = 0.3
HEAVY = ("torch", "transformers", "diffusers", "datasets", "accelerate", "peft", "trl", "numpy", "gradio")


def test_import_is_cheap_and_without_torch():
    code = (
        "import sys, time; before = time.process_time(); import lift_trl; cost = time.process_time() - before; "
        f"print(cost, *[name for name in {HEAVY} if name in sys.modules])"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(3)
    ]
    assert [loaded for _, *loaded in runs] == [[], [], []]
    assert min(float(cost) for cost, *_ in runs) < MAX_IMPORT_CPU_S


def test_every_public_name_resolves_and_is_listed():
    import lift_trl

    assert len(set(lift_trl.__all__)) == len(lift_trl.__all__) > 0
    for name in lift_trl.__all__:
        value = getattr(lift_trl, name)
        assert value is not None and name in dir(lift_trl), name


def test_an_unknown_name_is_an_attribute_error():
    import lift_trl

    with pytest.raises(AttributeError, match="no_such_name"):
        lift_trl.no_such_name  # noqa: B018  (the access is the test)
