"""Who proposes the points of a sweep: the contract, and the grid."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ranker.sweep.space import Parameter, Point, grid_points


class Search(Protocol):
    """Proposes points and learns how they did. Constructors take what a user chooses."""

    def start(
        self, parameters: Sequence[Parameter], directory: Path, *, more_is_better: bool
    ) -> None:
        """Begins, or goes on with what an earlier launch left in the directory.

        Raises:
            ValueError: the parameters do not suit this search.
        """
        ...

    def total(self) -> int:
        """How many points this launch asks for at most."""
        ...

    def ask(self) -> Point | None:
        """The next point to run; None if there is no further one."""
        ...

    def should_stop(self, point: Point, scores: Sequence[tuple[int, float]]) -> bool:
        """Whether to give a running point up.

        Args:
            point: being trained.
            scores: (step, monitored metric) of its evaluations while training, in order.
        """
        ...

    def tell(self, point: Point, value: float | None, *, pruned: bool) -> None:
        """How a point ended: its objective, or None if it failed or was given up."""
        ...


class Grid:
    """Every combination of the listed values."""

    def start(
        self, parameters: Sequence[Parameter], directory: Path, *, more_is_better: bool
    ) -> None:
        """Lists the points."""
        del directory, more_is_better
        self._points = grid_points(parameters)
        self._next = 0

    def total(self) -> int:
        """The number of combinations."""
        return len(self._points)

    def ask(self) -> Point | None:
        """The next combination."""
        if self._next == len(self._points):
            return None
        self._next += 1
        return self._points[self._next - 1]

    def should_stop(self, point: Point, scores: Sequence[tuple[int, float]]) -> bool:
        """Never: a grid compares all its points."""
        del point, scores
        return False

    def tell(self, point: Point, value: float | None, *, pruned: bool) -> None:
        """Nothing to learn."""
        del point, value, pruned
