"""From looked-up vectors to the features of users, behaviours and candidates."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ranker.modules.side_by_side import join_columns
from ranker_data.schema import Field
from ranker_kernels.search_topk import DistinctRows
from ranker_kernels.segment_sum import segment_sum


class Lookup:
    """Embedded ids by key; multi-valued ids averaged over their bag (an empty bag gives zeros).

    Ids with weights give their weighted average, and zeros where all weights are 0.

    Args:
        vectors: [ids, D] by key, in the order of the ids.
        bag_lengths: ids of each row of the multi-valued keys.
        rows: for keys whose vectors are distinct ones, which of them each row has.
        bag_weights: weight of each id of the weighted keys.
    """

    def __init__(
        self,
        vectors: Mapping[str, Tensor],
        bag_lengths: Mapping[str, Tensor],
        rows: Mapping[str, Tensor] | None = None,
        bag_weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.vectors, self.bag_lengths, self.rows = vectors, bag_lengths, rows or {}
        self.bag_weights = bag_weights or {}
        self.pooled: dict[str, Tensor] = {}

    def __call__(self, key: str) -> Tensor:
        """Returns [rows, D], or the distinct ones of them."""
        if key not in self.pooled:
            values = self.vectors[key]
            lengths = self.bag_lengths.get(key)
            if lengths is not None:
                values = _mean(values, lengths, self.bag_weights.get(key))
            self.pooled[key] = values
        return self.pooled[key]


def _mean(values: Tensor, lengths: Tensor, weights: Tensor | None) -> Tensor:
    """Returns the (weighted) mean of each bag: values [ids, D] to [rows, D]."""
    total = lengths.clamp_min(1)
    if weights is not None:
        values = values * weights.unsqueeze(1).to(values.dtype)
        total = torch.segment_reduce(weights, "sum", lengths=lengths, unsafe=True)
        total = torch.where(total > 0, total, 1).to(values.dtype)
    ends = lengths.cumsum(0)
    sums = segment_sum(values, torch.stack([ends - lengths, ends], dim=1))
    return sums / total.unsqueeze(1)


class FeatureGroup(nn.Module):
    """Concatenates the embedded and the standardised dense fields of one kind of row.

    Args:
        fields: in the order of the output.
        dim_of: from a table's name to its width.
        prefix: of the fields' keys in the id tensor.
        dense_fields: the fields behind the columns of the dense tensor; by default the dense ones
            of `fields`.
    """

    def __init__(
        self,
        fields: tuple[Field, ...],
        dim_of: Callable[[str], int],
        prefix: str = "",
        dense_fields: tuple[Field, ...] | None = None,
    ) -> None:
        super().__init__()
        self.keys = [prefix + field.name for field in fields if field.table is not None]
        dense = [field for field in fields if field.table is None]
        columns = (
            [f.name for f in dense] if dense_fields is None else [f.name for f in dense_fields]
        )
        self.dense_columns = [columns.index(field.name) for field in dense]
        # a list as an index would be copied to the device in every step
        chosen = torch.tensor(self.dense_columns, dtype=torch.int64)
        self.register_buffer("chosen", chosen, persistent=False)
        self.register_buffer(
            "mean", torch.tensor([field.mean for field in dense]), persistent=False
        )
        self.register_buffer("std", torch.tensor([field.std for field in dense]), persistent=False)
        # name and width of each feature in the order of the output
        self.blocks = [
            (field.name, dim_of(field.table)) for field in fields if field.table is not None
        ]
        self.blocks += [(field.name, 1) for field in dense]
        self.output_dim = sum(width for _, width in self.blocks)

    chosen: Tensor
    mean: Tensor
    std: Tensor

    def forward(self, lookup: Lookup, dense: Tensor) -> Tensor:
        """Returns [rows, output_dim] from the embedded ids and the raw dense columns [rows, F]."""
        return join_columns([values for values, _ in self._columns(lookup, dense)])

    def distinct(self, lookup: Lookup, dense: Tensor) -> DistinctRows:
        """Returns the same rows, without a copy for each that repeats."""
        values, rows = zip(*self._columns(lookup, dense), strict=True)
        return DistinctRows(values, rows)

    def _columns(self, lookup: Lookup, dense: Tensor) -> list[tuple[Tensor, Tensor | None]]:
        columns = [(lookup(key), lookup.rows.get(key)) for key in self.keys]
        if self.dense_columns:
            columns.append(((dense.index_select(1, self.chosen) - self.mean) / self.std, None))
        elif not columns:
            columns.append((dense[:, :0], None))
        return columns
