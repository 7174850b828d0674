"""Projects the items of a trained run, for evaluations that search in them."""

import dataclasses
from pathlib import Path

from ranker.checkpoint import choose_checkpoint, load_checkpoint
from ranker.distributed import process_group
from ranker.job import TrainJob
from ranker.projections import write_projections
from ranker.run_dir import RunDir
from ranker.train_module import ranking_model


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProjectOptions:
    """What to project.

    Attributes:
        run: directory of the run.
        out: folder to write; it must not exist.
        checkpoint: "best" (by the run's monitored metric), "last", or a step.
    """

    run: str
    out: str
    checkpoint: str | int = "best"


def project_run(job: TrainJob, options: ProjectOptions) -> None:
    """Writes the projections of a checkpoint of a run.

    Args:
        job: built from the run's own config.
        options: what to project.

    Raises:
        CheckpointError: the run has no such checkpoint, or it is damaged.
        ValueError: the run has nothing to project, or the folder exists.
    """
    with process_group(job.trainer.device, job.trainer.timeout_seconds) as process:
        path = choose_checkpoint(RunDir(Path(options.run)).checkpoints, options.checkpoint)
        trainable = job.build_trainable(process.device)
        load_checkpoint(path, trainable)
        sizes = write_projections(
            ranking_model(trainable.model),
            job.schema,
            step=int(path.name.removeprefix("step-")),
            out=Path(options.out),
            process=process,
        )
        if process.is_main:
            counts = ", ".join(f"{count:,} of {field}" for field, count in sizes.items())
            print(f"projected {counts} with {path.name}: {options.out}")
