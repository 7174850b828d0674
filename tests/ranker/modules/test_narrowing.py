"""Batches with fewer ids."""

import dataclasses

import pytest
import torch
from torchrec import KeyedJaggedTensor

from ranker.modules.narrowing import distinct_ids, keep_behaviors
from ranker_data.batch import RankingBatch

# users 0, 1, 2 with 4, 0 and 3 behaviours
LENGTHS = [4, 0, 3]
WINDOWS = [[0, 3], [1, 4], [4, 4], [4, 7]]
BAGS = [2, 0, 1, 3, 1, 1, 0]


def make_batch() -> RankingBatch:
    item = torch.tensor([9, 3, 9, 5, 3, 3, 7])
    tags = torch.tensor([1, 2, 3, 4, 5, 6, 7, 8])
    keys = {
        "user_id": (torch.tensor([7, 8, 9]), [1, 1, 1]),
        "behavior.item": (item, LENGTHS),
        "behavior.tags": (tags, [6, 0, 2]),
        "item": (torch.tensor([1, 2, 3, 4]), [2, 1, 1]),
    }
    ids = KeyedJaggedTensor(
        keys=list(keys),
        values=torch.cat([values for values, _ in keys.values()]),
        lengths=torch.cat([torch.tensor(lengths) for _, lengths in keys.values()]),
    )
    none, per_row = torch.zeros(4, 0), torch.zeros(4)
    return RankingBatch(
        ids=ids,
        bag_lengths={"behavior.tags": torch.tensor(BAGS)},
        bag_weights={"behavior.tags": torch.arange(8.0)},
        user_dense=torch.zeros(3, 0),
        behavior_dense=torch.arange(7.0).unsqueeze(1),
        candidate_dense=none,
        user_of=torch.tensor([0, 0, 1, 2]),
        windows=torch.tensor(WINDOWS),
        behavior_time=torch.arange(7),
        time=per_row.long(),
        labels=none,
        label_mask=none,
        weights=per_row,
        truths=none,
        sample_id=per_row.long(),
        user=per_row.long(),
        request=per_row.long(),
        domain=per_row.long(),
    )


def rows_by_user(batch: RankingBatch, key: str) -> list[list[int]]:
    return [part.tolist() for part in batch.ids[key].to_dense()]


def test_behaviors_are_left_out_and_windows_follow() -> None:
    keep = torch.tensor([True, False, True, True, False, True, True])
    narrowed, place = keep_behaviors(make_batch(), keep)
    assert narrowed.windows.tolist() == [[0, 2], [1, 3], [3, 3], [3, 5]]
    assert narrowed.behavior_time.tolist() == [0, 2, 3, 5, 6]
    assert narrowed.behavior_dense[:, 0].tolist() == [0, 2, 3, 5, 6]
    assert place[keep.nonzero()[:, 0]].tolist() == [0, 1, 2, 3, 4]
    assert rows_by_user(narrowed, "behavior.item") == [[9, 9, 5], [], [3, 7]]
    assert rows_by_user(narrowed, "behavior.tags") == [[1, 2, 3, 4, 5, 6], [], [8]]
    assert narrowed.bag_lengths["behavior.tags"].tolist() == [2, 1, 3, 1, 0]
    assert narrowed.bag_weights["behavior.tags"].tolist() == [0, 1, 2, 3, 4, 5, 7]
    for key in ("user_id", "item"):
        assert rows_by_user(narrowed, key) == rows_by_user(make_batch(), key)


@pytest.mark.parametrize("keep", [True, False])
def test_all_or_nothing_may_be_kept(keep: bool) -> None:
    narrowed, _ = keep_behaviors(make_batch(), torch.full((7,), keep))
    if keep:
        assert narrowed.windows.tolist() == WINDOWS
        assert rows_by_user(narrowed, "behavior.tags") == rows_by_user(
            make_batch(), "behavior.tags"
        )
    else:
        assert narrowed.windows.abs().max() == 0
        assert narrowed.ids["behavior.item"].values().numel() == 0
        assert narrowed.ids.stride() == 3


def test_ids_of_the_search_are_distinct_and_other_keys_empty() -> None:
    batch = make_batch()
    ids, rows = distinct_ids(batch, {"behavior.item", "behavior.tags", "item"})
    assert ids.keys() == batch.ids.keys()
    assert ids["user_id"].values().numel() == 0
    assert ids["behavior.item"].values().tolist() == [3, 5, 7, 9]
    assert list(rows) == ["behavior.item"]
    restored = ids["behavior.item"].values()[rows["behavior.item"]]
    assert restored.tolist() == batch.ids["behavior.item"].values().tolist()
    # bags are averaged for each behaviour, so they stay as they are
    assert ids["behavior.tags"].values().tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert ids["item"].lengths().tolist() == [2, 1, 1]


def test_a_batch_without_behaviors_stays_one() -> None:
    batch = make_batch()
    empty = dataclasses.replace(
        keep_behaviors(batch, torch.zeros(7, dtype=torch.bool))[0],
        windows=torch.zeros(4, 2, dtype=torch.int64),
    )
    narrowed, place = keep_behaviors(empty, torch.zeros(0, dtype=torch.bool))
    assert place.tolist() == [0]
    assert narrowed.num_behaviors == 0
    ids, rows = distinct_ids(empty, {"behavior.item"})
    assert ids.values().numel() == 0
    assert rows["behavior.item"].numel() == 0
