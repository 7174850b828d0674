"""Points as jobs of a SLURM cluster, submitted with submitit.

The extra `slurm`: pip install 'ctr-ranker[slurm]'. The sweep's folder must be shared between the
nodes. Jobs outlive the sweep's command: launched again, it takes over those that are still there.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ranker.report.files import replace_file
from ranker.sweep.commands import point_commands
from ranker.sweep.options import SweepOptions
from ranker.sweep.slurm_job import PointJob, read_outcome
from ranker.sweep.space import Point
from ranker.sweep.state import SweepDir

# the cluster is asked about a job this often
STATE_SECONDS = 30.0
# and this often when it is about to end
ASK_SECONDS = 2.0
# a job must be gone this long before it counts as dead: files of other nodes are seen late, and a
# job that was preempted may be queued again by the cluster itself
GONE_SECONDS = 60.0
# how long a cancelled job may take to end
GRACE_SECONDS = 60.0

# the node's or the queue's fault, not the point's: it goes on in another job
_BLAMELESS = ("PREEMPTED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "REVOKED")
_ENDED = (*_BLAMELESS, "COMPLETED", "FAILED", "CANCELLED", "OUT_OF_MEMORY", "DEADLINE")


@dataclass(frozen=True, kw_only=True)
class JobPaths:
    """Files of the job of one point."""

    record: Path  # {"job_id": ..., "attempt": ...} while the job is not known to have ended
    outcome: Path  # of `slurm_job`
    log: Path


class SlurmLauncher:
    """One job per point, on one node; a point of several ranks runs under torchrun in it.

    Args:
        scripts: folder with train.py and evaluate.py.
        fixed: overrides of every point.
        options: of the sweep.
        minutes: time limit of a job; a point that reaches it goes on in a new job.
        resubmits: how often a point that ran out of time or lost its node gets a new job.
        gpus: of each job.
        cpus: of each job.
        memory_gb: of each job; null takes the cluster's default.
        partition: null takes the cluster's default, and so on.
        account: that is charged.
        qos: quality of service.
        constraint: features that a node must have.
        grace_seconds: between the notice that time is up and the end.
        setup: lines of shell before the job's command.
        more: further sbatch flags with their values, {mail-type: END}.
    """

    def __init__(
        self,
        *,
        scripts: Path,
        fixed: Sequence[str],
        options: SweepOptions,
        minutes: int,
        resubmits: int = 5,
        gpus: int = 0,
        cpus: int = 1,
        memory_gb: float | None = None,
        partition: str | None = None,
        account: str | None = None,
        qos: str | None = None,
        constraint: str | None = None,
        grace_seconds: int = 120,
        setup: list[str] | None = None,
        more: dict[str, Any] | None = None,
    ) -> None:
        if options.timeout_seconds is not None:
            raise ValueError(
                "sweep.timeout_seconds is for points on this machine; a job waits in a queue: "
                "give sweep.launcher.minutes and sweep.launcher.resubmits instead"
            )
        for name, value in (("minutes", minutes), ("cpus", cpus)):
            if value < 1:
                raise ValueError(f"{name} is {value}; give at least 1")
        if grace_seconds >= 60 * minutes:
            raise ValueError(
                f"grace_seconds is {grace_seconds}; it must be less than minutes={minutes}"
            )
        self.scripts, self.fixed, self.options = scripts, list(fixed), options
        self.resubmits = resubmits
        self.parameters: dict[str, Any] = {
            "time": minutes,
            "nodes": 1,
            "ntasks_per_node": 1,
            "cpus_per_task": cpus,
            "gpus_per_node": gpus or None,
            "mem": None if memory_gb is None else f"{round(1024 * memory_gb)}M",
            "partition": partition,
            "account": account,
            "qos": qos,
            "constraint": constraint,
            "signal_delay_s": grace_seconds,
            "setup": setup,
            "additional_parameters": more,
        }
        directory = SweepDir(options.directory)
        self.directory, self.jobs = directory, directory.path / "jobs"
        # what is wrong with them shall be known before the first point
        _executor(self.jobs, self.parameters)

    def launch(self, point: Point) -> "SlurmPoint":
        """Submits a job, or takes over the one that an earlier launch submitted."""
        paths = JobPaths(
            record=self.jobs / f"{point.name}.json",
            outcome=self.jobs / f"{point.name}.outcome.json",
            log=self.directory.log(point).resolve(),
        )
        paths.log.parent.mkdir(parents=True, exist_ok=True)
        job = PointJob(
            commands=point_commands(self.scripts, self.fixed, self.options, point),
            log=paths.log,
            outcome=paths.outcome.resolve(),
            threads=self.options.threads,
        )
        executor = _executor(self.jobs, {"job_name": point.name, **self.parameters})
        return SlurmPoint(point, job, executor, paths, resubmits=self.resubmits)


class SlurmPoint:
    """The job of a point, and the jobs that follow when the cluster ends it early.

    Args:
        point: that it trains and evaluates.
        job: what runs on the node.
        executor: submits it.
        paths: its files.
        resubmits: how many jobs may follow.
    """

    def __init__(
        self, point: Point, job: PointJob, executor: Any, paths: JobPaths, *, resubmits: int
    ) -> None:
        self.point, self.job, self.executor, self.paths = point, job, executor, paths
        self.resubmits = resubmits
        self._started = time.monotonic()
        self._ran: float | None = None
        self._asked = -math.inf
        self._gone_since: float | None = None
        self._state = "UNKNOWN"
        self.attempt = 1
        if not self._take_over():
            paths.log.write_text("", encoding="utf-8")
            self._submit()

    @property
    def seconds(self) -> float:
        """That the last job ran, or since this launch if it did not tell."""
        return self._ran if self._ran is not None else time.monotonic() - self._started

    def poll(self) -> str | None:
        """None while it waits or runs, "" when all is done, else the reason of its failure."""
        outcome = read_outcome(self.paths.outcome)
        if outcome is not None and outcome.end != "interrupted":
            self._ran = outcome.seconds
            self._forget()
            return outcome.reason
        if not (self._is_gone() if outcome is None else self._has_left()):
            return None
        blameless = self._state.startswith(_BLAMELESS)
        if outcome is not None:
            # a person who cancels a job does not want another one
            blameless = not self._state.startswith("CANCELLED")
        reason = f"the cluster ended the job: {self._state}"
        if blameless and self.attempt <= self.resubmits:
            # in case the cluster has queued the old one again
            self._handle.cancel(check=False)
            self.attempt += 1
            self._submit()
            return None
        self._forget()
        return f"{reason}, for the {self.attempt}. time" if blameless else reason

    def stop(self) -> None:
        """Cancels the job, and waits for its end."""
        self._handle.cancel(check=False)
        deadline = time.monotonic() + GRACE_SECONDS
        while read_outcome(self.paths.outcome) is None and time.monotonic() < deadline:
            if self._ask(every=ASK_SECONDS).startswith(_ENDED):
                break
            time.sleep(0.2)
        self._forget()

    def _forget(self) -> None:
        """Leaves nothing for a later launch to take over."""
        self.paths.record.unlink(missing_ok=True)
        self.paths.outcome.unlink(missing_ok=True)

    def _submit(self) -> None:
        self.paths.outcome.unlink(missing_ok=True)
        self._handle: Any = self.executor.submit(self.job)
        self._asked, self._gone_since, self._state = time.monotonic(), None, "UNKNOWN"
        with replace_file(self.paths.record) as temporary:
            record = {"job_id": self._handle.job_id, "attempt": self.attempt}
            temporary.write_text(json.dumps(record), encoding="utf-8")

    def _take_over(self) -> bool:
        """Whether an earlier launch left a job that is there or has ended by itself."""
        if not self.paths.record.is_file():
            return False
        record = json.loads(self.paths.record.read_text(encoding="utf-8"))
        self.attempt = record["attempt"]
        self._handle = self.executor.job_class(
            folder=self.executor.folder, job_id=record["job_id"], tasks=[0]
        )
        if read_outcome(self.paths.outcome) is not None:
            return True
        state = self._ask(every=0.0)
        return state != "UNKNOWN" and not state.startswith(_ENDED)

    def _ask(self, *, every: float) -> str:
        """The job's state as the cluster tells it, at most `every` so many seconds."""
        if time.monotonic() - self._asked >= every:
            self._asked = time.monotonic()
            self._state = self._handle.watcher.get_state(self._handle.job_id, mode="force").upper()
        return self._state

    def _is_gone(self) -> bool:
        """Whether the job has been at an end for so long that no outcome will come."""
        if not self._ask(every=STATE_SECONDS).startswith(_ENDED):
            self._gone_since = None
            return False
        if self._gone_since is None:
            self._gone_since = time.monotonic()
        return time.monotonic() - self._gone_since >= GONE_SECONDS

    def _has_left(self) -> bool:
        """Whether a job that wrote that it was interrupted no longer holds the run."""
        return not self._ask(every=ASK_SECONDS).startswith(("RUNNING", "COMPLETING"))


def _executor(folder: Path, parameters: Mapping[str, Any]) -> Any:
    """Submitit's executor, with the parameters that are not None."""
    try:
        import submitit
    except ImportError as error:
        raise ValueError(
            "sweep/launcher=slurm needs submitit; install the extra: pip install "
            "'ctr-ranker[slurm]'"
        ) from error
    try:
        executor = submitit.SlurmExecutor(folder=folder.resolve())
    except RuntimeError as error:
        raise ValueError(
            "sweep/launcher=slurm finds no srun; start the sweep on a node of the cluster that may "
            "submit jobs, or take sweep/launcher=local"
        ) from error
    executor.update_parameters(**{k: value for k, value in parameters.items() if value is not None})
    return executor
