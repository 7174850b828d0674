"""What starts the points of a sweep: the contract of launchers."""

from typing import Protocol

from ranker.sweep.space import Point


class Running(Protocol):
    """A point whose processes are running, or wait for their turn."""

    point: Point

    def poll(self) -> str | None:
        """None while it runs, "" when all is done, else the reason of its failure."""
        ...

    def stop(self) -> None:
        """Ends its processes, and waits for that."""
        ...

    @property
    def seconds(self) -> float:
        """That it has taken."""
        ...


class Launcher(Protocol):
    """Starts points. Constructors take what a user chooses, besides the runtime arguments.

    These are `scripts`, the folder with train.py and evaluate.py, `fixed`, the overrides of every
    point, and `options` of the sweep.
    """

    def launch(self, point: Point) -> Running:
        """Starts the processes of a point."""
        ...
