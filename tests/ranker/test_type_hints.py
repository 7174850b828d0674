from collections.abc import Mapping
from typing import Any, Literal

import pytest

from ranker.modules.ppnet import PPNetOptions
from ranker.type_hints import dataclass_in, describe, matches


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


def test_hints_are_described() -> None:
    assert describe(int | None) == "an integer or null"
    assert describe(dict[str, list[str]]) == "a mapping (values: a list (a text))"
    assert describe(Literal["a", "b"]) == "one of a, b"


def test_an_optional_dataclass_is_found() -> None:
    assert dataclass_in(PPNetOptions | None) is PPNetOptions
    assert dataclass_in(int | None) is None
