"""Configs that hold that of a training: a plan's for a cluster, and continuous training's."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ranker.config import build_train_job
from ranker.config_reader import ConfigReader
from ranker.daily import DailyOptions
from ranker.dry_run import DryRunOptions
from ranker.job import TrainJob


def build_dry_run(config: Mapping[str, Any]) -> tuple[TrainJob, DryRunOptions]:
    """Checks a plain planning config and builds the job and the cluster to plan it for.

    Raises:
        ConfigError: lists every problem found.
    """
    own = [field.name for field in dataclasses.fields(DryRunOptions)]
    reader = ConfigReader({"cluster": {key: config[key] for key in own if key in config}})
    options = reader.section("cluster", DryRunOptions)
    reader.raise_errors()
    return build_train_job({k: v for k, v in config.items() if k not in own}), options


def build_daily_job(config: Mapping[str, Any]) -> tuple[TrainJob, DailyOptions]:
    """Checks a plain config of continuous training and builds the job of all days.

    Raises:
        ConfigError: lists every problem found.
    """
    reader = ConfigReader(config)
    options = reader.section("daily", DailyOptions)
    reader.raise_errors()
    return build_train_job({k: v for k, v in config.items() if k != "daily"}), options
