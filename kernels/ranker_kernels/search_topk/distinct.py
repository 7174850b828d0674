"""A matrix whose equal rows are stored once: the behaviours of a batch, by the ids they have."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DistinctRows:
    """A matrix [N, D] in blocks of columns, of which no block need ever exist in full.

    Block b of row j is `values[b][rows[b][j]]`. Histories repeat items, and categories even more:
    what has to be done for a vector (a lookup, a projection, a rounding) is done once.

    Attributes:
        values: `[n_b, D_b]` for each block.
        rows: int64 `[N]` for each block; None where the block has its N rows already.
    """

    values: tuple[Tensor, ...]
    rows: tuple[Tensor | None, ...]

    def __len__(self) -> int:
        """The number of rows, N."""
        rows = self.rows[0]
        return len(self.values[0]) if rows is None else len(rows)

    @property
    def width(self) -> int:
        """The number of columns, D."""
        return sum(values.shape[1] for values in self.values)

    def between(self, begin: int, end: int) -> Tensor:
        """Returns rows `begin` to `end` as a matrix."""
        blocks = [
            values[begin:end] if rows is None else values.index_select(0, rows[begin:end])
            for values, rows in zip(self.values, self.rows, strict=True)
        ]
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)

    def map(self, function: Callable[[Tensor], Tensor]) -> "DistinctRows":
        """Applies a function to the values of each block, which keeps their number."""
        return DistinctRows(tuple(map(function, self.values)), self.rows)

    def project(self, weight: Tensor) -> Tensor:
        """Returns the product `[N, O]` with a matrix `[D, O]`, each distinct vector once."""
        total: Tensor | None = None
        parts = torch.split(weight, [values.shape[1] for values in self.values])
        for values, rows, part in zip(self.values, self.rows, parts, strict=True):
            projected = values @ part
            if rows is not None:
                projected = projected.index_select(0, rows)
            total = projected if total is None else total.add_(projected)
        assert total is not None
        return total
