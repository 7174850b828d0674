"""TWIN, TWo-stage Interest Network (Chang et al., KDD 2023), and TWIN-V2 on clustered histories."""

from typing import Literal, get_args

from torch import Tensor

from ranker.modules.projections import Projections
from ranker.modules.two_stage import TwoStageEncoder
from ranker.slots import SearchInputs
from ranker_kernels.search_topk import search_topk

ScorePrecision = Literal["float32", "bfloat16", "int8"]


class TWIN(TwoStageEncoder):
    """Searches the k behaviours that matter to a candidate, and attends to them.

    Search (GSU) and attention (ESU) use the same scores with the same parameters, so the search
    finds what the attention would weigh most. The search has no gradient; parameters and tables
    learn from the selected behaviours alone. With k at least the length of the history this is full
    multi-head target attention.

    On clustered histories (TWIN-V2, 2407.16357) ln(size) is added to the scores of both stages, so
    that a cluster of n events counts n times.

    Args:
        query_dim: width D of the candidate's inherent features.
        cross_dim: width X of the behaviours' cross features.
        output_dim: width of the output.
        k: behaviours that the search keeps (the paper: 100).
        num_heads: heads; each has its say in the search by the paper's round robin.
        head_dim: width of a head.
        score_precision: float32, bfloat16 or int8: to what the operands of the search are rounded.
            The attention takes the model's own.

    Raises:
        ValueError: a size is less than 1, or the precision is unknown.
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
        score_precision: ScorePrecision = "float32",
    ) -> None:
        super().__init__(
            query_dim=query_dim,
            cross_dim=cross_dim,
            output_dim=output_dim,
            k=k,
            num_heads=num_heads,
            head_dim=head_dim,
        )
        if score_precision not in get_args(ScorePrecision):
            raise ValueError(
                f"score_precision is {score_precision!r}; must be one of "
                f"{', '.join(get_args(ScorePrecision))}"
            )
        self.score_precision = score_precision
        # scripts/evaluate.py projections=<folder> puts them here; training computes its own scores
        self.projections: Projections | None = None

    def search(self, inputs: SearchInputs) -> Tensor:
        """Returns the selected behaviours [C, k], -1 for none."""
        cache = self.projections
        if cache is None:
            query, keys = self.attention.absorb(inputs.query), inputs.behaviors
        else:
            query = cache.query(self.attention.project_query(inputs.query))
            keys = cache.keys(inputs.behavior_ids)
        return search_topk(
            round_rows(query, self.score_precision),
            keys.map(lambda values: round_rows(values, self.score_precision)),
            self.attention.search_bias(inputs.cross, inputs.log_size),
            inputs.windows,
            k=self.k,
        )


def round_rows(rows: Tensor, precision: ScorePrecision) -> Tensor:
    """Rounds vectors [..., D] to what a search in low precision would read.

    int8 has one scale for each vector: its largest element is 127.
    """
    match precision:
        case "float32":
            return rows
        case "bfloat16":
            return rows.bfloat16()
        case "int8":
            scale = rows.abs().amax(dim=-1, keepdim=True).clamp_min(1e-30) / 127
            return (rows / scale).round() * scale
