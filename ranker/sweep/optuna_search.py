"""Bayesian search with Optuna's TPE: ask and tell, kept in SQLite, so that it goes on after a stop.

Bergstra et al., "Algorithms for hyper-parameter optimization", NeurIPS 2011. Optuna is the extra
`sweep`: pip install 'ctr-ranker[sweep]'.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ranker.sweep.space import Parameter, Point


class OptunaSearch:
    """TPE over choices and ranges.

    Args:
        num_points: of the whole sweep, over all launches.
        seed: of the sampler.
        num_startup: points drawn at random before the model decides.
        prune: give a point up while it trains if it is below the median of earlier ones.
    """

    def __init__(
        self, *, num_points: int, seed: int = 0, num_startup: int = 10, prune: bool = True
    ) -> None:
        if num_points < 1 or num_startup < 1:
            raise ValueError(
                f"num_points is {num_points}, num_startup is {num_startup}; give at least 1 each"
            )
        self.num_points, self.seed = num_points, seed
        self.num_startup, self.prune = num_startup, prune

    def start(
        self, parameters: Sequence[Parameter], directory: Path, *, more_is_better: bool
    ) -> None:
        """Opens `optuna.db` in the directory; unfinished trials are proposed again first."""
        try:
            import optuna
        except ImportError as error:
            raise ValueError(
                "sweep=optuna needs Optuna; install the extra: pip install 'ctr-ranker[sweep]'"
            ) from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna: Any = optuna
        self._parameters = parameters
        storage = f"sqlite:///{(directory / 'optuna.db').resolve()}"
        pruner = (
            optuna.pruners.MedianPruner(n_startup_trials=4)
            if self.prune
            else optuna.pruners.NopPruner()
        )
        study = optuna.create_study(
            storage=storage,
            study_name="sweep",
            direction="maximize" if more_is_better else "minimize",
            pruner=pruner,
            load_if_exists=True,
        )
        # a sampler that begins with the same seed again would propose the same points again
        study.sampler = optuna.samplers.TPESampler(
            seed=self.seed + len(study.trials), n_startup_trials=self.num_startup
        )
        running = optuna.trial.TrialState.RUNNING
        self._study: Any = study
        self._left = [
            optuna.trial.Trial(study, trial._trial_id)
            for trial in study.get_trials(deepcopy=False, states=(running,))
        ]
        self._ended = len(study.trials) - len(self._left)
        self._running: dict[str, Any] = {}

    def total(self) -> int:
        """The points that earlier launches left."""
        return max(self.num_points - self._ended, 0)

    def ask(self) -> Point | None:
        """An unfinished trial of an earlier launch, or a new one."""
        while True:
            if self._left:
                trial = self._left.pop(0)
            elif len(self._study.get_trials(deepcopy=False)) < self.num_points:
                trial = self._study.ask()
            else:
                return None
            point = Point(values={p.key: _suggest(trial, p) for p in self._parameters})
            if point.name not in self._running:
                self._running[point.name] = trial
                return point
            # the sampler does not know that this very point is running
            self._study.tell(trial, state=self._optuna.trial.TrialState.PRUNED)

    def should_stop(self, point: Point, scores: Sequence[tuple[int, float]]) -> bool:
        """Whether the median rule gives the point up, now that it has these scores."""
        trial = self._running[point.name]
        # steps of an earlier launch too: a trial takes each step once
        reported = self._study.trials[trial.number].intermediate_values
        for step, score in scores:
            if step not in reported:
                trial.report(score, step)
        return bool(self.prune and scores and trial.should_prune())

    def tell(self, point: Point, value: float | None, *, pruned: bool) -> None:
        """Writes the end of a trial down."""
        trial = self._running.pop(point.name)
        states = self._optuna.trial.TrialState
        if pruned:
            self._study.tell(trial, state=states.PRUNED)
        elif value is None:
            self._study.tell(trial, state=states.FAIL)
        else:
            self._study.tell(trial, value)


def _suggest(trial: Any, parameter: Parameter) -> str:
    if not parameter.is_range:
        return str(trial.suggest_categorical(parameter.key, list(parameter.choices)))
    if parameter.integer:
        assert parameter.low is not None
        assert parameter.high is not None
        low, high = int(parameter.low), int(parameter.high)
        return str(trial.suggest_int(parameter.key, low, high, log=parameter.log))
    value = trial.suggest_float(parameter.key, parameter.low, parameter.high, log=parameter.log)
    return f"{value:.6g}"
