"""What is known of each point of a sweep, on disk: one small JSON file a point.

<sweep>/command.json             the part of the command that all launches share
<sweep>/state/<point>.json       how the point ended
<sweep>/logs/<point>.log         what its processes printed
<sweep>/points/<point>/          the run itself, as scripts/train.py leaves it
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ranker.report.files import replace_file
from ranker.sweep.space import Point

End = Literal["finished", "failed", "pruned"]


@dataclass(frozen=True, kw_only=True)
class PointState:
    """How a point ended; a point without one has not, and is run (again)."""

    values: Mapping[str, str]
    state: End
    seconds: float
    reason: str = ""

    @property
    def point(self) -> Point:
        """The point itself."""
        return Point(values=dict(self.values))


class SweepDir:
    """The folder of a sweep.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.points = path / "points"

    def run(self, point: Point) -> Path:
        """Directory of a point's run."""
        return self.points / point.name

    def log(self, point: Point) -> Path:
        """File with what a point's processes printed."""
        return self.path / "logs" / f"{point.name}.log"

    def begin(self, fixed: Sequence[str], keys: Sequence[str]) -> None:
        """Writes the command down, or checks that it is that of an earlier launch.

        Args:
            fixed: overrides of every point.
            keys: that vary; their values may differ from launch to launch.

        Raises:
            ValueError: the folder holds a sweep with other fixed overrides or other keys.
        """
        path = self.path / "command.json"
        command = {"fixed": sorted(fixed), "keys": sorted(keys)}
        if path.is_file():
            earlier = json.loads(path.read_text(encoding="utf-8"))
            for name in command:
                if earlier[name] != command[name]:
                    raise ValueError(
                        f"{self.path} holds a sweep whose {name} are "
                        f"{' '.join(earlier[name]) or 'none'}, not "
                        f"{' '.join(command[name]) or 'none'}; give this one another sweep.name"
                    )
            return
        with replace_file(path) as temporary:
            temporary.write_text(json.dumps(command, indent=1), encoding="utf-8")

    def read_state(self, point: Point) -> PointState | None:
        """How a point ended; None if it has not."""
        path = self._state(point)
        if not path.is_file():
            return None
        return PointState(**json.loads(path.read_text(encoding="utf-8")))

    def write_state(self, state: PointState) -> None:
        """Writes down how a point ended."""
        with replace_file(self._state(state.point)) as temporary:
            temporary.write_text(json.dumps(asdict(state), indent=1), encoding="utf-8")

    def states(self) -> list[PointState]:
        """All points that ended, in the order of their names."""
        paths = sorted((self.path / "state").glob("*.json"))
        return [PointState(**json.loads(path.read_text(encoding="utf-8"))) for path in paths]

    def _state(self, point: Point) -> Path:
        return self.path / "state" / f"{point.name}.json"
