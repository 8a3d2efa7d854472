"""The values of a YAML as the types that they are read for: people write `true` for a number, and PyYAML text for `1e-4`."""

from collections.abc import Mapping, Sequence
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


#: What to write for an argument of a type.
_WANTED: Mapping[Any, str] = {
    int: "a whole number", float: "a number", bool: "true or false", NoneType: "null",
    str: "text, in quotes if YAML reads it as something else",
}  # fmt: skip
#: Words for a truth, as `transformers.hf_argparser.string_to_bool` reads them on the command line.
_TRUTHS = {word: word in ("yes", "true", "t", "y", "1") for word in "yes true t y 1 no false f n 0".split()}


#: What transformers 5.24 documents or has as a default, beside what it annotates.
_WIDER: Mapping[str, Any] = {"debug": list[str], "fsdp": bool | list[str], "resume_from_checkpoint": bool}


def field_types(settings: type) -> dict[str, Any]:
    """The types of the fields of a dataclass of settings. Null is a no of what is true or false, and no entry of a list."""
    found = {name: hint | _WIDER.get(name, hint) for name, hint in get_type_hints(settings).items()}
    return {name: hint | None if hint is bool or get_origin(hint) is list else hint for name, hint in found.items()}


def typed(name: str, value: Any, hint: Any) -> Any:
    """
    `value` of the setting `name`, as type `hint` has it. Text may stand for a number or a truth, as on the command line.

    >>> typed("learning_rate", "1e-4", float | None), typed("seed", 3, int)
    (0.0001, 3)

    Raises:
        ValueError: if it is of another type, with what to write.
    """
    try:
        return _converted(value, hint)
    except TypeError:
        raise ValueError(f"{name}: {value!r} is of another type; give {_wanted(hint)}.") from None


def _converted(value: Any, hint: Any) -> Any:
    """
    As `typed`.

    Raises:
        TypeError: if it is of another type.
    """
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _as_one_of(value, parts)
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in parts):
            return value
    elif origin is list and isinstance(value, list):
        return [_converted(entry, parts[0]) for entry in value]
    elif origin is dict and isinstance(value, dict):
        return {_converted(key, parts[0]): _converted(entry, parts[1]) for key, entry in value.items()}
    elif hint is Any or hint is bool and isinstance(value, bool):
        return value
    elif isinstance(hint, type) and not isinstance(value, bool):
        if isinstance(value, (int, float) if hint is float else hint):
            return value
        if isinstance(value, str):
            return _of_text(value, hint)
    raise TypeError


def _as_one_of(value: Any, hints: Sequence[Any]) -> Any:
    """`value` as the first of the types `hints` that it is of; text stays text where it may."""
    for hint in sorted(hints, key=lambda hint: hint is not str):
        try:
            return _converted(value, hint)
        except TypeError:
            continue
    raise TypeError


def _of_text(text: str, hint: type) -> Any:
    """What argparse would make of `text`."""
    if hint is bool and text.lower() in _TRUTHS:
        return _TRUTHS[text.lower()]
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError as error:
            raise TypeError from error
    if issubclass(hint, Enum) and text in {choice.value for choice in hint}:
        return text
    raise TypeError


def _wanted(hint: Any) -> str:
    """What to write for an argument of type `hint`, in words."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_wanted(part) for part in parts)
    if origin is Literal:
        return " or ".join(map(str, parts))
    if origin is list:
        return f"a list, each entry {_wanted(parts[0])}"
    return _WANTED.get(hint, "a mapping" if (origin or hint) is dict else str(hint))
