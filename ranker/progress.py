"""Where a run is, as its checkpoints know it."""

import dataclasses


@dataclasses.dataclass
class Progress:
    """Where a run is: saved with every checkpoint.

    Attributes:
        step: global steps taken.
        epoch: current pass over the data.
        epoch_step: steps taken in it; with the epoch, the position in the data.
        best_step: step of the best evaluation.
        best_score: its monitored metric.
        bad_evaluations: evaluations since then.
        last_evaluation: step of the last evaluation.
        stage: of the objective, from 0.
        stage_start: step at which it began; the evaluations above are those since then.
        best_is_feasible: whether the best evaluation met the constraints of the stage.
    """

    step: int = 0
    epoch: int = 0
    epoch_step: int = 0
    best_step: int | None = None
    best_score: float | None = None
    bad_evaluations: int = 0
    last_evaluation: int | None = None
    stage: int = 0
    stage_start: int = 0
    best_is_feasible: bool = False

    def describe_best(self, monitor: str) -> str:
        """Returns the best evaluation in words, to be appended to a line."""
        if self.best_score is None:
            return ""
        constraints = "" if self.best_is_feasible else ", constraints not met"
        return f"; best {monitor} {self.best_score:.5f} at step {self.best_step}{constraints}"
