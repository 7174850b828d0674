"""Turns a composed configuration into objects: the only door between Hydra and the code.

Every problem of a configuration is reported at once, with the key, the value, the rule and the
nearest valid name. A class is named by `_target_`, but only classes under the first-party roots, or
under packages given as `plugins=[pkg]` on the command line, are ever imported: a configuration is
data.
"""

import dataclasses
import difflib
import functools
import importlib
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping, Set
from pathlib import Path
from typing import Any, get_origin

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ranker.job import TrainerOptions, TrainJob
from ranker.modules.embedding_options import EmbeddingOptions
from ranker.optimizers.options import OptimizerOptions
from ranker.placement import ShardingOptions
from ranker.slots import Gate, Head, Interaction, Objective, Regularizer, SequenceEncoder
from ranker.type_hints import built_by, dataclass_in, describe, matches
from ranker.warm_start import WarmStartOptions
from ranker_data.datasets.converter import DatasetConverter
from ranker_data.doctor.findings import DoctorOptions
from ranker_data.loader import LoaderOptions
from ranker_data.preparation.engine import Engine
from ranker_data.schema import Schema, SchemaError, read_schema

FIRST_PARTY_ROOTS = ("ranker", "ranker_data")


class ConfigError(ValueError):
    """A configuration that cannot be run; the message lists every problem found."""


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


class ConfigReader:
    """Reads typed values out of a plain config and collects what is wrong with them."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.errors: list[str] = []

    def check_keys(self, known: Iterable[str], path: str = "") -> None:
        """Reports keys of the mapping at `path` that nothing reads."""
        known = list(known)
        values = self._find(path) if path else self.config
        for key in values if isinstance(values, Mapping) else ():
            if key not in known:
                self.errors.append(
                    f"unknown key {_join(path, str(key))}{_suggest(str(key), known)}"
                )

    def value(self, path: str, hint: Any, default: Any = dataclasses.MISSING) -> Any:
        """Returns the value at `path` if it is there and of the type `hint`, else reports it."""
        value = self._find(path)
        if value is dataclasses.MISSING or (value is None and default is not dataclasses.MISSING):
            if default is dataclasses.MISSING:
                self.errors.append(f"{path} is missing; it must be {describe(hint)}")
                return None
            return default
        if not matches(value, hint):
            self.errors.append(f"{path} is {value!r}; it must be {describe(hint)}")
            return None
        return value

    def section(self, path: str, cls: type) -> Any:
        """Builds the dataclass `cls` from the mapping at `path`."""
        hints = typing.get_type_hints(cls)
        before = len(self.errors)
        if not isinstance(self._find(path), Mapping):
            self.errors.append(f"{path} must be a group of keys")
            return None
        self.check_keys(hints, path)
        values = {}
        for field in dataclasses.fields(cls):
            key = f"{path}.{field.name}"
            required = (
                field.default is dataclasses.MISSING
                and field.default_factory is dataclasses.MISSING
            )
            if required or self._find(key) is not dataclasses.MISSING:
                values[field.name] = self._argument(key, hints[field.name])
        return self._call(path, cls, values) if len(self.errors) == before else None

    def _argument(self, path: str, hint: Any) -> Any:
        """Returns the value of an argument, or the dataclass that its keys make."""
        nested, found = dataclass_in(hint), self._find(path)
        if nested is not None and found is not None:
            if get_origin(hint) is Mapping and isinstance(found, Mapping):
                return {str(name): self.section(f"{path}.{name}", nested) for name in found}
            return self.section(path, nested)
        return self.value(path, hint)

    def factory(
        self,
        path: str,
        roots: tuple[str, ...],
        contract: type,
        runtime: set[str],
        offered: Set[str] = frozenset(),
        reserved: Set[str] = frozenset(),
    ) -> Callable[..., Any]:
        """Returns a constructor with the arguments at `path` bound.

        `runtime` ones are given when it is called; `offered` ones too, but a constructor may do
        without them. `reserved` keys belong to somebody else.
        """
        before = len(self.errors)
        values = self._find(path)
        if not isinstance(values, Mapping) or "_target_" not in values:
            self.errors.append(
                f"{path} must be a group with a _target_, the {contract.__name__}'s class"
            )
            return _unbuildable
        target = self._import(f"{path}._target_", str(values["_target_"]), roots)
        if target is None:
            return _unbuildable
        parameters = inspect.signature(target).parameters
        hints = typing.get_type_hints(target.__init__)
        chosen = [name for name in parameters if name not in runtime | offered]
        self.check_keys([*chosen, "_target_", *reserved], path)
        arguments = {}
        for key in chosen:
            required = parameters[key].default is inspect.Parameter.empty
            if not required and key not in values:
                continue
            nested = built_by(hints[key])
            arguments[key] = (
                self._argument(f"{path}.{key}", hints[key])
                if nested is None
                else self.factory(f"{path}.{key}", roots, nested, set())
            )
        missing = sorted(runtime - set(parameters))
        if missing:
            self.errors.append(
                f"{path}._target_: {target.__name__} must accept {', '.join(missing)} "
                f"(contract of {contract.__name__})"
            )
        if len(self.errors) > before:
            return _unbuildable
        return functools.partial(_construct, target, offered - set(parameters), **arguments)

    def raise_errors(self) -> None:
        """Raises what was collected.

        Raises:
            ConfigError: if there is anything.
        """
        if self.errors:
            listed = "\n  ".join(self.errors)
            raise ConfigError(f"{len(self.errors)} problem(s) in the configuration:\n  {listed}")

    def _call(self, path: str, cls: type, values: dict[str, Any]) -> Any:
        try:
            return cls(**values)
        except ValueError as error:
            self.errors.append(f"{path}: {error}")
            return None

    def _find(self, path: str) -> Any:
        node: Any = self.config
        for key in path.split("."):
            if not isinstance(node, Mapping) or key not in node:
                return dataclasses.MISSING
            node = node[key]
        return node

    def _import(self, path: str, target: str, roots: tuple[str, ...]) -> Any:
        module, _, name = target.rpartition(".")
        if target.split(".")[0] not in roots or not module:
            self.errors.append(
                f"{path} is {target!r}; only classes under {', '.join(roots)} may be named "
                "(add your package with plugins=[package])"
            )
            return None
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            self.errors.append(f"{path} is {target!r}, which cannot be imported ({error})")
            return None
        if not inspect.isclass(found) or found.__module__.split(".")[0] not in roots:
            self.errors.append(f"{path} is {target!r}, which is no class of {', '.join(roots)}")
            return None
        return found


def _construct(target: Callable[..., Any], declined: Set[str], /, **arguments: Any) -> Any:
    """Calls `target` without the offered arguments that it does not take."""
    return target(**{name: value for name, value in arguments.items() if name not in declined})


def _unbuildable(**_: Any) -> Any:
    raise AssertionError("raise_errors comes before building")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _suggest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known keys are {', '.join(sorted(k for k in known if k != '_target_'))}"
