"""Type hints of constructor arguments, as a check on the values of a configuration."""

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin


def dataclass_in(hint: Any) -> type | None:
    """Returns the dataclass in `X` or `X | None`, None if there is none."""
    for argument in (hint, *get_args(hint)):
        if isinstance(argument, type) and dataclasses.is_dataclass(argument):
            return argument
    return None


def built_by(hint: Any) -> type | None:
    """Returns the class in `Callable[[], X]`, an argument that a nested _target_ builds."""
    arguments = get_args(hint)
    is_builder = get_origin(hint) is Callable and arguments[0] == []
    return arguments[1] if is_builder else None


def matches(value: Any, hint: Any) -> bool:
    """Whether a value of a configuration has the type of an argument."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(matches(value, argument) for argument in arguments)
    if origin is Literal:
        return value in arguments
    if hint is None or hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin in (list, tuple):
        return isinstance(value, list) and all(matches(item, arguments[0]) for item in value)
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(matches(v, arguments[1]) for v in value.values())
    return isinstance(value, hint)


def describe(hint: Any) -> str:
    """Returns what a value of this type looks like, for people."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(argument) for argument in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (list, tuple):
        return f"a list ({describe(arguments[0])})"
    if origin is not None:
        return f"a mapping (values: {describe(arguments[1])})"
    names = {
        int: "an integer",
        float: "a number",
        str: "a text",
        bool: "true or false",
        type(None): "null",
    }
    return names.get(hint, str(hint))
