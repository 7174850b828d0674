from collections.abc import Callable, Mapping
from typing import Any, Literal

import pytest

from ranker.modules.ppnet import PPNetOptions
from ranker.type_hints import built_by, dataclass_in, describe, matches


@pytest.mark.parametrize(
    ("value", "hint", "fits"),
    [
        (1, int, True),
        (True, int, False),
        (1, float, True),
        ("a", Literal["a", "b"], True),
        ("c", Literal["a", "b"], False),
        ([1, 2], list[int], True),
        ([1, "b"], list[int], False),
        ({"a": ["x", "y"]}, Mapping[str, list[str]], True),
        ({"a": "x"}, Mapping[str, list[str]], False),
        (None, int | None, True),
        ("x", int | None, False),
    ],
)
def test_values_match_hints(value: Any, hint: Any, fits: bool) -> None:
    assert matches(value, hint) is fits


def test_a_builder_without_arguments_is_what_a_nested_target_makes() -> None:
    assert built_by(Callable[[], PPNetOptions]) is PPNetOptions
    assert built_by(Callable[[int], PPNetOptions]) is None
    assert built_by(list[int]) is None


def test_hints_are_described() -> None:
    assert describe(int | None) == "an integer or null"
    assert describe(dict[str, list[str]]) == "a mapping (values: a list (a text))"
    assert describe(Literal["a", "b"]) == "one of a, b"


def test_an_optional_dataclass_is_found() -> None:
    assert dataclass_in(PPNetOptions | None) is PPNetOptions
    assert dataclass_in(int | None) is None
