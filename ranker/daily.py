"""Continuous training: day by day, each day scored before it is trained on.

Every day is a run of its own, `<run>/<day>`, that begins with the weights and the optimizers' state
of the day before. So it can stop anywhere and goes on when the same command is launched again, and
any day is evaluated, exported or gone back to like any run.

    <run>/<day>/            checkpoints, metrics.jsonl and so on
    <run>/<day>/day.json    written last: scores before and after, rows forgotten, rows changed
    <run>/<day>/delta.safetensors    what changed since the day before
    <run>/progressive.md    the table of all days
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ranker.checkpoint_files import list_checkpoints
from ranker.delta import write_delta
from ranker.distributed import (
    Process,
    agree,
    barrier,
    broadcast_from_main,
    process_group,
)
from ranker.embedding import table_keys
from ranker.evaluate import compute_scores, predict
from ranker.forget import forget_rows
from ranker.job import TrainJob
from ranker.run_dir import claim_run_dir
from ranker.supervision.supervisor import supervise
from ranker.trainer import Trainer
from ranker.warm_start import WarmStartOptions
from ranker_data.days import count_ids, split_days
from ranker_data.reader import DataError

DAY_FILE = "day.json"
BEFORE_FILE = "before.json"
DELTA_FILE = "delta.safetensors"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DailyOptions:
    """Which days, and what happens between them.

    Attributes:
        first_day: such as 2024-02-28 (UTC); null is the first of the data.
        last_day: likewise.
        splits: whose samples are dealt to days.
        min_count: an id that occurred less often than this so far begins each day as the unknown
            id does (admission); 0 admits all.
        expire_days: an id that did not occur on so many days begins the next as the unknown id
            does (expiry); null never.
        delta: write what changed on each day.
        keep_days: newest days whose checkpoints are kept.
    """

    first_day: str | None = None
    last_day: str | None = None
    splits: list[str] = dataclasses.field(default_factory=lambda: ["train", "valid", "test"])
    min_count: int = 0
    expire_days: int | None = None
    delta: bool = True
    keep_days: int = 3

    def __post_init__(self) -> None:
        if self.min_count < 0:
            raise ValueError(f"min_count must not be negative, got {self.min_count}")
        if self.expire_days is not None and self.expire_days < 1:
            raise ValueError(f"expire_days must be at least 1 or null, got {self.expire_days}")
        # the day before is what a day begins with
        if self.keep_days < 2:
            raise ValueError(f"keep_days must be at least 2, got {self.keep_days}")
        if not self.splits:
            raise ValueError("splits is empty; name at least train")


def train_daily(job: TrainJob, options: DailyOptions) -> None:
    """Trains a job on one day after the other, in this process and those beside it.

    Raises:
        DataError: the data has no such days, or their rows cannot be used.
    """
    trainer = job.trainer
    remembered = check_forgetting(job, options)
    with process_group(trainer.device, trainer.timeout_seconds) as process:
        if process.is_main and remembered:
            print(
                f"admission and expiry leave out the hashed tables {', '.join(remembered)}: their "
                "rows belong to several ids"
            )
        days = _choose_days(job, options, process)
        for index, day in enumerate(days):
            if not broadcast_from_main((job.run_dir / day / DAY_FILE).is_file()):
                _train_day(job, options, process, days[: index + 1])
            _finish_day(job, options, process, days[: index + 1])
        if process.is_main:
            print(f"{(job.run_dir / 'progressive.md').read_text()}\n{job.run_dir}")


def check_forgetting(job: TrainJob, options: DailyOptions) -> list[str]:
    """Returns the tables that admission and expiry would have to leave out, if they are asked for.

    Raises:
        ValueError: none would be left.
    """
    if options.min_count == 0 and options.expire_days is None:
        return []
    read = table_keys(job.schema)
    hashed = [t for t in (*job.embedding.hashed, *job.embedding.lookups) if t in read]
    if len(hashed) == len(read):
        raise ValueError(
            "daily.min_count and daily.expire_days forget rows of single ids, but all tables are "
            "hashed: their rows belong to several ids; leave both options out"
        )
    return hashed


def _choose_days(job: TrainJob, options: DailyOptions, process: Process) -> list[str]:
    found: list[str] = []

    def split() -> None:
        if process.is_main:
            found.extend(split_days(job.data_root, job.schema, options.splits))

    agree(split, DataError)
    days: list[str] = broadcast_from_main(found)
    first, last = options.first_day or days[0], options.last_day or days[-1]
    chosen = [day for day in days if first <= day <= last]
    if not chosen:
        raise DataError(
            f"{job.data_root} has no samples from {first} to {last}; it has {days[0]} to {days[-1]}"
        )
    return chosen


def _train_day(job: TrainJob, options: DailyOptions, process: Process, days: Sequence[str]) -> None:
    """Trains on the last of `days`, which follow each other."""
    day = days[-1]
    folder = job.run_dir / day
    forgotten: dict[str, int] = {}
    day_job = dataclasses.replace(
        job,
        run_dir=folder,
        config={**job.config, "name": day, "run_root": str(job.run_dir)},
        splits={"train": day, "valid": day},
        warm_start=job.warm_start
        if len(days) == 1
        else WarmStartOptions(run=str(job.run_dir / days[-2]), checkpoint="last", optimizer=True),
    )
    with claim_run_dir(folder, day_job.config) as run, supervise(run, process) as supervisor:
        trainer = Trainer(day_job, process, run, supervisor)
        if trainer.progress.step == 0:
            if len(days) > 1:
                forgotten = _forget(job, options, process, days, trainer)
            _write(folder / BEFORE_FILE, {"scores": _score(trainer, days), "forgotten": forgotten})
        trainer.fit()
        after = _score(trainer, days, trained=True)
    _write(folder / "after.json", after)


def _score(
    trainer: Trainer, days: Sequence[str], *, trained: bool = False
) -> dict[str, float | None]:
    """Scores of the day's rows; none before the first day, when nothing is learned yet."""
    if len(days) == 1 and not trained and trainer.job.warm_start is None:
        return {}
    predictions = predict(
        trainer.trainable.model, trainer.valid_loader, trainer.job.schema, trainer.process.device
    )
    return compute_scores(predictions)


def _forget(
    job: TrainJob,
    options: DailyOptions,
    process: Process,
    days: Sequence[str],
    trainer: Trainer,
) -> dict[str, int]:
    """Makes the tables forget ids that are rare or have not occurred for long."""
    if options.min_count == 0 and options.expire_days is None:
        return {}
    chosen: dict[str, Tensor] = {}
    if process.is_main:
        chosen = rows_to_forget(
            [count_ids(job.data_root, job.schema, day) for day in days[:-1]],
            min_count=options.min_count,
            expire_days=options.expire_days,
        )
        # a hashed id space has other rows than ids
        for table in (*job.embedding.hashed, *job.embedding.lookups):
            chosen.pop(table, None)
    chosen = broadcast_from_main(chosen)
    forget_rows(trainer.trainable, chosen)
    return {table: int(rows.sum()) for table, rows in chosen.items()}


def rows_to_forget(
    counts: Sequence[Mapping[str, Any]], *, min_count: int, expire_days: int | None
) -> dict[str, Tensor]:
    """Returns which ids are rare, or have not occurred for long, bool [rows] by table.

    Args:
        counts: occurrences of each id on each day so far, by table.
        min_count: fewer in all are rare.
        expire_days: days without an occurrence that are long; None never is.
    """
    chosen = {}
    for table in counts[0]:
        total = np.sum([day[table] for day in counts], axis=0)
        rows = (total > 0) & (total < min_count)
        if expire_days is not None and len(counts) > expire_days:
            recent = np.sum([day[table] for day in counts[-expire_days:]], axis=0)
            rows |= (total > 0) & (recent == 0)
        # the unknown id is never forgotten
        rows[0] = False
        chosen[table] = torch.from_numpy(rows)
    return chosen


def _finish_day(
    job: TrainJob, options: DailyOptions, process: Process, days: Sequence[str]
) -> None:
    """Writes the delta, the day's record and the table; deletes checkpoints of old days."""
    if process.is_main:
        folder = job.run_dir / days[-1]
        if not (folder / DAY_FILE).is_file():
            changed: dict[str, int] = {}
            if options.delta and len(days) > 1:
                old, new = (
                    list_checkpoints(job.run_dir / day / "checkpoints")[-1] for day in days[-2:]
                )
                changed = write_delta(old, new, folder / DELTA_FILE)
            before = json.loads((folder / BEFORE_FILE).read_text())
            _write(
                folder / DAY_FILE,
                {
                    "day": days[-1],
                    "before": before["scores"],
                    "after": json.loads((folder / "after.json").read_text()),
                    "forgotten_rows": before["forgotten"],
                    "changed_rows": changed,
                },
            )
        records = [json.loads((job.run_dir / day / DAY_FILE).read_text()) for day in days]
        (job.run_dir / "progressive.md").write_text(describe_days(records))
        for day in days[: -options.keep_days]:
            shutil.rmtree(job.run_dir / day / "checkpoints", ignore_errors=True)
    barrier()


def describe_days(records: Sequence[Mapping[str, Any]]) -> str:
    """Returns the days as a Markdown table: metrics before a day was trained on, and after."""
    names = list(records[0]["after"])
    shown = [name for name in names if name.rpartition(".")[2] in ("auc", "logloss")]
    header = ["day", *(f"{name} {when}" for name in shown for when in ("before", "after"))]
    header += ["rows forgotten", "rows changed"]
    lines = [" | ".join(header), " | ".join("---" for _ in header)]
    for record in records:
        values = [record[when].get(name) for name in shown for when in ("before", "after")]
        cells = [record["day"], *("" if v is None else f"{v:.5f}" for v in values)]
        cells += [f"{sum(record[key].values()):,}" for key in ("forgotten_rows", "changed_rows")]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def _write(path: Path, value: Mapping[str, Any]) -> None:
    if torch.distributed.get_rank() == 0:
        path.write_text(json.dumps(value, indent=1))
