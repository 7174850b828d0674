"""Names of tables: in options, where they may be patterns, and in parameters."""

import difflib
import fnmatch
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


def option_of(options: Mapping[str, T], table: str) -> T | None:
    """Returns the option of a table: its own name's, else that of the first pattern that matches.

    Args:
        options: by table name or shell pattern (`user_*`), in the order of the configuration.
        table: name of a table.
    """
    if table in options:
        return options[table]
    return next(
        (value for pattern, value in options.items() if fnmatch.fnmatchcase(table, pattern)), None
    )


def check_patterns(key: str, patterns: Iterable[str], tables: Iterable[str]) -> None:
    """Checks that every name or pattern of an option matches a table.

    Args:
        key: of the configuration, for the message.
        patterns: names and patterns that it has.
        tables: names that the model has.

    Raises:
        ValueError: one matches nothing.
    """
    names = sorted(tables)
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            close = difflib.get_close_matches(pattern, names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"{key} names {pattern!r}, which matches no table; the model has the tables "
                f"{', '.join(names)}{hint}"
            )


def table_of(parameter: str) -> str:
    """Returns the table's name in a parameter's, `...embeddings.<table>.weight`."""
    return parameter.split(".")[-2]


def is_table(parameter: str) -> bool:
    """Whether the parameter of this name is a table."""
    return ".embeddings." in parameter and parameter.endswith(".weight")
