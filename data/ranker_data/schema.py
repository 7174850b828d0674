"""The schema of a prepared data set: the one place that knows fields, tables, labels and tasks.

`schema.yaml` sits at the root of a prepared data set and is read as data (safe YAML, strict keys).

    tables     id spaces; several fields may share one (the history's item and the candidate's item
    do) fields     what is known about the user, the candidate item and the context of an impression
    behaviors  what the event log knows about one past event; fields whose name is also a candidate
               field are *inherent* (they meet the candidate in target attention), the others are
               *cross* fields (read time, play time, rating ...), which a candidate cannot have
    labels     columns with 0, 1 or null (undefined); a label may require another one
    tasks      what a head predicts: a label, and the condition that defines its evaluation space
"""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

FORMAT_VERSION = 1
SCHEMA_FILE = "schema.yaml"
# of the column with the weights of a weighted field's ids
WEIGHTS_SUFFIX = ".weight"

Side = Literal["user", "item", "context"]
Kind = Literal["id", "ids", "dense"]
TimeUnit = Literal["s", "ms", "us"]
OutOfRange = Literal["error", "oov", "hash"]


class SchemaError(ValueError):
    """A schema that contradicts itself; the message lists every problem found."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """An id space: ids are in [0, num_embeddings); id 0 means unknown or missing.

    `num_embeddings` null is an id space without a vocabulary: any id that is not negative. The
    model hashes such ids into as many rows as its configuration says.

    `out_of_range` says what becomes of ids that the table does not have: "error", "oov" (id 0) or
    "hash" (the remainder, an id of another value).
    """

    name: str
    num_embeddings: int | None
    out_of_range: OutOfRange = "error"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
    """One column of a sample (or of a past event, where `side` has no meaning).

    `kind` is "id" (one id), "ids" (a list of ids, pooled) or "dense" (one float, standardised by
    the model with `mean` and `std`, which were measured on the training rows). A field of `side`
    "user" is constant per user over the whole data set; "item" and "context" fields may differ from
    sample to sample. The ids of a `weighted` field of the samples have a weight each, in the column
    `<name>.weight`, and are pooled to their weighted mean; weights are finite and not negative.
    """

    name: str
    kind: Kind
    side: Side = "item"
    table: str | None = None
    mean: float = 0.0
    std: float = 1.0
    weighted: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Label:
    """A binary label column. `requires` names a label that must be 1 wherever this one is 1.

    `truth` names the column with the true probability of the label, which only a simulator knows.
    It refers to the label as stored: P(label = 1) over all impressions.
    """

    name: str
    requires: str | None = None
    truth: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A prediction target: `label`, on the rows where `condition` is 1 (all rows if None).

    `truth` names the column with the true probability of the label *given the condition*, if a
    simulator knows it.
    """

    name: str
    label: str
    condition: str | None = None
    truth: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schema:
    """Everything that the loader and the model need to know about a prepared data set."""

    name: str
    time_unit: TimeUnit
    tables: tuple[Table, ...]
    fields: tuple[Field, ...]
    behaviors: tuple[Field, ...] = ()
    labels: tuple[Label, ...] = ()
    tasks: tuple[Task, ...] = ()
    # column that groups samples for GAUC: "user" or "request"
    group: Literal["user", "request"] = "user"
    # id field whose value is the domain (scenario) of a sample
    domain: str | None = None
    # names of the domain's ids, for reports
    domain_names: tuple[str, ...] = ()
    format: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        problems = list(_find_problems(self))
        if problems:
            raise SchemaError(f"schema {self.name!r}: " + "; ".join(problems))

    def table(self, name: str) -> Table:
        """Returns the table of this name."""
        return next(table for table in self.tables if table.name == name)

    def fields_of(self, side: Side, *kinds: Kind) -> tuple[Field, ...]:
        """Returns the sample fields of one side, of the given kinds, in schema order."""
        return tuple(
            f for f in self.fields if f.side == side and f.kind in (kinds or get_args(Kind))
        )

    def without(self, names: Iterable[str]) -> "Schema":
        """Returns the schema less some fields; "behavior.<name>" names one of the history.

        Raises:
            SchemaError: a name is unknown.
        """
        names = set(names)
        known = {f.name for f in self.fields} | {f"behavior.{f.name}" for f in self.behaviors}
        for name in sorted(names - known):
            raise SchemaError(
                f"dataset.exclude names the unknown field {name!r}{_suggest(name, known)}"
            )
        return dataclasses.replace(
            self,
            fields=tuple(f for f in self.fields if f.name not in names),
            behaviors=tuple(f for f in self.behaviors if f"behavior.{f.name}" not in names),
        )

    @property
    def candidate_fields(self) -> tuple[Field, ...]:
        """The fields that may differ between the samples of one user: item first, then context."""
        return self.fields_of("item") + self.fields_of("context")

    @property
    def inherent_behaviors(self) -> tuple[Field, ...]:
        """Behaviour id fields that the candidate has too: the inputs of target attention."""
        names = {field.name for field in self.candidate_fields}
        return tuple(
            field for field in self.behaviors if field.name in names and field.kind != "dense"
        )

    @property
    def cross_behaviors(self) -> tuple[Field, ...]:
        """Behaviour fields that only a past event has: the user-item cross features."""
        inherent = {field.name for field in self.inherent_behaviors}
        return tuple(field for field in self.behaviors if field.name not in inherent)


def _find_problems(schema: Schema) -> Iterable[str]:
    if schema.format != FORMAT_VERSION:
        yield f"format is {schema.format}, must be {FORMAT_VERSION}; prepare the data again"
    tables = {table.name for table in schema.tables}
    labels = {label.name for label in schema.labels}
    columns = {label.truth for label in schema.labels} | {task.truth for task in schema.tasks}
    for group, names in (
        ("tables", [t.name for t in schema.tables]),
        ("fields", [f.name for f in schema.fields]),
        ("behaviors", [f.name for f in schema.behaviors]),
        ("labels", [label.name for label in schema.labels]),
        ("tasks", [t.name for t in schema.tasks]),
        (
            "columns",
            [f.name for f in schema.fields] + sorted(labels) + sorted(filter(None, columns)),
        ),
    ):
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"{group}: {name!r} is there twice"
    for table in schema.tables:
        if table.num_embeddings is not None and table.num_embeddings < 1:
            yield f"tables.{table.name}: num_embeddings is {table.num_embeddings}, must be >= 1"
        if table.out_of_range == "hash" and (table.num_embeddings or 0) < 2:
            yield f"tables.{table.name}: out_of_range is 'hash', which needs num_embeddings >= 2"
    for field in (*schema.fields, *schema.behaviors):
        if field.name in RESERVED_COLUMNS or field.name in labels:
            yield f"field {field.name!r} uses the name of another column"
        if field.kind == "dense" and field.table is not None:
            yield f"dense field {field.name!r} cannot have a table"
        if field.kind != "dense" and field.table not in tables:
            hint = _suggest(str(field.table), tables)
            yield f"field {field.name!r}: table {field.table!r} is unknown{hint}"
        if field.weighted and field.kind != "ids":
            yield f"field {field.name!r} of kind {field.kind!r} cannot be weighted; only ids can"
        if field.name.endswith(WEIGHTS_SUFFIX):
            yield f"field {field.name!r} may not end in {WEIGHTS_SUFFIX!r}, the name for weights"
        if field.std <= 0:
            yield f"field {field.name!r}: std must be positive, got {field.std}"
    by_name = {field.name: field for field in schema.fields}
    for field in schema.behaviors:
        if field.weighted:
            yield f"behavior {field.name!r} cannot be weighted; only fields of samples can"
        twin = by_name.get(field.name)
        if (
            twin is not None
            and twin.side != "user"
            and (twin.kind, twin.table) != (field.kind, field.table)
        ):
            yield f"behavior {field.name!r} differs in kind or table from the candidate's field"
    for label in schema.labels:
        if label.requires is not None and label.requires not in labels:
            yield f"label {label.name!r} requires the unknown label {label.requires!r}"
    for task in schema.tasks:
        for label_name in filter(None, (task.label, task.condition)):
            if label_name not in labels:
                hint = _suggest(label_name, labels)
                yield f"task {task.name!r}: label {label_name!r} is unknown{hint}"
    if schema.domain is not None and (
        schema.domain not in by_name or by_name[schema.domain].kind != "id"
    ):
        yield f"domain {schema.domain!r} must be one of the id fields"


RESERVED_COLUMNS = frozenset({"sample_id", "user", "time", "request", "history_end", "weight"})


def _suggest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def write_schema(schema: Schema, root: Path) -> None:
    """Writes `schema.yaml` into the data set at `root`."""
    text = yaml.safe_dump(_compact(schema), sort_keys=False, allow_unicode=True)
    (root / SCHEMA_FILE).write_text(text, encoding="utf-8")


def _compact(value: Any) -> Any:
    """Turns dataclasses into mappings without the keys that have their default."""
    if dataclasses.is_dataclass(value):
        pairs = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
        return {
            field.name: _compact(item)
            for field, item in pairs
            if item != field.default or field.name == "format"
        }
    if isinstance(value, tuple):
        return [_compact(item) for item in value]
    return value


def read_schema(root: Path) -> Schema:
    """Reads and checks `schema.yaml` of the data set at `root`.

    Raises:
        SchemaError: the file is missing, is no YAML mapping, has unknown or missing keys, or
        contradicts itself.
    """
    path = root / SCHEMA_FILE
    if not path.is_file():
        raise SchemaError(
            f"{path} does not exist; dataset.path must be a folder made by scripts/prepare_data.py"
        )
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SchemaError(f"{path} is not valid YAML: {error}") from error
    parts = {"tables": Table, "fields": Field, "behaviors": Field, "labels": Label, "tasks": Task}
    values = dict(_mapping(values, f"{path}"))
    for key, cls in parts.items():
        items = values.get(key) or []
        values[key] = tuple(
            _build(cls, item, f"{path}: {key}[{i}]") for i, item in enumerate(items)
        )
    values["domain_names"] = tuple(values.get("domain_names") or ())
    schema = _build(Schema, values, f"{path}")
    assert isinstance(schema, Schema)
    return schema


_CHOICES = {"kind": Kind, "side": Side, "time_unit": TimeUnit, "out_of_range": OutOfRange}


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SchemaError(f"{where} must be a mapping, got {type(value).__name__}")
    return value


def _build(cls: type, value: Any, where: str) -> Any:
    known = {f.name: f for f in dataclasses.fields(cls)}
    for key in _mapping(value, where):
        if key not in known:
            raise SchemaError(f"{where}: unknown key {key!r}{_suggest(str(key), known)}")
    for key, field in known.items():
        if key not in value and field.default is dataclasses.MISSING:
            raise SchemaError(f"{where}: key {key!r} is missing")
    for key, choices in _CHOICES.items():
        if key in value and key in known and value[key] not in get_args(choices):
            raise SchemaError(
                f"{where}: {key} is {value[key]!r}, must be one of {get_args(choices)}"
            )
    return cls(**value)
