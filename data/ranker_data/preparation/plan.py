"""What a preparation is to do: fields, labels, split, vocabularies and parts."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from ranker_data.layout import SPLITS
from ranker_data.schema import Field, Label, Schema, Table, Task, TimeUnit


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeSplit:
    """Splits at two moments that are the same for all users.

    train < valid_from <= valid < test_from <= test. The moments are chosen so that the fractions of
    the samples come out as close as whole moments allow.
    """

    valid_fraction: float = 0.1
    test_fraction: float = 0.1

    def __post_init__(self) -> None:
        if (
            min(self.valid_fraction, self.test_fraction) < 0
            or self.valid_fraction + self.test_fraction >= 1
        ):
            raise ValueError(
                f"split: valid_fraction ({self.valid_fraction}) and test_fraction "
                f"({self.test_fraction}) must not be negative and must leave something for "
                "training; lower them"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LastSplit:
    """Each user's last samples are for testing, those before for validation.

    Samples that share the moment of the first sample of a split go with it, so a user may have a
    few more than asked for. Users with no more than `valid_samples + test_samples` samples are for
    training altogether.
    """

    valid_samples: int = 5
    test_samples: int = 5

    def __post_init__(self) -> None:
        if min(self.valid_samples, self.test_samples) < 0:
            raise ValueError(
                f"split: valid_samples ({self.valid_samples}) and test_samples "
                f"({self.test_samples}) must not be negative"
            )


Split = TimeSplit | LastSplit
NULL_POLICIES = ("unknown", "own", "error")
# the value that stands for null where it has an id of its own
OWN_NULL = "null"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preparation:
    """One definition of how raw events and samples become an event log.

    Attributes:
        name: of the data set.
        time_unit: unit of the integer `time` columns, counted from 1970.
        fields: sample fields; `mean` and `std` of dense ones are measured.
        behaviors: event fields, likewise.
        labels: binary labels of the samples.
        tasks: what is to be predicted.
        group: column that groups samples for GAUC.
        domain: id field with the domain of a sample; its vocabulary becomes the domain names.
        split: how samples become train, valid and test.
        min_count: values of a table seen less often than this (1 if not given) before the
            validation cut get id 0.
        hashed: tables whose ids are hashes of the values instead of places in a vocabulary -> their
            number of ids; None leaves it to the model to hash further.
        nulls: field -> what stands for a null. Of a dense field a number (which also replaces what
            is not finite); without one, nulls are errors. Of an id field "unknown" (id 0, the
            default), "own" (an id of its own) or "error". A null list is an empty one.
        bad_file_share: share of the raw files of a relation that may be unreadable; they are left
            out, and named in `stats.json`.
        num_parts: number of co-partitioned files; raise it to lower the memory of a reader.
    """

    name: str
    time_unit: TimeUnit
    fields: tuple[Field, ...]
    behaviors: tuple[Field, ...]
    labels: tuple[Label, ...]
    tasks: tuple[Task, ...]
    group: Literal["user", "request"] = "user"
    domain: str | None = None
    split: Split = dataclasses.field(default_factory=TimeSplit)
    min_count: Mapping[str, int] = dataclasses.field(default_factory=dict)
    hashed: Mapping[str, int | None] = dataclasses.field(default_factory=dict)
    nulls: Mapping[str, str | float] = dataclasses.field(default_factory=dict)
    bad_file_share: float = 0.0
    num_parts: int = 16

    def __post_init__(self) -> None:
        if not 0 <= self.bad_file_share < 1:
            raise ValueError(f"bad_file_share ({self.bad_file_share}) must be in [0, 1)")
        if self.num_parts < 1:
            raise ValueError(f"num_parts ({self.num_parts}) must be at least 1")
        for key, named in (("min_count", self.min_count), ("hashed", self.hashed)):
            unknown = sorted(set(named) - set(self.table_names))
            if unknown:
                raise ValueError(
                    f"{key} names the unknown table {unknown[0]!r}; tables are {self.table_names}"
                )
        self._check_hashed()
        self._check_nulls()
        # a schema checks itself: contradictions show before any work is done
        self.draft_schema()

    def _check_hashed(self) -> None:
        for table, size in self.hashed.items():
            if size is not None and size < 2:
                raise ValueError(f"hashed.{table} ({size}) must be at least 2, id 0 included")
            if table in self.min_count:
                raise ValueError(f"table {table!r} is hashed, so it cannot have a min_count")
            if any(f.name == self.domain and f.table == table for f in self.fields):
                raise ValueError(
                    f"the domain's table {table!r} cannot be hashed: domains need names"
                )

    def _check_nulls(self) -> None:
        fields = {field.name: field for field in (*self.fields, *self.behaviors)}
        for name, policy in self.nulls.items():
            if name not in fields:
                raise ValueError(f"nulls names the unknown field {name!r}")
            dense = fields[name].kind == "dense"
            if dense != isinstance(policy, (int, float)) or isinstance(policy, bool):
                wanted = "a number" if dense else "one of 'unknown', 'own', 'error'"
                raise ValueError(f"nulls.{name} is {policy!r}, must be {wanted}")
            if not dense and policy not in NULL_POLICIES:
                raise ValueError(f"nulls.{name} is {policy!r}, must be one of {NULL_POLICIES}")
            if fields[name].kind == "ids" and policy == "own":
                raise ValueError(f"nulls.{name}: a list has no id of its own; fill it in the data")

    @property
    def table_names(self) -> tuple[str, ...]:
        """Tables in the order in which fields first name them."""
        names = [f.table for f in (*self.fields, *self.behaviors) if f.table is not None]
        return tuple(dict.fromkeys(names))

    @property
    def wanted_splits(self) -> tuple[str, ...]:
        """Splits that the settings ask rows for."""
        split = self.split
        if isinstance(split, TimeSplit):
            shares = (1.0, split.valid_fraction, split.test_fraction)
        else:
            shares = (1.0, split.valid_samples, split.test_samples)
        return tuple(name for name, share in zip(SPLITS, shares, strict=True) if share > 0)

    def draft_schema(self) -> Schema:
        """Returns the schema as far as it is known before the data has been seen."""
        return self.schema(sizes=dict.fromkeys(self.table_names, 1), moments={}, domain_names=())

    def schema(
        self,
        *,
        sizes: Mapping[str, int | None],
        moments: Mapping[tuple[str, str], tuple[float, float]],
        domain_names: tuple[str, ...],
    ) -> Schema:
        """Returns the schema of the prepared data.

        Args:
            sizes: number of ids of every table, id 0 included; None if there is no limit.
            moments: mean and standard deviation by ("samples" or "events", name of a dense field).
            domain_names: name of every id of the domain.
        """
        return Schema(
            name=self.name,
            time_unit=self.time_unit,
            tables=tuple(Table(name=name, num_embeddings=sizes[name]) for name in self.table_names),
            fields=tuple(_with_moments(f, moments.get(("samples", f.name))) for f in self.fields),
            behaviors=tuple(
                _with_moments(f, moments.get(("events", f.name))) for f in self.behaviors
            ),
            labels=self.labels,
            tasks=self.tasks,
            group=self.group,
            domain=self.domain,
            domain_names=domain_names,
        )

    def digest(self) -> str:
        """Returns a fingerprint of this definition; see `digest_of`."""
        return digest_of({"split_kind": type(self.split).__name__, **dataclasses.asdict(self)})


def digest_of(settings: Mapping[str, Any]) -> str:
    """Returns a fingerprint: equal settings prepare the same data from the same source."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _with_moments(field: Field, moments: tuple[float, float] | None) -> Field:
    if moments is None:
        return field
    mean, std = moments
    return dataclasses.replace(field, mean=mean, std=std)
