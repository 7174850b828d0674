import dataclasses
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ranker_data.doctor.feature_ranking import FieldScore, rank_fields
from ranker_data.layout import samples_path
from ranker_data.preparation.plan import Preparation, TimeSplit
from ranker_data.preparation.prepare import prepare
from ranker_data.reader import DataError, read_samples
from ranker_data.schema import Field, Label, Schema, Task, read_schema

T0 = 1_600_000_000
NUM_ROWS = 3000
PLAN = Preparation(
    name="ranked",
    time_unit="s",
    fields=(
        Field(name="row", kind="id", table="row"),
        Field(name="pair", kind="id", table="pair"),
        Field(name="segment", kind="id", table="segment"),
        Field(name="tags", kind="ids", table="tag"),
        Field(name="price", kind="dense"),
        Field(name="noise", kind="dense"),
    ),
    behaviors=(),
    labels=(Label(name="click"), Label(name="like")),
    tasks=(Task(name="ctr", label="click"),),
    split=TimeSplit(valid_fraction=0.1, test_fraction=0.1),
    num_parts=3,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draw = np.random.default_rng(2)
    segment, price = draw.integers(0, 4, NUM_ROWS), draw.normal(size=NUM_ROWS)
    click = draw.random(NUM_ROWS) < 1 / (1 + np.exp(2 - segment - price))
    samples: dict[str, Any] = {
        "user": draw.integers(0, 50, NUM_ROWS),
        "time": T0 + np.arange(NUM_ROWS),
        "row": np.arange(NUM_ROWS),
        "pair": np.arange(NUM_ROWS) // 2,
        "segment": segment,
        "tags": [[int(s), 7] if s else [] for s in segment],
        "price": price,
        "noise": draw.normal(size=NUM_ROWS),
        "click": click.astype(np.int64),
        "like": [None if i % 3 else int(draw.random() < 0.5) for i in range(NUM_ROWS)],
    }
    out = tmp_path_factory.mktemp("ranked") / "data"
    prepare(PLAN, events=None, samples=pa.table(samples), out=out)
    return out


def by_field(scores: list[FieldScore], label: str) -> dict[str, FieldScore]:
    return {score.field: score for score in scores if score.label == label}


def entropy(labels: list[float]) -> float:
    shares = [labels.count(value) / len(labels) for value in set(labels)]
    return -sum(share * math.log(share) for share in shares)


def conditional_entropy(values: list[Any], labels: list[float]) -> float:
    groups: dict[Any, list[float]] = {}
    for value, label in zip(values, labels, strict=True):
        groups.setdefault(value, []).append(label)
    return sum(len(group) / len(values) * entropy(group) for group in groups.values())


def brute_force(values: list[Any], labels: list[float]) -> tuple[float, float]:
    """The definition, word for word: score, and mutual information."""
    counts = Counter(values)
    shifted = [labels[(i + counts[v]) % len(labels)] for i, v in enumerate(values)]
    kept = [i for i, v in enumerate(values) if counts[v] > 1]
    chosen = [values[i] for i in kept]
    own, noise = [labels[i] for i in kept], [shifted[i] for i in kept]
    told = conditional_entropy(chosen, own)
    return conditional_entropy(chosen, noise) - told, entropy(own) - told


@pytest.mark.parametrize("label", ["click", "like"])
@pytest.mark.parametrize("field", ["pair", "segment", "tags"])
def test_scores_equal_the_definition(label: str, field: str, data: Path) -> None:
    schema = read_schema(data)
    values: list[Any] = []
    labels: list[float] = []
    for part in range(3):
        columns: Any = read_samples(samples_path(data, "train", part), schema)
        column = columns[field]
        for row, target in enumerate(columns[label].tolist()):
            if not math.isnan(target):
                own = (
                    column.values[column.offsets[row] : column.offsets[row + 1]].tolist()
                    if field == "tags"
                    else [int(column[row])]
                )
                values += own
                labels += [target] * len(own)
    found = by_field(rank_fields(data, schema), label)[field]
    score, information = brute_force(values, labels)
    assert found.score == pytest.approx(score, abs=1e-12)
    assert found.mutual_information == pytest.approx(information, abs=1e-12)
    assert found.num_values == sum(count > 1 for count in Counter(values).values())


def test_cardinality_alone_earns_nothing(data: Path) -> None:
    scores = by_field(rank_fields(data, read_schema(data)), "click")
    # two rows of a pair nearly determine the label of each other by chance
    assert scores["pair"].mutual_information > scores["segment"].mutual_information
    assert abs(scores["pair"].score) < 0.1 * scores["segment"].score
    # bins of noise, likewise
    assert abs(scores["noise"].score) < 0.1 * scores["price"].score
    # a value that occurs once tells nothing about other rows
    assert (scores["row"].score, scores["row"].num_values) == (0.0, 0)
    best = sorted(scores.values(), key=lambda s: -s.score)
    assert {score.field for score in best[:3]} == {"segment", "price", "tags"}


def test_the_ranking_is_in_order_and_of_the_rows_asked_for(data: Path) -> None:
    schema = read_schema(data)
    scores = rank_fields(data, schema)
    assert [s.label for s in scores] == ["click"] * 6 + ["like"] * 6
    for label in ("click", "like"):
        own = [s.score for s in scores if s.label == label]
        assert own == sorted(own, reverse=True)
    assert rank_fields(data, schema, max_rows=1) != scores
    assert rank_fields(data, schema, max_rows=10**9) == scores


def test_a_split_without_rows_cannot_be_ranked(tmp_path: Path) -> None:
    samples = pa.table(
        {
            "user": [1, 2],
            "time": [T0, T0 + 1],
            "click": [0, 1],
        }
    )
    plan = dataclasses.replace(
        PLAN,
        fields=(),
        labels=(Label(name="click"),),
        split=TimeSplit(valid_fraction=0.0, test_fraction=0.0),
    )
    prepare(plan, events=None, samples=samples, out=tmp_path / "data")
    schema: Schema = read_schema(tmp_path / "data")
    with pytest.raises(DataError, match=r"samples/test has no rows; nothing can be ranked"):
        rank_fields(tmp_path / "data", schema, "test")
