"""The parser of the recipes: TRL's, with the types of what people write in a YAML, and with `--dry_run`."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from trl.scripts.utils import TrlParser


class RecipeParser(TrlParser):
    """
    TRL's parser. A YAML's values are of their arguments' types, as they are on the command line; one value for a list is a
    list of that one.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._config: Path | None = None
        self.add_argument(
            "--dry_run",
            metavar="CARD",
            help="Load and run nothing: print what lift-trl estimate says of these settings on a card (rtx4090, h100).",
        )

    def set_defaults_with_config(self, **kwargs: Any) -> list[str]:
        """
        As TRL's: the YAML's values become the defaults.

        Raises:
            ValueError: for a value that is none of the argument's choices, or of another type.
        """
        # Private in argparse of Python 3.11 to 3.14, and what TRL 1.16 reads: _actions. When it goes,
        # `test_one_value_for_a_list_is_a_list_of_one` fails.
        for action in self._actions:
            value = kwargs.get(action.dest)
            # argparse compares what stands on the command line only.
            if value is not None and action.choices is not None and value not in action.choices:
                raise ValueError(f"{action.dest}={value!r}; use one of {', '.join(map(str, action.choices))}.")
            if action.nargs in ("+", "*") and value is not None and not isinstance(value, list):
                kwargs[action.dest] = [value]
        from .store.typed import field_types, typed

        for part in self.dataclass_types:
            hints = field_types(part)
            for field in fields(part):
                # Null also where it is the default, whatever the hint says.
                if field.name in kwargs and not (kwargs[field.name] is field.default is None):
                    try:
                        kwargs[field.name] = typed(field.name, kwargs[field.name], hints[field.name])
                    except ValueError as error:
                        raise ValueError(f"{self._config}: {error}") from None
        remaining: list[str] = super().set_defaults_with_config(**kwargs)
        return remaining

    def parse_args_and_config(self, args: Iterable[str] | None = None, *rest: Any, **kwargs: Any) -> tuple[Any, ...]:
        """
        As TRL's; under `--dry_run` it prints the estimate and leaves with exit code 0, or 1 and why there is none.

        Raises:
            FileNotFoundError, ValueError: as `read_yaml` and `set_defaults_with_config`.
        """
        words = list(sys.argv[1:] if args is None else args)
        if "--config" in words[:-1]:
            from .store.tables import read_yaml

            self._config = Path(words[words.index("--config") + 1])
            read_yaml(self._config)  # TRL reads it once more, and passes over keys that stand twice
        found: tuple[Any, ...] = super().parse_args_and_config(words, *rest, **kwargs)
        return found

    def _said(self, args: Sequence[str] | None) -> set[str]:
        """Names of the arguments that stand on the command line, whose values go before whatever a YAML says."""
        unsaid = object()
        found = argparse.Namespace(**{action.dest: unsaid for action in self._actions})
        super().parse_known_args(args, found)
        return {name for name, value in vars(found).items() if value is not unsaid}

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """The settings before any of them acts."""
        found, unknown = super().parse_known_args(args, namespace)
        by_memory = vars(found).get("by_memory")
        if isinstance(by_memory, dict):
            said = self._said(args)
            found.by_memory = {
                size: {name: value for name, value in own.items() if name not in said}
                for size, own in by_memory.items()
            }
        card = found.dry_run
        del found.dry_run
        if card is None:
            return found, unknown
        if unknown:
            self.error(f"unknown arguments: {' '.join(unknown)}")
        from .estimate.command import verdict
        from .estimate.recipe import Recipe

        recipe = Recipe(self._config or Path(self.prog), vars(found))
        try:
            text = verdict(recipe, Path(self.prog).stem, card)
        except (ValueError, OSError) as error:
            self.exit(1, f"{self.prog}: error: --dry_run: {error}\n")
        sys.stdout.write(text + "\n")
        raise SystemExit(0)
