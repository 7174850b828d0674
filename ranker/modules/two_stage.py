"""What encoders with a search have in common: their options, and attention to what was found."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from ranker.modules.target_attention import TargetAttention
from ranker.modules.time_gap import TimeGapBias
from ranker.slots import SearchInputs, SequenceInputs
from ranker_kernels.search_topk import search_topk


class TwoStageEncoder(nn.Module, ABC):
    """Searches k behaviours of a long history, then attends to them with several heads.

    Args:
        query_dim: width D of the candidate's inherent features.
        cross_dim: width X of the behaviours' cross features.
        output_dim: width of the output.
        k: behaviours that the search keeps.
        num_heads: heads of the attention.
        head_dim: width of a head.
        gaps: what the time since a behaviour adds to the attention's scores.
        score_scale: factor of the attention's scores, see `TargetAttention`.

    Raises:
        ValueError: a size is less than 1.
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
        gaps: TimeGapBias | None = None,
        score_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"k is {k}; must be at least 1")
        self.k = k
        self.query_dim = query_dim
        self.output_dim = output_dim
        self.attention = TargetAttention(
            query_dim=query_dim,
            cross_dim=cross_dim,
            num_heads=num_heads,
            head_dim=head_dim,
            output_dim=output_dim,
            gaps=gaps,
            score_scale=score_scale,
        )

    @abstractmethod
    def search(self, inputs: SearchInputs) -> Tensor:
        """Returns the selected behaviours, int64 [C, k], -1 for none; without gradient."""

    def exact_search(self, inputs: SearchInputs) -> Tensor:
        """Returns the behaviours [C, k] that the attention itself scores highest, -1 for none.

        Heads take turns until there are k different ones (TWIN, section 4.3).
        """
        return search_topk(
            self.attention.query_of(inputs),
            self.attention.search_keys(inputs.behaviors, inputs.behavior_time),
            self.attention.search_bias(inputs.cross, inputs.log_size),
            inputs.windows,
            k=self.k,
        )

    def forward(self, inputs: SequenceInputs, index: Tensor) -> Tensor:
        """Attends to the behaviours at `index` [C, k]; returns [C, output_dim]."""
        return self.attention.attend_selected(inputs, self.attention.query_of(inputs), index)
