import numpy as np
import pytest
import torch
from torchrec import KeyedJaggedTensor

from ranker.modules.id_hash import (
    Hash,
    IdHash,
    count_collisions,
    expected_collisions,
    hash_ids,
    salt_of,
)

MASK = (1 << 64) - 1


def splitmix64(value: int, salt: int, rows: int) -> int:
    """The same in Python's unbounded integers (Steele et al., 2014, figure 16)."""
    z = (value * 0x9E3779B97F4A7C15 + salt) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    z ^= z >> 31
    signed = z - (1 << 64) if z >> 63 else z
    return signed % rows


@pytest.mark.parametrize("rows", [1, 7, 1000, 2**33 + 1])
def test_it_is_splitmix64(rows: int) -> None:
    ids = [0, 1, 2, 12_345, 2**40, 2**63 - 1]
    for salt in (0, 1, salt_of(0, "item"), salt_of(3, "item", 1)):
        found = hash_ids(torch.tensor(ids), salt=salt, num_rows=rows).tolist()
        assert found == [splitmix64(value, salt, rows) for value in ids]


def test_salts_are_the_same_everywhere() -> None:
    assert salt_of(0, "item") == -3663709261263863801
    assert salt_of(0, "item", 0) != salt_of(0, "item", 1)


def test_collisions_are_those_of_random_rows() -> None:
    n, rows = 20_000, 10_000
    salts = [salt_of(seed, "x") for seed in range(5)]
    shares = [count_collisions(n, salt=salt, num_rows=rows) / n for salt in salts]
    rows_of = hash_ids(torch.arange(n), salt=salts[0], num_rows=rows).numpy()
    counts = np.bincount(rows_of)
    assert shares[0] == counts[rows_of].astype(float).__gt__(1).mean()
    assert np.mean(shares) == pytest.approx(expected_collisions(n, rows), abs=0.005)
    # ids that collide under one salt collide under another no more often than any two
    first, second = (hash_ids(torch.arange(n), salt=salt, num_rows=rows) for salt in salts[:2])
    order = first.argsort()
    together = first[order][1:] == first[order][:-1]
    again = second[order][1:] == second[order][:-1]
    assert 0 < (together & again).float().sum() < 10


def test_keys_become_several_and_keep_their_lengths() -> None:
    ids = KeyedJaggedTensor(
        keys=["a", "b"],
        values=torch.tensor([5, 6, 7, 9]),
        lengths=torch.tensor([1, 2, 0, 1]),
    )
    hashed = IdHash({"a": [Hash("a#0", 1, 10), Hash("a#1", 2, 10)]})(ids)
    assert hashed.keys() == ["a#0", "a#1", "b"]
    assert hashed.lengths().tolist() == [1, 2, 1, 2, 0, 1]
    values = torch.tensor([5, 6, 7])
    for key, salt in (("a#0", 1), ("a#1", 2)):
        assert torch.equal(hashed[key].values(), hash_ids(values, salt=salt, num_rows=10))
    assert hashed["b"].values().tolist() == [9]
