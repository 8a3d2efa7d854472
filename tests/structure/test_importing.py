"""What `--help` and the commands before a run import: nothing that takes seconds and is not printed."""

import gc
import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest
from packaging.utils import canonicalize_name

from lift_trl.importing import Packages, importing
from tests.structure.source import ROOT


RECIPES = sorted(path.name for path in ROOT.glob("recipes/*.py"))
HEAVY = ("peft", "diffusers", "datasets", "torchvision", "torchao", "scipy", "pandas", "torch._dynamo", "gradio",
         "transformers.modeling_utils", "trl.trainer.sft_trainer")  # fmt: skip
#: Prints the help of every recipe named, one process for all of them, then which heavy modules are loaded.
PRINTS_HELP = f"""
import contextlib, io, runpy, sys
paths, sys.argv = sys.argv[1:], ["recipe", "--help"]
for path in paths:
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        runpy.run_path(path, run_name="__main__")
    assert "--output_dir" in text.getvalue() or "--report_dir" in text.getvalue(), path
print([name for name in {HEAVY!r} if sys.modules.get(name) is not None])
print(len(sys.modules))
"""
#: Runs a command of lift-trl, then prints how many modules it loaded, and which of those that cost most.
RUNS = f"""
import contextlib, io, sys
from lift_trl.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main()
print(len(sys.modules), *(name for name in {("torch", "transformers", *HEAVY)!r} if sys.modules.get(name) is not None))
"""
#: How many modules a command may load, a tenth above what it does: what its start costs, without a clock. And which of the
#: heavy ones.
LOADED = {
    ("--help",): (260, set()),
    ("estimate", "--help"): (260, set()),
    ("env",): (1400, {"torch"}),
    ("eval", "report", "--help"): (1000, {"transformers"}),
}


def printed(*command: str) -> str:
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_the_command_line_is_read_before_models_are_loaded():
    commands = "align cache correct evaluate evaluate_critic generate iterate score train_critic".split()
    assert {name.removesuffix(".py") for name in RECIPES} == {*commands}
    heavy, loaded = printed("-c", PRINTS_HELP, *(f"recipes/{name}" for name in RECIPES)).splitlines()
    # All of them together; each alone loads some 1,600.
    assert heavy == "[]" and int(loaded) < 2100, loaded


@pytest.mark.parametrize("command", LOADED, ids=" ".join)
def test_a_command_that_should_be_quick_loads_little(command):
    most, known = LOADED[command]
    number, *heavy = printed("-c", RUNS, *command).split()
    assert int(number) < most and set(heavy) <= known, (number, heavy)


def test_the_command_line_imports_neither_arrays_nor_network():
    code = "import sys; from lift_trl import cli; cli._parser(); print({'torch', 'numpy', 'httpx'} & {*sys.modules})"
    assert printed("-c", code) == "set()\n"


def test_only_help_hides_peft_and_only_where_it_is_not_there(monkeypatch):
    import peft

    monkeypatch.setattr(sys, "argv", ["align.py", "--help"])
    with importing():
        assert sys.modules["peft"] is peft
    monkeypatch.delitem(sys.modules, "peft")
    with importing():
        assert sys.modules["peft"] is None
    del sys.modules["peft"]
    monkeypatch.setattr(sys, "argv", ["align.py", "--config", "help"])
    with importing():
        assert "peft" not in sys.modules


def test_what_a_command_does_without_is_hidden_from_its_own_process_only():
    with importing(without=["choix"]):  # torch is here
        assert sys.modules.get("choix", "not loaded") is not None
    code = "import sys; from lift_trl.importing import importing\nwith importing(without=['scipy']): import scipy"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "import of scipy halted; None in sys.modules" in done.stderr


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_is_looked_for_afterwards_as_before(enabled):
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(ImportError), importing():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_what_holds_a_package_is_as_the_system_says():
    """`PIL` is of another name than its distribution, and one package may be of several."""
    whole, found = packages_distributions(), Packages()
    assert found["PIL"] == whole["PIL"] and found.keys() == whole.keys()
    assert found.get("no_such_package") is None and found.get("") is None
    for name in ("torch", "transformers", "huggingface_hub"):
        assert {*map(canonicalize_name, found[name])} == {canonicalize_name(name)}


def test_importing_the_libraries_does_not_read_all_that_is_installed():
    code = """if True:
        from lift_trl import importing
        with importing.importing():
            import diffusers.utils.import_utils, trl.import_utils
        print(importing._read_packages_once.cache_info().misses)"""
    assert printed("-c", code) == "0\n"
