import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ranker.regularizers.mba import MBA
from ranker.slots import FeatureLayout, RegularizerInputs
from ranker_data.frequencies import write_frequencies
from ranker_data.schema import Schema

ITEMS = FeatureLayout(names=(), widths=())
NOTHING = torch.zeros(0)


def make_inputs(
    ids: dict[str, torch.Tensor],
    vectors: dict[str, torch.Tensor],
    *,
    user_of: list[int] | None = None,
    windows: list[list[int]] | None = None,
    bag_lengths: dict[str, torch.Tensor] | None = None,
) -> RegularizerInputs:
    return RegularizerInputs(
        ids=ids,
        vectors=vectors,
        items=NOTHING,
        item_ids=NOTHING,
        weights=NOTHING,
        user_of=torch.tensor(user_of or []),
        windows=torch.tensor(windows or []),
        bag_lengths=bag_lengths or {},
    )


@pytest.fixture
def counted(tiny_dataset: Path, tiny_schema: Schema, tmp_path: Path) -> Path:
    data = tmp_path / "data"
    shutil.copytree(tiny_dataset, data)
    write_frequencies(data, tiny_schema, max_length=10)
    return data / "frequencies"


def test_its_gradient_is_the_papers(counted: Path, tiny_schema: Schema) -> None:
    term = MBA(
        schema=tiny_schema,
        items=ITEMS,
        weight=0.3,
        tables=["item_id", "tag"],
        frequencies=str(counted),
    )
    torch.manual_seed(0)
    items, tags = (torch.randn(n, 4, requires_grad=True) for n in (40, 9))
    ids = {
        "item_id": torch.tensor([3, 5, 3]),
        "behavior.item_id": torch.tensor([5, 5, 7, 0]),
        "tags": torch.tensor([1, 1]),
    }
    tables = {"item_id": items, "behavior.item_id": items, "tags": tags}
    vectors = {key: tables[key][value] for key, value in ids.items()}
    loss = term(make_inputs(ids, vectors))
    loss.backward()
    for table, name, present in ((items, "item_id", {0, 3, 5, 7}), (tags, "tag", {1})):
        n = np.maximum(np.load(counted / f"{name}.npy"), 1)
        expected = torch.zeros_like(table)
        for j in present:
            expected[j] = 0.3 / float(n[j]) * table.detach()[j]
        torch.testing.assert_close(table.grad, expected)


def test_streamed_counts_are_those_of_the_samples_so_far(tiny_schema: Schema) -> None:
    term = MBA(
        schema=tiny_schema,
        items=ITEMS,
        weight=0.3,
        tables=["item_id", "user_id", "tag"],
        frequencies=None,
    )
    # two users with three and one candidates; four behaviours
    ids = {
        "user_id": torch.tensor([2, 1]),
        "item_id": torch.tensor([3, 5, 3, 7]),
        "behavior.item_id": torch.tensor([5, 5, 9, 3]),
        "tags": torch.tensor([1, 1, 4]),
    }
    inputs = make_inputs(
        ids,
        {key: torch.ones(len(value), 1) for key, value in ids.items()},
        user_of=[0, 0, 0, 1],
        windows=[[0, 1], [0, 3], [2, 2], [3, 4]],
        bag_lengths={"tags": torch.tensor([2, 0, 1, 0])},
    )
    first = {
        "item_id": {3: 3, 5: 2, 7: 1, 9: 1},
        "user_id": {1: 1, 2: 3},
        "tag": {1: 1, 4: 1},
    }
    with torch.no_grad():
        term(inputs)
    for step in (1, 2):
        expected = 0.3 / 2 * sum(1 / (step * n) for each in first.values() for n in each.values())
        assert term(inputs).item() == pytest.approx(expected)
    assert term.streamed is not None
    for table, counts in first.items():
        found = term.streamed.own(table)
        assert {j: int(found[j]) for j in found.nonzero()[:, 0].tolist()} == {
            j: 2 * n for j, n in counts.items()
        }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": 0.0}, "weight is 0.0; must be positive"),
        ({"tables": []}, "tables is empty"),
        ({"tables": ["itme"]}, "names 'itme'; the model reads the tables user_id, item_id"),
        ({"frequencies": "/nowhere"}, r"item_id.npy does not exist; run scripts/count_ids.py"),
    ],
)
def test_bad_options_are_refused(
    counted: Path, tiny_schema: Schema, options: dict[str, object], message: str
) -> None:
    arguments: dict[str, object] = {
        "weight": 0.1,
        "tables": ["item_id"],
        "frequencies": str(counted),
    }
    with pytest.raises(ValueError, match=message):
        MBA(schema=tiny_schema, items=ITEMS, **{**arguments, **options})  # type: ignore[arg-type]


def test_counts_of_other_data_are_refused(counted: Path, tiny_schema: Schema) -> None:
    np.save(counted / "item_id.npy", np.zeros(7, np.int64))
    with pytest.raises(ValueError, match="has 7 counts, but the table has 40 ids"):
        MBA(
            schema=tiny_schema,
            items=ITEMS,
            weight=0.1,
            tables=["item_id"],
            frequencies=str(counted),
        )
