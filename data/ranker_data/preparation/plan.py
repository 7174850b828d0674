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
    num_parts: int = 16

    def __post_init__(self) -> None:
        if self.num_parts < 1:
            raise ValueError(f"num_parts ({self.num_parts}) must be at least 1")
        unknown = sorted(set(self.min_count) - set(self.table_names))
        if unknown:
            raise ValueError(
                f"min_count names the unknown table {unknown[0]!r}; tables are {self.table_names}"
            )
        # a schema checks itself: contradictions show before any work is done
        self.draft_schema()

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
        sizes: Mapping[str, int],
        moments: Mapping[tuple[str, str], tuple[float, float]],
        domain_names: tuple[str, ...],
    ) -> Schema:
        """Returns the schema of the prepared data.

        Args:
            sizes: number of ids of every table, id 0 included.
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
