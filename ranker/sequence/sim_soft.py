"""SIM, Search-based Interest Model with soft search (Pi et al., CIKM 2020, section 3.1)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ranker.distributed import weighted_mean
from ranker.modules.linear import Linear
from ranker.modules.two_stage import TwoStageEncoder
from ranker.slots import SearchInputs, SequenceInputs
from ranker_kernels.search_topk import search_topk


class SIMSoft(TwoStageEncoder):
    """Searches by the inner product of embeddings, then attends to what it finds.

    The search knows neither the attention's projections nor cross features: the two stages
    disagree on what is relevant, which is the point of TWIN.

    Without an auxiliary loss r_j = e_j . e_a. With one, r_j = (W_b e_j) . (W_a e_a), and W_a, W_b
    and the tables also learn from a prediction of a label by a network of its own,

        MLP([mean over j of r_j e_j, e_a])

    The paper sums over the whole history, and cuts long ones down at random; here it is the mean of
    `auxiliary_samples` behaviours at even distances, which begin at a place that the impression's
    time decides, so that the size of the mean does not depend on the length, and a run can be
    resumed to the last bit.

    Args:
        query_dim: width D of the candidate's inherent features.
        cross_dim: width X of the behaviours' cross features.
        output_dim: width of the output.
        k: behaviours that the search keeps.
        num_heads: heads of the attention.
        head_dim: width of a head.
        score_scale: factor of the attention's scores, see `TargetAttention`.
        auxiliary_weight: of the auxiliary loss (the paper: 1); 0 searches by the embeddings alone.
        auxiliary_label: label that it predicts.
        auxiliary_samples: behaviours of a history that it learns from.
        auxiliary_dim: width of W_a and W_b.
        auxiliary_units: width of the hidden layer of its network.

    Raises:
        ValueError: a size is less than 1, or the weight is negative.
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
        auxiliary_weight: float = 0.0,
        auxiliary_label: str = "click",
        auxiliary_samples: int = 100,
        auxiliary_dim: int = 16,
        auxiliary_units: int = 64,
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
        if auxiliary_weight < 0 or auxiliary_samples < 1:
            raise ValueError(
                f"sim_soft auxiliary_weight ({auxiliary_weight}) must be at least 0 and "
                f"auxiliary_samples ({auxiliary_samples}) at least 1"
            )
        self.auxiliary_weight = auxiliary_weight
        self.auxiliary_label, self.auxiliary_samples = auxiliary_label, auxiliary_samples
        if auxiliary_weight:
            self.target_weight = Linear(query_dim, auxiliary_dim, bias=False)
            self.behavior_weight = Linear(query_dim, auxiliary_dim, bias=False)
            self.auxiliary = nn.Sequential(
                Linear(2 * query_dim, auxiliary_units), nn.ReLU(), Linear(auxiliary_units, 1)
            )

    def search(self, inputs: SearchInputs) -> Tensor:
        """Returns the selected behaviours [C, k], -1 for none.

        In training behind them those that the auxiliary loss looks at.
        """
        query = self._absorb(inputs.query).unsqueeze(1)
        found = search_topk(query, inputs.behaviors, None, inputs.windows, k=self.k)
        if not self._learns:
            return found
        drawn = spread_rows(inputs.windows, inputs.time, self.auxiliary_samples)
        return torch.cat([found, drawn], dim=1)

    def forward(self, inputs: SequenceInputs, index: Tensor) -> Tensor:
        """Attends to the first k behaviours of the index; returns [C, output_dim]."""
        if self._learns:
            inputs.losses["sim_auxiliary"] = self._auxiliary_loss(inputs, index[:, self.k :])
        return super().forward(inputs, index[:, : self.k])

    @property
    def _learns(self) -> bool:
        return self.training and self.auxiliary_weight > 0

    def _absorb(self, query: Tensor) -> Tensor:
        """Returns what the search compares with embeddings, W_b^T W_a e_a [C, D]."""
        if not self.auxiliary_weight:
            return query
        projected: Tensor = self.target_weight(query) @ self.behavior_weight.weight
        return projected

    def _auxiliary_loss(self, inputs: SequenceInputs, rows: Tensor) -> Tensor:
        """Returns this rank's share of the mean cross entropy, with its weight.

        Args:
            inputs: with the labels.
            rows: [C, S] behaviours, -1 for none.
        """
        target = inputs.labels.get(self.auxiliary_label)
        if target is None:
            raise ValueError(
                f"sim_soft auxiliary_label is {self.auxiliary_label!r}; must be one of "
                f"{', '.join(inputs.labels)}"
            )
        # one more row, of zeros, for what is -1
        behaviors = torch.cat([inputs.behaviors, inputs.behaviors.new_zeros(1, self.query_dim)])
        seen = behaviors[rows]
        relevance = torch.einsum("csd,cd->cs", seen, self._absorb(inputs.query))
        count = (rows >= 0).sum(dim=1, keepdim=True).clamp_min(1)
        interest = torch.einsum("cs,csd->cd", relevance, seen) / count
        logit = self.auxiliary(torch.cat([interest, inputs.query], dim=1)).squeeze(1)
        # an undefined label weighs 0
        known = target.weights > 0
        label = target.labels.where(known, 0.0).to(logit.dtype)
        losses = F.binary_cross_entropy_with_logits(logit, label, reduction="none")
        return self.auxiliary_weight * weighted_mean(losses, target.weights)


def spread_rows(windows: Tensor, time: Tensor, count: int) -> Tensor:
    """Returns behaviours at even distances in each window, [C, count], -1 behind the shorter ones.

    Args:
        windows: [C, 2].
        time: [C] of the impressions; decides where to begin.
        count: how many; all of a window that has no more.
    """
    begin, end = windows.unbind(1)
    length = (end - begin).unsqueeze(1)
    place = torch.arange(count, device=windows.device)
    # a fraction that looks random, the same on every machine
    start = (time * 2_654_435_761 + length[:, 0] * 40_503).remainder(1 << 20) / float(1 << 20)
    spread = ((place + start.unsqueeze(1)) * length.double() / count).long()
    place = torch.where(length > count, spread.minimum(length - 1), place)
    return (begin.unsqueeze(1) + place).masked_fill(place >= length, -1)
