"""How a sweep runs."""

from dataclasses import dataclass, field
from pathlib import Path

from ranker.report.compared import COMPARED

# names of the compared metrics in the records that training writes, where they are there
RECORDED = {"auc": "auc", "gauc": "gauc", "logloss": "logloss", "normalized_entropy": "ne"}


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """How a sweep runs and what its report shows.

    Attributes:
        name: of the sweep; launching the same name again goes on with it.
        root: the sweep lives in root/name.
        workers: points that train at the same time.
        ranks: processes of one point; above 1 each point runs under torchrun.
        threads: OpenMP threads of each process.
        timeout_seconds: give a point up after this long; null never does.
        retry_failed: run points again that failed in an earlier launch.
        split: that each point is evaluated on after training.
        objective: task.metric that decides which point is best.
        pareto: two task.metric, for the front of points that none beats in both.
        num_replicates: bootstrap replicates behind the intervals.
        level: confidence level of the intervals.
    """

    name: str
    root: str = "sweeps"
    workers: int = 1
    ranks: int = 1
    threads: int = 1
    timeout_seconds: float | None = None
    retry_failed: bool = False
    split: str = "test"
    objective: str = "ctr.gauc"
    pareto: list[str] = field(default_factory=lambda: ["ctr.gauc", "ctr.normalized_entropy"])
    num_replicates: int = 1000
    level: float = 0.95

    def __post_init__(self) -> None:
        for name in ("workers", "ranks", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give at least 1")
        if Path(self.name).name != self.name:
            raise ValueError(f"name is {self.name!r}; it must be a single folder name")
        if self.split not in ("valid", "test"):
            raise ValueError(f"split is {self.split!r}; must be valid or test")
        if len(self.pareto) != 2:
            raise ValueError(f"pareto has {len(self.pareto)} entries; give two task.metric")
        for target in (self.objective, *self.pareto):
            if not target.partition(".")[0] or target.partition(".")[2] not in COMPARED:
                raise ValueError(
                    f"{target!r} is no task.metric; the metric is one of {', '.join(COMPARED)}"
                )

    @property
    def directory(self) -> Path:
        """Where everything of the sweep is."""
        return Path(self.root) / self.name

    @property
    def more_is_better(self) -> bool:
        """Whether the objective should be large."""
        return COMPARED[self.objective.partition(".")[2]]

    @property
    def recorded_objective(self) -> str | None:
        """The objective's key in the validation records of training, if it is recorded."""
        task, _, metric = self.objective.partition(".")
        return f"{task}.{RECORDED[metric]}" if metric in RECORDED else None
