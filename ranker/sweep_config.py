"""Reads the command line of a sweep: Hydra's multirun grammar to parameters and fixed overrides.

With `ranker.config` the only code that knows Hydra's types. Keys `sweep` and `sweep.*` say how the
sweep runs, every other override belongs to the training command, where a comma makes a parameter:
`optimizer.dense_lr=1e-3,3e-4`, `seed=range(3)`, `trainer.epochs=choice(1,2)`,
`optimizer.dense_lr=tag(log,interval(1e-4,1e-2))`.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException

from ranker.config import build_train_job, to_plain
from ranker.config_reader import FIRST_PARTY_ROOTS, ConfigError, ConfigReader
from ranker.sweep.launcher import Launcher
from ranker.sweep.options import SweepOptions
from ranker.sweep.run import SweepJob
from ranker.sweep.search import Search
from ranker.sweep.space import Parameter

# of the training command, but set by the sweep
_TAKEN = ("name", "run_root")


def build_sweep(arguments: Sequence[str], configs: Path) -> SweepJob:
    """Reads and checks the whole command, every value of every parameter included.

    Args:
        arguments: overrides in Hydra's grammar.
        configs: folder with train.yaml and sweep.yaml.

    Raises:
        ConfigError: lists every problem found.
    """
    try:
        overrides = OverridesParser.create().parse_overrides(list(arguments))
    except HydraException as error:
        raise ConfigError(f"the command cannot be read: {error}") from error
    own = [o for o in overrides if re.match(r"sweep($|[./])", o.key_or_group)]
    training = [o for o in overrides if o not in own]
    for override in training:
        if override.key_or_group in _TAKEN:
            raise ConfigError(
                f"{override.key_or_group} is set by the sweep for every point; "
                "give sweep.name and sweep.root instead"
            )
    for override in own:
        if override.key_or_group in ("sweep.launcher", "sweep.search"):
            raise ConfigError(
                f"{override.key_or_group} is a group; write sweep/launcher=slurm for a cluster, "
                "sweep=optuna for a search"
            )
    parameters = [_parameter(override) for override in training if override.is_sweep_override()]
    fixed = [_line(override) for override in training if not override.is_sweep_override()]
    options, search, launcher = _read_sweep(
        _compose(configs, "sweep", [_line(override) for override in own])["sweep"],
        plugins=_plugins(fixed),
    )
    _check_points(configs, fixed, parameters)
    return SweepJob(
        options=options, parameters=parameters, fixed=fixed, search=search, launcher=launcher
    )


def _compose(configs: Path, name: str, overrides: Sequence[str]) -> dict[str, Any]:
    try:
        with initialize_config_dir(str(configs), version_base="1.3"):
            return to_plain(compose(name, list(overrides)))
    except HydraException as error:
        raise ConfigError(f"{' '.join(overrides)}: {error}") from error


def _read_sweep(
    config: dict[str, Any], plugins: Sequence[str]
) -> tuple[SweepOptions, Search, Callable[..., Launcher]]:
    parts = ("search", "launcher")
    rest = {key: value for key, value in config.items() if key not in parts}
    reader = ConfigReader({"sweep": rest, **{part: config.get(part) for part in parts}})
    roots = (*FIRST_PARTY_ROOTS, *plugins)
    options = reader.section("sweep", SweepOptions)
    search = reader.factory("search", roots, Search, set())
    launcher = reader.factory("launcher", roots, Launcher, {"scripts", "fixed", "options"})
    reader.raise_errors()
    try:
        return options, search(), launcher
    except ValueError as error:
        raise ConfigError(f"sweep.search: {error}") from error


def _plugins(fixed: Sequence[str]) -> list[str]:
    value = next((line.partition("=")[2] for line in fixed if line.startswith("plugins=")), "[]")
    return [name.strip() for name in value.strip("[]").split(",") if name.strip()]


def _parameter(override: Override) -> Parameter:
    key = override.get_key_element()
    value = override.value()
    if isinstance(value, IntervalSweep):
        ends = value.start, value.end
        assert ends[0] is not None
        assert ends[1] is not None
        if not ends[0] < ends[1]:
            raise ConfigError(f"{key}: the range from {ends[0]} to {ends[1]} is empty")
        log = "log" in value.tags
        if log and ends[0] <= 0:
            raise ConfigError(f"{key}: a log range must begin above 0, not at {ends[0]}")
        return Parameter(
            key=key,
            low=float(ends[0]),
            high=float(ends[1]),
            integer=all(isinstance(end, int) for end in ends),
            log=log,
        )
    choices = [str(choice) for choice in override.sweep_string_iterator()]
    twice = sorted({choice for choice in choices if choices.count(choice) > 1})
    if twice or not choices:
        raise ConfigError(f"{key} lists {twice[0] if twice else 'nothing'}; list each value once")
    return Parameter(key=key, choices=choices)


def _line(override: Override) -> str:
    assert override.input_line is not None
    return override.input_line


def _check_points(configs: Path, fixed: Sequence[str], parameters: Sequence[Parameter]) -> None:
    """Builds the job of every value of every parameter, the others at their first value."""
    first = {p.key: p.choices[0] if p.choices else f"{p.low:g}" for p in parameters}
    points = [first]
    points += [{**first, p.key: choice} for p in parameters for choice in p.choices[1:]]
    for point in points:
        overrides = [*fixed, *(f"{key}={value}" for key, value in point.items())]
        try:
            build_train_job(_compose(configs, "train", [*overrides, "name=point"]))
        except ConfigError as error:
            raise ConfigError(
                f"at {' '.join(f'{k}={v}' for k, v in point.items())}: {error}"
            ) from error
