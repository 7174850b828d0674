"""Ranks fields by what they tell about a label, beyond what their cardinality would tell anyway.

OutRank (Skrlj and Mramor 2023):

    score(X; Y) = H(Y | X_noise) - H(Y | X)

X_noise has the value counts c(v) of X, but each row i with value v is paired with the label of row
i + c(v) (mod n). So the score is the mutual information of X and Y less that of a field that knows
nothing and has as many values: an id of many values has much by chance alone. Values that occur
once are left out.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ranker_data.columns import Column, IntArray, Ragged, plain
from ranker_data.layout import samples_arrow_schema, samples_path
from ranker_data.reader import DataError, check_footers, list_parts, read_samples
from ranker_data.schema import Field, Schema

FloatArray = NDArray[np.float64]
ByteArray = NDArray[np.int8]

# of a dense field, with about equally many rows each
NUM_BINS = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class FieldScore:
    """What a field tells about a label, in nats.

    Attributes:
        label: name of the label.
        field: name of the field.
        score: mutual information less that of noise with the same value counts.
        mutual_information: of the field itself.
        entropy: of the label, the most that there is to tell.
        num_values: values that occur more than once.
    """

    label: str
    field: str
    score: float
    mutual_information: float
    entropy: float
    num_values: int


def rank_fields(
    root: Path, schema: Schema, split: str = "train", max_rows: int | None = None
) -> list[FieldScore]:
    """Returns a score for every label and field, the best first; reads the files twice.

    In memory are one part, one byte for each row and label (and each id of a list), and three
    numbers for each value of each field.

    Args:
        root: a prepared data set.
        schema: of the data set.
        split: whose samples.
        max_rows: stop after the part that reaches so many; users are dealt to the parts by hash.

    Raises:
        DataError: the split has no rows, or a file breaks the contract of the schema.
    """
    parts = list(_choose_parts(root, schema, split, max_rows))
    if not parts:
        raise DataError(f"{root / 'samples' / split} has no rows; nothing can be ranked")
    tables = {
        (label.name, field.name): _Table() for label in schema.labels for field in schema.fields
    }
    edges: dict[str, FloatArray] = {}
    for noisy in (False, True):
        for part in parts:
            columns = read_samples(samples_path(root, split, part), schema)
            for field in schema.fields:
                codes, lengths = _codes(columns[field.name], field, edges)
                for label in schema.labels:
                    target = np.repeat(plain(columns[label.name]), lengths)
                    table = tables[label.name, field.name]
                    known = ~np.isnan(target)
                    if noisy:
                        table.add_noise(codes[known])
                    else:
                        table.add(codes[known], (target[known] == 1).astype(np.int8))
    scores = [table.score(label, field) for (label, field), table in tables.items()]
    labels = [label.name for label in schema.labels]
    return sorted(scores, key=lambda s: (labels.index(s.label), -s.score, s.field))


def _choose_parts(root: Path, schema: Schema, split: str, max_rows: int | None) -> Iterator[int]:
    found = 0
    sizes = check_footers(list_parts(root / "samples" / split), samples_arrow_schema(schema))
    for part, size in enumerate(sizes):
        if size.num_rows and (max_rows is None or found < max_rows):
            found += size.num_rows
            yield part


def _codes(column: Column, field: Field, edges: dict[str, FloatArray]) -> tuple[IntArray, IntArray]:
    """Returns a value's number for each row or list element, and how many of them each row has."""
    if isinstance(column, Ragged):
        return column.values, column.lengths
    ones = np.ones(len(column), np.int64)
    if field.kind == "id":
        return column, ones
    if field.name not in edges:
        # those of the first part serve all
        quantiles = np.quantile(column, np.arange(1, NUM_BINS) / NUM_BINS)
        edges[field.name] = np.unique(quantiles)
    return np.searchsorted(edges[field.name], column, side="right"), ones


class _Table:
    """Counts of the values of one field, with one label and with the label of other rows."""

    def __init__(self) -> None:
        self._pieces: list[ByteArray] = []
        self._labels: ByteArray | None = None
        self._position = 0
        self._values: IntArray = np.zeros(0, np.int64)
        # of each value: rows, rows with label 1, rows whose other row has label 1
        self._counts: IntArray = np.zeros((3, 0), np.int64)

    def add(self, codes: IntArray, labels: ByteArray) -> None:
        """Counts rows; all of them before any noise."""
        self._pieces.append(labels)
        values, place = np.unique(codes, return_inverse=True)
        found = np.stack(
            [np.bincount(place, minlength=len(values)), np.bincount(place, weights=labels)]
        ).astype(np.int64)
        merged = np.union1d(self._values, values)
        counts = np.zeros((3, len(merged)), np.int64)
        counts[:, np.searchsorted(merged, self._values)] += self._counts
        counts[:2, np.searchsorted(merged, values)] += found
        self._values, self._counts = merged, counts

    def add_noise(self, codes: IntArray) -> None:
        """Pairs the same rows, in the same order, with other rows."""
        if self._labels is None:
            self._labels, self._pieces = np.concatenate(self._pieces), []
        rows = self._position + np.arange(len(codes))
        self._position += len(codes)
        place = np.searchsorted(self._values, codes)
        other = self._labels[(rows + self._counts[0, place]) % len(self._labels)]
        counts = np.bincount(place, weights=other, minlength=len(self._values))
        self._counts[2] += counts.astype(np.int64)

    def score(self, label: str, field: str) -> FieldScore:
        """Returns what was counted, as information."""
        total, positive, noise = self._counts[:, self._counts[0] > 1].astype(np.float64)
        num_rows = total.sum()
        share = total / max(num_rows, 1)
        entropy = _entropy(np.array([positive.sum() / max(num_rows, 1)]))[0]
        told = share @ _entropy(positive / total)
        return FieldScore(
            label=label,
            field=field,
            score=float(share @ _entropy(noise / total) - told),
            mutual_information=float(entropy - told),
            entropy=float(entropy),
            num_values=len(total),
        )


def _entropy(rate: FloatArray) -> FloatArray:
    """Entropy of a binary label in nats."""
    inside = np.clip(rate, 1e-300, 1 - 1e-16)
    found = -(inside * np.log(inside) + (1 - inside) * np.log1p(-inside))
    return np.where((rate <= 0) | (rate >= 1), 0.0, found)
