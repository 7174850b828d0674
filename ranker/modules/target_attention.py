"""The parameters of multi-head target attention, used without projecting any history."""

import math

import torch
from torch import Tensor, nn

from ranker.modules.linear import Linear
from ranker.modules.time_gap import TimeGapBias
from ranker.slots import SearchInputs, SequenceInputs
from ranker_kernels.search_topk import DistinctRows
from ranker_kernels.target_attention import target_attention


class TargetAttention(nn.Module):
    """Attention of a candidate q to behaviours with inherent features K_h and cross features K_c.

    For each head a of width d (TWIN, 2302.02352, sections 4.2 and 4.3):

        alpha_a  = s ((K_h W^h_a) (q W^q_a)^T / sqrt(d) + K_c b_a)  (+ ln size, TWIN-V2)
                   (+ a function of the time gap, `TimeGapBias`, times s)
        head_a   = softmax(alpha_a)^T [K_h, K_c] W^v_a
        output   = concat(head_1 ... head_H) W^o

    The paper writes the bias as (K_c W^c_a) beta_a with a block-diagonal W^c_a, one block for each
    cross feature; the product is the same linear map as one vector b_a. Projections of a history
    are never computed: W^h is absorbed into the query and W^v follows the pooling.

    W^h begins as a copy of W^q (they learn apart): a behaviour like the candidate scores high from
    the first step on. Behind a search this decides what is learned at all, because what it leaves
    out has no gradient; from two random maps a search leaves out anything, and may stay there.

    Args:
        query_dim: width D of the inherent features.
        cross_dim: width X of the cross features; 0 leaves the bias out.
        num_heads: H.
        head_dim: width d of a head.
        output_dim: width of the output.
        gaps: adds a function of the time since a behaviour to the scores; None adds nothing.
        score_scale: factor s of the scores. It changes what they are at first and how fast they
            are learned, not what they can be: a softmax over 10^4 behaviours whose scores differ
            by little is their mean, and learns little until they differ by more.

    Raises:
        ValueError: a size is less than 1, or the scale is not positive.
    """

    def __init__(
        self,
        *,
        query_dim: int,
        cross_dim: int,
        num_heads: int,
        head_dim: int,
        output_dim: int,
        gaps: TimeGapBias | None = None,
        score_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 < score_scale < math.inf:
            raise ValueError(f"score_scale is {score_scale}; must be positive")
        sizes = {"num_heads": num_heads, "head_dim": head_dim, "output_dim": output_dim}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"target attention: {name} is {size}; must be at least 1")
        self.query_weight = _heads(num_heads, query_dim, head_dim)
        # W^h = W^q at first, so that scores begin as a likeness (see the class)
        self.key_weight = nn.Parameter(self.query_weight.detach().clone())
        self.value_weight = _heads(num_heads, query_dim + cross_dim, head_dim)
        # starts at zero: at first, attention goes by likeness alone
        self.cross = Linear(cross_dim, num_heads, bias=False) if cross_dim else None
        if self.cross is not None:
            nn.init.zeros_(self.cross.weight)
        self.output = Linear(num_heads * head_dim, output_dim, bias=False)
        self.gaps, self.score_scale = gaps, score_scale

    def query_of(self, inputs: SequenceInputs | SearchInputs) -> Tensor:
        """Returns what meets the keys of all behaviours, [C, H, D + columns of the time gap]."""
        return self.with_time(self.absorb(inputs.query), inputs.time)

    def with_time(self, query: Tensor, time: Tensor) -> Tensor:
        """Puts what meets the times of behaviours behind queries [C, H, ...] of times [C]."""
        if self.gaps is None:
            return query
        seen = self.score_scale * self.gaps.query(time)
        return torch.cat([query, seen.to(query.dtype)], dim=2)

    def search_keys(self, keys: DistinctRows, time: Tensor) -> DistinctRows:
        """Returns the keys of a search, given those without the times [N] of the behaviours."""
        return keys if self.gaps is None else self.gaps.extend(keys, time)

    def absorb(self, query: Tensor) -> Tensor:
        """Projects candidates [C, D] and absorbs W^h / sqrt(d): [C, H, D], to meet K_h itself."""
        return torch.einsum("che,hde->chd", self.project_query(query), self.key_weight)

    def project_query(self, query: Tensor) -> Tensor:
        """Projects candidates [C, D] to s q W^q / sqrt(d): [C, H, d], to meet projected K_h."""
        projected = torch.einsum("cd,hde->che", query, self.query_weight)
        return projected * (self.score_scale / self.head_dim**0.5)

    def bias(self, cross: Tensor, log_size: Tensor | None) -> Tensor | None:
        """Returns what cross features [..., X] and ln sizes [...] add to the scores, [..., H]."""
        bias = None if self.cross is None else self.score_scale * self.cross(cross)
        if log_size is None:
            return bias
        sizes = log_size.unsqueeze(-1)
        return sizes.expand(*log_size.shape, self.num_heads) if bias is None else bias + sizes

    def search_bias(self, cross: DistinctRows, log_size: Tensor | None) -> Tensor | None:
        """Returns the same for all behaviours of a batch, [N, H]."""
        bias = None
        if self.cross is not None:
            bias = cross.project(self.score_scale * self.cross.weight.T)
        if log_size is None:
            return bias
        sizes = log_size.unsqueeze(1)
        return sizes.expand(-1, self.num_heads) if bias is None else bias + sizes

    @property
    def num_heads(self) -> int:
        """The number of heads, H."""
        return self.query_weight.shape[0]

    @property
    def head_dim(self) -> int:
        """The width of a head, d."""
        return self.key_weight.shape[2]

    def attend_selected(self, inputs: SequenceInputs, query: Tensor, index: Tensor) -> Tensor:
        """Attends to selected behaviours; only they receive gradients.

        Args:
            inputs: of the encoder.
            query: candidates, see `query_of`.
            index: [C, K] positions of behaviours, -1 for none.

        Returns:
            [C, output_dim], zeros for none.
        """
        if not len(inputs.behaviors):
            return self._nothing(inputs)
        pooled = target_attention(*self._operands(inputs, query), index=index)
        return self._project(pooled)

    def attend_windows(self, inputs: SequenceInputs) -> Tensor:
        """Attends to all that each candidate sees; returns [C, output_dim]."""
        if not len(inputs.behaviors):
            return self._nothing(inputs)
        query = self.query_of(inputs)
        pooled = target_attention(*self._operands(inputs, query), windows=inputs.windows)
        return self._project(pooled)

    def _operands(
        self, inputs: SequenceInputs, query: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """Returns query, keys (None: the first columns of the values), values and bias."""
        keys = None
        if self.gaps is not None:
            times = self.gaps.keys(inputs.behavior_time).to(query.dtype)
            keys = torch.cat([inputs.behaviors, times], dim=1)
        values = inputs.behaviors
        if self.cross is not None:
            values = torch.cat([values, inputs.cross], dim=1)
        return query, keys, values, self.bias(inputs.cross, inputs.log_size)

    def _project(self, pooled: Tensor) -> Tensor:
        """Maps pooled features [C, H, D + X] to [C, output_dim]."""
        heads = torch.einsum("chf,hfe->che", pooled, self.value_weight)
        output: Tensor = self.output(heads.flatten(1))
        return output

    def _nothing(self, inputs: SequenceInputs) -> Tensor:
        """Zeros that still belong to the graph: ranks must agree on which parameters have grads."""
        linked = sum(parameter.sum() for parameter in self.parameters()) + inputs.behaviors.sum()
        zeros = inputs.query.new_zeros(len(inputs.query), self.output.out_features)
        return zeros + 0 * (linked + inputs.query.sum())


def _heads(num_heads: int, inputs: int, outputs: int) -> nn.Parameter:
    """Returns [H, inputs, outputs], each head with Xavier's scale of the joined projection."""
    joined = nn.init.xavier_uniform_(torch.empty(inputs, num_heads * outputs))
    return nn.Parameter(joined.view(inputs, num_heads, outputs).transpose(0, 1).contiguous())
