"""K_h W^h of every id, computed beforehand: the cache that TWIN's search reads in production."""

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from ranker_kernels.numbering import distinct
from ranker_kernels.search_topk import DistinctRows


@dataclasses.dataclass(frozen=True)
class Projections:
    """Projected vectors of the ids of every inherent field; their sum is a behaviour's K_h W^h.

    The projection of concatenated fields is a sum over the fields, so that a store has one vector
    for an id of a field and not one for every item with all its features.

    Attributes:
        vectors: [ids, H d] float32 by field, heads side by side.
    """

    vectors: Mapping[str, Tensor]

    def keys(self, ids: Mapping[str, Tensor]) -> DistinctRows:
        """Returns the fields of N behaviours side by side, [N, F H d], from their ids by field."""
        values, rows = [], []
        for field, vectors in self.vectors.items():
            found, place = distinct(ids[field])
            values.append(vectors[found])
            rows.append(place)
        return DistinctRows(tuple(values), tuple(rows))

    def query(self, projected: Tensor) -> Tensor:
        """Returns [C, H, F H d] from projected candidates [C, H, d]: each head sees its own part.

        The inner product with `keys` is the sum over the fields of the head's inner products.
        """
        num_candidates, num_heads, _ = projected.shape
        own = torch.eye(num_heads, dtype=projected.dtype, device=projected.device)
        spread = torch.einsum("che,hg->chge", projected, own)
        return spread.reshape(num_candidates, num_heads, -1).repeat(1, 1, len(self.vectors))
