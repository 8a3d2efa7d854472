"""Settings whose docstring is their only description: what `help()` and the API's pages show is what `--help` prints."""

import inspect
import re
from dataclasses import fields
from types import MappingProxyType
from typing import TypeVar


T = TypeVar("T")

# As TRL writes its configurations: `name (`type`, *optional*, defaults to `value`):` and the text below it, indented.
_ENTRY = re.compile(r"^    (\w+) \([^\n]*\):\n((?: {8}[^\n]+\n?)+)", re.MULTILINE)


def documented(config: type[T]) -> type[T]:
    """
    The dataclass, each of its own fields with the description that stands under `Args:` of its docstring as `help`.

    >>> from dataclasses import dataclass
    >>> @documented
    ... @dataclass
    ... class Arguments:
    ...     '''
    ...     Settings.
    ...
    ...     Args:
    ...         steps (`int`, *optional*, defaults to `50`):
    ...             Steps of the sampler.
    ...     '''
    ...
    ...     steps: int = 50
    >>> fields(Arguments)[0].metadata["help"]
    'Steps of the sampler.'
    """
    texts = {name: " ".join(text.split()) for name, text in _ENTRY.findall(inspect.cleandoc(config.__doc__ or ""))}
    own = inspect.get_annotations(config)
    for option in fields(config):  # type: ignore[arg-type]
        if option.name in own and option.name in texts:
            option.metadata = MappingProxyType({**option.metadata, "help": texts[option.name]})
    return config
