"""The YAML description of your own data: which files and columns mean what."""

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from ranker_data.preparation.plan import LastSplit, Preparation, Split, TimeSplit
from ranker_data.schema import Field, Label, Task, TimeUnit

DESCRIPTION_FILE = "dataset.yaml"

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileColumns:
    """Files of one relation.

    Attributes:
        files: path or pattern, relative to the source; Parquet or CSV with a header.
        columns: our name -> the files' name, where they differ.
        separator: between the elements of a list in a text column.
    """

    files: str
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    separator: str = "|"


@dataclasses.dataclass(frozen=True, kw_only=True)
class InlinedHistory:
    """Histories that the samples carry themselves, one list column per behaviour field.

    All lists of a sample have the same length, the oldest event first.

    Attributes:
        columns: behaviour field -> list column of the samples.
        time: list column with the times of the events. None if there is none: then every list must
            be the beginning of the user's longest one (nothing cut off at the front).
    """

    columns: Mapping[str, str]
    time: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitDescription:
    """`TimeSplit` (kind "time") or `LastSplit` (kind "last")."""

    kind: Literal["time", "last"] = "time"
    valid_fraction: float = 0.1
    test_fraction: float = 0.1
    valid_samples: int = 5
    test_samples: int = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """A data set of your own; see the data card for an example.

    Attributes:
        name: of the data set.
        time_unit: unit of integer times; text and timestamp columns are converted to it.
        samples: impressions.
        events: past events; None if the histories are inlined, or if there are none.
        history: columns of inlined histories.
        fields: of the samples.
        behaviors: fields of the events.
        labels: of the samples.
        tasks: what is predicted.
        group: "user" or "request".
        domain: id field with the domain.
        split: train, valid and test.
        min_count: table -> least count.
        hashed: table -> number of ids, or null; see `Preparation`.
        nulls: field -> what stands for a null; see `Preparation`.
    """

    name: str
    samples: FileColumns
    fields: tuple[Field, ...]
    labels: tuple[Label, ...]
    tasks: tuple[Task, ...]
    time_unit: TimeUnit = "s"
    events: FileColumns | None = None
    history: InlinedHistory | None = None
    behaviors: tuple[Field, ...] = ()
    group: Literal["user", "request"] = "user"
    domain: str | None = None
    split: SplitDescription = dataclasses.field(default_factory=SplitDescription)
    min_count: Mapping[str, int] = dataclasses.field(default_factory=dict)
    hashed: Mapping[str, int | None] = dataclasses.field(default_factory=dict)
    nulls: Mapping[str, str | float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.events is not None and self.history is not None:
            raise ValueError("both events and history are given; histories come from one of them")
        wanted = {field.name for field in self.behaviors}
        if self.history is not None and set(self.history.columns) != wanted:
            raise ValueError(
                f"history.columns names {sorted(self.history.columns)}, must name the behaviors "
                f"{sorted(wanted)}"
            )
        if wanted and self.events is None and self.history is None:
            raise ValueError("there are behaviors, but neither events nor history")

    def plan(self, num_parts: int) -> Preparation:
        """Returns the definition of the preparation."""
        split: Split
        if self.split.kind == "time":
            split = TimeSplit(
                valid_fraction=self.split.valid_fraction, test_fraction=self.split.test_fraction
            )
        else:
            split = LastSplit(
                valid_samples=self.split.valid_samples, test_samples=self.split.test_samples
            )
        return Preparation(
            name=self.name,
            time_unit=self.time_unit,
            fields=self.fields,
            behaviors=self.behaviors,
            labels=self.labels,
            tasks=self.tasks,
            group=self.group,
            domain=self.domain,
            split=split,
            min_count=self.min_count,
            hashed=self.hashed,
            nulls=self.nulls,
            num_parts=num_parts,
        )


_LISTED = {"fields": Field, "behaviors": Field, "labels": Label, "tasks": Task}
_NESTED = {
    "samples": FileColumns,
    "events": FileColumns,
    "history": InlinedHistory,
    "split": SplitDescription,
}
_CHOICES = {"side": ("user", "item", "context"), "time_unit": ("s", "ms", "us")}
_KINDS = {Field: ("id", "ids", "dense"), SplitDescription: ("time", "last")}


def read_description(path: Path) -> Description:
    """Reads and checks a description.

    Raises:
        ValueError: the file is missing, no YAML, has unknown or missing keys, or contradicts
            itself.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist; describe your data in it, see data/README.md")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    values = dict(_mapping(values, str(path)))
    for key, item_class in _LISTED.items():
        items = values.get(key) or []
        if not isinstance(items, list):
            raise ValueError(f"{path}: {key} must be a list, got {type(items).__name__}")
        values[key] = tuple(
            _build(item_class, item, f"{path}: {key}[{i}]") for i, item in enumerate(items)
        )
    for key, part_class in _NESTED.items():
        if values.get(key) is not None:
            values[key] = _build(part_class, values[key], f"{path}: {key}")
    return _build(Description, values, str(path))


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must be a mapping, got {type(value).__name__}")
    return value


def _build(cls: type[T], value: Any, where: str) -> T:
    assert dataclasses.is_dataclass(cls)
    known = {field.name: field for field in dataclasses.fields(cls)}
    for key in _mapping(value, where):
        if key not in known:
            close = difflib.get_close_matches(str(key), list(known), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{where}: unknown key {key!r}{hint}")
    for key, field in known.items():
        missing = dataclasses.MISSING
        if key not in value and field.default is missing and field.default_factory is missing:
            raise ValueError(f"{where}: key {key!r} is missing")
    for key in value:
        choices = _KINDS.get(cls) if key == "kind" else _CHOICES.get(key)
        if choices is not None and value[key] not in choices:
            raise ValueError(f"{where}: {key} is {value[key]!r}, must be one of {choices}")
    try:
        return cls(**value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error
