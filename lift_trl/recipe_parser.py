"""The parser of the recipes: TRL's, with one thing that people write in a YAML."""

from typing import Any

from trl.scripts.utils import TrlParser


class RecipeParser(TrlParser):
    """TRL's parser. One value for a list in a YAML is a list of that one, as it is on the command line."""

    def set_defaults_with_config(self, **kwargs: Any) -> list[str]:
        """As TRL's: the YAML's values become the defaults."""
        # argparse 3.11 to 3.14 and TRL 1.9 keep the arguments in `_actions`; a test fails once they do not.
        for action in self._actions:
            value = kwargs.get(action.dest)
            if action.nargs in ("+", "*") and value is not None and not isinstance(value, list):
                kwargs[action.dest] = [value]
        remaining: list[str] = super().set_defaults_with_config(**kwargs)
        return remaining
