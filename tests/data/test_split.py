from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ranker_data.batch import RankingBatch
from ranker_data.loader import LoaderOptions, RankingLoader
from ranker_data.schema import Schema
from ranker_data.split import BatchSplitter, add_cuts, find_cuts


def batches(root: Path, schema: Schema) -> list[RankingBatch]:
    loader = RankingLoader(
        root=root,
        schema=schema,
        split="train",
        options=LoaderOptions(batch_size=64, max_length=6, samples_per_user=4),
        seed=3,
        shuffle=True,
        rank=0,
        world_size=1,
    )
    return list(loader.batches())


def candidates(batch: RankingBatch) -> list[dict[str, Any]]:
    """Everything that each candidate is made of, by value."""
    behavior_bags = batch.ids["tags"].values().split(batch.bag_lengths["tags"].tolist())
    found = []
    for c, (begin, end) in enumerate(batch.windows.tolist()):
        user = int(batch.user_of[c])
        found.append(
            {
                "sample": int(batch.sample_id[c]),
                "user": int(batch.user[c]),
                "user_id": int(batch.ids["user_id"].values()[user]),
                "age": float(batch.user_dense[user, 0]),
                "item": int(batch.ids["item_id"].values()[c]),
                "tags": behavior_bags[c].tolist(),
                "history": batch.ids["behavior.item_id"].values()[begin:end].tolist(),
                "dwell": batch.behavior_dense[begin:end].tolist(),
                "times": batch.behavior_time[begin:end].tolist(),
                "labels": batch.labels[c].tolist(),
                "price": batch.candidate_dense[c].tolist(),
                "weight": float(batch.weights[c]),
            }
        )
    return found


@pytest.mark.parametrize("budget", [6, 10, 40, 10_000])
def test_parts_hold_the_candidates_of_the_batch_within_the_budget(
    tiny_dataset: Path, tiny_schema: Schema, budget: int
) -> None:
    split = BatchSplitter(tiny_schema)
    for batch in batches(tiny_dataset, tiny_schema):
        cuts = find_cuts(batch, budget)
        parts = split(batch, cuts, len(cuts) - 1)
        assert [c for part in parts for c in candidates(part)] == candidates(batch)
        for part in parts:
            assert part.num_behaviors <= budget
            assert part.ids.lengths().sum() == len(part.ids.values())
            counts = part.ids["item_id"].lengths()
            assert torch.equal(part.user_of, torch.arange(len(counts)).repeat_interleave(counts))
            lengths = part.ids["behavior.item_id"].lengths()
            assert lengths.sum() == part.num_behaviors
            owner = torch.arange(len(lengths)).repeat_interleave(lengths)
            for (begin, end), user in zip(part.windows.tolist(), part.user_of, strict=True):
                assert (owner[begin:end] == user).all()
        if budget == 10_000:
            assert len(parts) == 1


def test_more_parts_than_rows_are_filled_with_rows_of_no_weight(
    tiny_dataset: Path, tiny_schema: Schema
) -> None:
    batch = batches(tiny_dataset, tiny_schema)[0]
    cuts = add_cuts(find_cuts(batch, 100), 70)
    parts = BatchSplitter(tiny_schema)(batch, cuts, 70)
    assert len(parts) == 70
    assert [c for part in parts[:64] for c in candidates(part)] == candidates(batch)
    for part in parts[64:]:
        assert part.sample_id.tolist() == [-1]
        assert part.weights.tolist() == [0.0]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(1, 40))
def test_added_cuts_keep_those_that_are_there(lengths: list[int], count: int) -> None:
    cuts = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    more = add_cuts(cuts, count)
    assert set(cuts) <= set(more)
    assert more == sorted(set(more))
    assert len(more) - 1 == max(len(lengths), min(count, cuts[-1]))
