"""SIM, Search-based Interest Model with hard search (Pi et al., CIKM 2020, section 3.1)."""

import torch
from torch import Tensor

from ranker.modules.two_stage import TwoStageEncoder
from ranker.slots import SearchInputs


class SIMHard(TwoStageEncoder):
    """Keeps the latest k behaviours of the candidate's category, then attends to them.

    The paper keeps an index from user and category to items; here a sort by category is that index,
    for the users of a batch. Id 0 is unknown: it is nobody's category.

    Args:
        query_dim: width D of the candidate's inherent features.
        cross_dim: width X of the behaviours' cross features.
        output_dim: width of the output.
        k: behaviours that the search keeps.
        num_heads: heads of the attention.
        head_dim: width of a head.
        score_scale: factor of the attention's scores, see `TargetAttention`.
        category: field that behaviours and candidates share; it has one id each.
    """

    def __init__(
        self,
        *,
        query_dim: int,
        cross_dim: int,
        output_dim: int,
        k: int = 100,
        num_heads: int = 4,
        head_dim: int = 16,
        score_scale: float = 1.0,
        category: str = "category",
    ) -> None:
        super().__init__(
            query_dim=query_dim,
            cross_dim=cross_dim,
            output_dim=output_dim,
            k=k,
            num_heads=num_heads,
            head_dim=head_dim,
            score_scale=score_scale,
        )
        self.category = category

    def search(self, inputs: SearchInputs) -> Tensor:
        """Returns the selected behaviours [C, k], -1 for none."""
        if self.category not in inputs.query_ids:
            raise ValueError(
                f"sim_hard category is {self.category!r}; it must be an id field of behaviors and "
                f"candidates: {', '.join(inputs.query_ids)}"
            )
        wanted, found = inputs.query_ids[self.category], inputs.behavior_ids[self.category]
        order = found.argsort(stable=True)
        # by category, and within it by position: (category, position) as one number
        size = len(found) + 1
        index = found[order] * size + order
        begin, end = (
            torch.searchsorted(index, wanted * size + position) for position in inputs.windows.T
        )
        place = begin.unsqueeze(1) + torch.arange(self.k, device=wanted.device)
        place = place + (end - begin - self.k).clamp_min(0).unsqueeze(1)
        none = (place >= end.unsqueeze(1)) | (wanted == 0).unsqueeze(1)
        if not len(order):
            return torch.full_like(place, -1)
        return order[place.clamp_max(len(order) - 1)].masked_fill_(none, -1)
