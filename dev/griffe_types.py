"""For the pages of the API: docstrings state types and defaults in TRL's form, which the pages show from the signature."""

import re
from typing import Any

import griffe


_STATED = re.compile(r"^( *\w+) \(`.*\):$", re.MULTILINE)


class StatedTypes(griffe.Extension):
    """Takes "(`int`, *optional*, defaults to `8`)" out of the docstrings of classes."""

    def on_class_instance(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """As griffe calls it for each class that it has read."""
        if cls.docstring is not None:
            cls.docstring.value = _STATED.sub(r"\1:", cls.docstring.value)
