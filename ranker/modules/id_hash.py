"""Seeded hashing of ids into the rows of a table of any size, on whatever device the ids are."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchrec import KeyedJaggedTensor

# ids that are counted at once
_BLOCK = 1 << 22
# splitmix64's constants, as signed 64-bit numbers
_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_FACTORS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)


def salt_of(*names: object) -> int:
    """Returns a salt for names and numbers, the same in every process and on every machine."""
    digest = hashlib.sha256(":".join(map(str, names)).encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def hash_ids(ids: Tensor, *, salt: int, num_rows: int) -> Tensor:
    """Maps ids of any size, int64, to rows in [0, num_rows): splitmix64's mixing of id and salt.

    Ids of one salt collide as if rows had been drawn at random; two salts have nothing in common.
    """
    mixed = ids * _GAMMA + salt
    for shift, factor in zip((30, 27), _FACTORS, strict=True):
        mixed = (mixed ^ _shift_right(mixed, shift)) * factor
    mixed = mixed ^ _shift_right(mixed, 31)
    return torch.remainder(mixed, num_rows)


def _shift_right(values: Tensor, bits: int) -> Tensor:
    # torch's >> copies the sign bit; splitmix64 shifts zeros in
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def expected_collisions(num_ids: int, num_rows: int) -> float:
    """Returns the expected share of ids that share their row with another id."""
    return 1 - (1 - 1 / num_rows) ** max(num_ids - 1, 0)


def count_collisions(num_ids: int, *, salt: int, num_rows: int) -> int:
    """Returns how many of the ids 0 .. num_ids - 1 share their row with another one."""
    counts = torch.zeros(num_rows, dtype=torch.int64)
    blocks = [torch.arange(low, min(low + _BLOCK, num_ids)) for low in range(0, num_ids, _BLOCK)]
    for block in blocks:
        counts += torch.bincount(hash_ids(block, salt=salt, num_rows=num_rows), minlength=num_rows)
    return int(counts[counts > 1].sum())


@dataclasses.dataclass(frozen=True)
class Hash:
    """How the ids of a key become rows: the new key, the salt and the number of rows."""

    key: str
    salt: int
    num_rows: int


class IdHash(nn.Module):
    """Replaces ids by hashed rows; a multiplexed key becomes several.

    Args:
        hashes: by key of the batch; the ids of other keys stay.
    """

    def __init__(self, hashes: Mapping[str, Sequence[Hash]]) -> None:
        super().__init__()
        self.hashes = {key: tuple(values) for key, values in hashes.items()}

    def forward(self, ids: KeyedJaggedTensor) -> KeyedJaggedTensor:
        """Maps ids to rows; the jagged lengths of a key stay."""
        keys: list[str] = []
        values, lengths = [], []
        for key in ids.keys():  # noqa: SIM118 - a method of the jagged tensor
            jagged = ids[key]
            rows = [
                (h.key, hash_ids(jagged.values(), salt=h.salt, num_rows=h.num_rows))
                for h in self.hashes.get(key, ())
            ] or [(key, jagged.values())]
            for name, value in rows:
                keys.append(name)
                values.append(value)
                lengths.append(jagged.lengths())
        return KeyedJaggedTensor(
            keys=keys,
            values=torch.cat(values),
            lengths=torch.cat(lengths),
            # known here, else TorchRec waits for the device to tell
            length_per_key=[len(rows) for rows in values],
        )


def multiplexed_keys(key: str, lookups: int | None) -> tuple[str, ...]:
    """Returns the keys of a key's rows in the shared table; the key itself if it is not in it."""
    return (key,) if lookups is None else tuple(f"{key}#{i}" for i in range(lookups))
