"""Turns a composed configuration into objects: the only door between Hydra and the code."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ranker.config_reader import FIRST_PARTY_ROOTS, ConfigError, ConfigReader
from ranker.job import TrainerOptions, TrainJob
from ranker.modules.embedding_options import EmbeddingOptions
from ranker.optimizers.options import OptimizerOptions
from ranker.placement import ShardingOptions
from ranker.slots import Gate, Head, Interaction, Objective, Regularizer, SequenceEncoder
from ranker.warm_start import WarmStartOptions
from ranker_data.datasets.converter import DatasetConverter
from ranker_data.doctor.findings import DoctorOptions
from ranker_data.loader import LoaderOptions
from ranker_data.preparation.engine import Engine
from ranker_data.schema import Schema, SchemaError, read_schema


def to_plain(config: DictConfig) -> dict[str, Any]:
    """Resolves a composed config into dictionaries, lists and scalars.

    Raises:
        ConfigError: a mandatory value (???) is missing or an interpolation fails.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        listed = "\n  ".join(
            f"{key} must be given: add {key}=<value> to the command" for key in missing
        )
        raise ConfigError(f"{len(missing)} value(s) are missing:\n  {listed}")
    try:
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"the configuration cannot be resolved: {error}") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def build_train_job(config: Mapping[str, Any]) -> TrainJob:
    """Checks a plain training config against the code and the schema, and builds the job.

    Raises:
        ConfigError: lists every problem found.
    """
    reader = ConfigReader(config)
    reader.check_keys(TRAIN_KEYS)
    roots = (*FIRST_PARTY_ROOTS, *reader.value("plugins", list[str], []))
    name = reader.value("name", str)
    run_root = reader.value("run_root", str)
    seed = reader.value("seed", int)
    dataset = reader.section("dataset", DatasetOptions)
    loader = reader.section("loader", LoaderOptions)
    embedding = reader.section("embedding", EmbeddingOptions)
    optimizer = reader.section("optimizer", OptimizerOptions)
    sharding = reader.section("sharding", ShardingOptions)
    trainer = reader.section("trainer", TrainerOptions)
    warm_start = None
    if reader.value("warm_start", dict[str, Any] | None, None) is not None:
        warm_start = reader.section("warm_start", WarmStartOptions)
    sequence = {
        str(key): reader.factory(
            f"sequence.{key}",
            roots,
            SequenceEncoder,
            {"query_dim", "cross_dim"},
            reserved={"where"},
        )
        for key in reader.value("sequence", dict[str, Any], {})
    }
    where = {
        key: reader.value(f"sequence.{key}.where", dict[str, list[int]], {}) for key in sequence
    }
    regularizers = {
        str(key): reader.factory(f"regularizer.{key}", roots, Regularizer, {"schema", "items"})
        for key in reader.value("regularizer", dict[str, Any], {})
    }
    gate, interaction = (
        None
        if reader.value(slot, dict[str, Any] | None, None) is None
        else reader.factory(slot, roots, contract, {"layout"})
        for slot, contract in (("gate", Gate), ("interaction", Interaction))
    )
    head = reader.factory("head", roots, Head, {"input_dim", "tasks"}, offered={"layout"})
    objective = reader.factory("objective", roots, Objective, set())
    if name is not None and Path(str(name)).name != name:
        reader.errors.append(f"name is {name!r}; it must be a single folder name")
    schema = _read_schema(dataset, reader.errors)
    reader.raise_errors()
    assert schema is not None
    return TrainJob(
        config=dict(config),
        run_dir=Path(run_root) / name,
        seed=seed,
        data_root=Path(dataset.path),
        schema=schema,
        loader=loader,
        embedding=embedding,
        optimizer=optimizer,
        sharding=sharding,
        trainer=trainer,
        warm_start=warm_start,
        sequence=sequence,
        gate=gate,
        interaction=interaction,
        head=head,
        objective=objective,
        regularizers=regularizers,
        where=where,
        data_severities=dataset.severities,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareJob:
    """A data set to prepare.

    Attributes:
        converter: reads the original format.
        source: folder or file in the original format; None for the simulator.
        out: folder to write.
        engine: runs the SQL.
    """

    converter: DatasetConverter
    engine: Engine
    source: Path | None
    out: Path


def build_prepare_job(config: Mapping[str, Any]) -> PrepareJob:
    """Checks a plain preparation config and builds the job.

    Raises:
        ConfigError: lists every problem found.
    """
    reader = ConfigReader(config)
    reader.check_keys(("dataset", "engine", "source", "out", "plugins"))
    roots = (*FIRST_PARTY_ROOTS, *reader.value("plugins", list[str], []))
    source = reader.value("source", str | None, None)
    out = reader.value("out", str)
    build = reader.factory("dataset.converter", roots, DatasetConverter, set())
    build_engine = reader.factory("engine", roots, Engine, set())
    reader.raise_errors()
    try:
        converter = build()
    except ValueError as error:
        raise ConfigError(f"dataset.converter: {error}") from error
    return PrepareJob(
        converter=converter,
        engine=build_engine(),
        source=Path(source) if source else None,
        out=Path(out),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetOptions:
    """The data to train on.

    Attributes:
        name: of the data set, for people.
        path: folder made by scripts/prepare_data.py.
        exclude: fields that the model does not see; "behavior.<name>" excludes one of the history.
        converter: how scripts/prepare_data.py makes it; training does not read it.
        severities: check of the data at the start -> error, warning, note or off, in place of the
            default; see `ranker_data.doctor.findings`.
    """

    path: str
    name: str = ""
    exclude: list[str] = dataclasses.field(default_factory=list)
    converter: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    severities: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        # they are checked there
        DoctorOptions(severities=self.severities)


TRAIN_KEYS = (
    "name",
    "run_root",
    "seed",
    "plugins",
    "dataset",
    "loader",
    "embedding",
    "sequence",
    "gate",
    "interaction",
    "head",
    "objective",
    "regularizer",
    "optimizer",
    "sharding",
    "trainer",
    "warm_start",
)


def _read_schema(dataset: DatasetOptions | None, errors: list[str]) -> Schema | None:
    if dataset is None:
        return None
    try:
        return read_schema(Path(dataset.path)).without(dataset.exclude)
    except SchemaError as error:
        errors.append(str(error))
        return None
