"""Imports at less than their price: without a search for garbage, and without PEFT where only help is asked for."""

import gc
import importlib.metadata
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache


_read_packages = importlib.metadata.packages_distributions
_read_packages_once = cache(_read_packages)


class Packages(Mapping[str, list[str]]):
    """
    As `importlib.metadata.packages_distributions`, which reads the files of all that is installed, a third of a second: that
    is done only for a name that no distribution has itself. diffusers and TRL make such a table, and ask it little.
    """

    def __getitem__(self, name: str) -> list[str]:
        try:
            return [importlib.metadata.distribution(name).name]
        except (importlib.metadata.PackageNotFoundError, ValueError):  # the latter of an empty name
            return _read_packages_once()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_read_packages_once())

    def __len__(self) -> int:
        return len(_read_packages_once())


@contextmanager
def importing(*, without: Iterable[str] = ()) -> Iterator[None]:
    """
    For the imports in the body, of torch and what stands on it.

    They make some million objects that stay. Python's search for garbage would go through them again and again, also long
    after the imports, and find nothing: it rests meanwhile, and never looks at them again. What is installed is read where
    something hangs on it.
    Where the command line asks for help, PEFT counts as not installed: transformers' arguments import it where they can, and
    with it models, compiler, torchvision and scipy, which is half of the time. The libraries are made to do without; the
    process prints and leaves.

    Args:
        without: optional libraries that count as not installed too, in a process that has not begun to import torch: for a
            command that asks for nothing that they do.
    """
    if {"-h", "--help"}.isdisjoint(sys.argv[1:]):
        hidden = [*without] if "torch" not in sys.modules else []
    else:
        hidden = ["peft"]
    for name in hidden:
        # What the import system documents: `None` is a module that cannot be found. One that is here stays.
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    was_enabled = gc.isenabled()
    gc.disable()
    importlib.metadata.packages_distributions = Packages
    try:
        yield
    finally:
        importlib.metadata.packages_distributions = _read_packages
        gc.freeze()
        if was_enabled:
            gc.enable()
