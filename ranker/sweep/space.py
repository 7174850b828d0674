"""What a sweep varies: parameters with their values or ranges, and points of them."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

# longer names are cut; the digest keeps them apart
MAX_NAME = 100


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One key of the training command.

    Either `choices`, values as the command line writes them, or the range `low` to `high`.
    """

    key: str
    choices: Sequence[str] = ()
    low: float | None = None
    high: float | None = None
    integer: bool = False
    log: bool = False

    @property
    def is_range(self) -> bool:
        """Whether it has a range instead of choices."""
        return not self.choices


@dataclass(frozen=True, kw_only=True)
class Point:
    """One training run: a value for every parameter, as the command line writes it."""

    values: Mapping[str, str] = field(default_factory=dict)

    @property
    def overrides(self) -> list[str]:
        """Arguments of the training command."""
        return [f"{key}={value}" for key, value in self.values.items()]

    @property
    def name(self) -> str:
        """Folder of the run: readable, and the same whenever the point is the same."""
        words = [f"{key.rpartition('.')[2]}-{value}" for key, value in self.values.items()]
        readable = re.sub(r"[^A-Za-z0-9_.-]+", "_", "__".join(words))[:MAX_NAME].strip("._-")
        digest = hashlib.sha256("\n".join(self.overrides).encode()).hexdigest()[:6]
        return f"{readable}-{digest}" if readable else digest

    def without(self, key: str) -> "Point":
        """The point less one key: runs that differ in the seed only share it."""
        return Point(values={name: value for name, value in self.values.items() if name != key})

    def describe(self) -> str:
        """The point in words."""
        return ", ".join(self.overrides) or "the composed config"


def grid_points(parameters: Sequence[Parameter]) -> list[Point]:
    """Every combination of the choices, the last parameter varying fastest.

    Raises:
        ValueError: a parameter has a range.
    """
    for parameter in parameters:
        if parameter.is_range:
            raise ValueError(
                f"{parameter.key} has a range; a grid needs values: list them ({parameter.key}="
                "a,b,c), or search with sweep=optuna"
            )
    keys = [parameter.key for parameter in parameters]
    combinations = product(*(parameter.choices for parameter in parameters))
    return [Point(values=dict(zip(keys, values, strict=True))) for values in combinations]
