"""Imports at less than their price: without a search for garbage, and without PEFT where only help is asked for."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """
    For the imports in the body, of torch and what stands on it.

    They make some million objects that stay. Python's search for garbage would go through them again and again, also long
    after the imports, and find nothing: it rests meanwhile, and never looks at them again. Where the command line asks for
    help, PEFT counts as not installed: transformers' arguments import it where they can, and with it models, compiler,
    torchvision and scipy, which is half of the time. The libraries are made to do without; the process prints and leaves.
    """
    if not {"-h", "--help"}.isdisjoint(sys.argv[1:]):
        # What the import system documents: `None` is a module that cannot be found. One that is here stays.
        sys.modules.setdefault("peft", None)  # type: ignore[arg-type]
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
