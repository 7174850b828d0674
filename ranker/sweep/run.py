"""The scheduler of a sweep: keeps workers busy, writes down how points end, then reports."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ranker.logging import read_records
from ranker.sweep.launcher import Launcher, Running
from ranker.sweep.options import SweepOptions
from ranker.sweep.results import read_objective, write_sweep_report
from ranker.sweep.search import Search
from ranker.sweep.space import Parameter, Point
from ranker.sweep.state import PointState, SweepDir

POLL_SECONDS = 0.3
# a growing metrics.jsonl is read this often, to see whether a point should be given up
WATCH_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class SweepJob:
    """A sweep to run.

    Attributes:
        options: how.
        parameters: what varies.
        fixed: overrides of every point, checked already.
        search: who proposes points, not started yet.
        launcher: constructor of what starts them, given scripts, fixed and options.
    """

    options: SweepOptions
    parameters: list[Parameter]
    fixed: list[str]
    search: Search
    launcher: Callable[..., Launcher]


def run_sweep(job: SweepJob, launcher: Launcher, *, say: Callable[[str], None] = print) -> Path:
    """Runs every point that has not ended yet, then writes the report.

    Args:
        job: the sweep.
        launcher: starts points.
        say: takes a line of progress.

    Returns:
        The page of the report.

    Raises:
        ValueError: the folder holds another sweep, or the parameters do not suit the search.
    """
    directory = SweepDir(job.options.directory)
    directory.begin(job.fixed, [parameter.key for parameter in job.parameters])
    job.search.start(job.parameters, directory.path, more_is_better=job.options.more_is_better)
    scheduler = _Scheduler(job, directory, launcher, say)
    try:
        scheduler.run()
    finally:
        scheduler.stop()
    page = write_sweep_report(job.options, directory)
    say(f"report: {page}")
    return page


class _Scheduler:
    def __init__(
        self, job: SweepJob, directory: SweepDir, launcher: Launcher, say: Callable[[str], None]
    ) -> None:
        self.job, self.directory, self.launcher, self.say = job, directory, launcher, say
        self.running: list[Running] = []
        self.ended = 0
        self.took: list[float] = []
        self.watched = time.monotonic()

    def run(self) -> None:
        """Until the search has no further point and none is running."""
        more = True
        while more or self.running:
            while more and len(self.running) < self.job.options.workers:
                more = self._start_next()
            for active in list(self.running):
                reason = active.poll()
                if reason is not None:
                    self._end(active, reason)
            self._watch()
            if self.running:
                time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Ends what is running; the next launch goes on with it."""
        for active in self.running:
            active.stop()

    def _start_next(self) -> bool:
        point = self.job.search.ask()
        if point is None:
            return False
        earlier = self.directory.read_state(point)
        if earlier is not None and not (
            earlier.state == "failed" and self.job.options.retry_failed
        ):
            self._tell(earlier)
            self._progress(point, f"{earlier.state} in an earlier launch")
            return True
        self.say(f"start {point.describe()}")
        self.running.append(self.launcher.launch(point))
        return True

    def _end(self, active: Running, reason: str, *, pruned: bool = False) -> None:
        self.running.remove(active)
        state = PointState(
            values=dict(active.point.values),
            state="pruned" if pruned else ("failed" if reason else "finished"),
            seconds=round(active.seconds, 1),
            reason=reason,
        )
        self.directory.write_state(state)
        self.took.append(state.seconds)
        self._tell(state)
        said = reason.splitlines()[0] if reason else f"in {state.seconds:.0f} s"
        self._progress(active.point, f"{state.state} {said}")

    def _tell(self, state: PointState) -> None:
        value = None
        if state.state == "finished":
            value = read_objective(self.directory, state.point, self.job.options)
        self.job.search.tell(state.point, value, pruned=state.state == "pruned")

    def _progress(self, point: Point, what: str) -> None:
        self.ended += 1
        total = self.job.search.total()
        left = ""
        if self.took and self.ended < total:
            mean = sum(self.took) / len(self.took) / self.job.options.workers
            left = f", about {(total - self.ended) * mean / 60:.1f} min left"
        self.say(f"{self.ended} of {total}: {point.describe()}: {what}{left}")

    def _watch(self) -> None:
        """Gives points up whose validation scores the search thinks hopeless."""
        key = self.job.options.recorded_objective
        if key is None or time.monotonic() - self.watched < WATCH_SECONDS:
            return
        self.watched = time.monotonic()
        for active in list(self.running):
            records = read_records(self.directory.run(active.point) / "metrics.jsonl")
            scores = [
                (record["step"], record[key])
                for record in records
                if record["kind"] == "valid" and record.get(key) is not None
            ]
            if self.job.search.should_stop(active.point, scores):
                active.stop()
                self._end(active, f"below the median at step {scores[-1][0]}", pruned=True)
