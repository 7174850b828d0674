"""TWIN, TWo-stage Interest Network (Chang et al., KDD 2023), and TWIN-V2 on clustered histories."""

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

from ranker.modules.projections import Projections
from ranker.modules.time_gap import TimeGapBias
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
        score_scale: factor of the attention's scores, see `TargetAttention`.
        score_precision: float32, bfloat16 or int8: to what the operands of the search are rounded.
            The attention takes the model's own.
        refresh_steps: in training, the search reads K_h W^h from a cache that is computed anew
            every so many steps, as production's lags behind; candidates, bias and attention are
            fresh. It has [ids, H d] numbers for each inherent field, on every rank. 0 searches with
            the weights of now, and so does every evaluation (but see scripts/project_items.py).
        time_frequencies: adds a learned function of the time since a behaviour to the scores of
            search and attention, of so many frequencies (`TimeGapBias`); 0 adds none.
        time_periods: their shortest and longest period, in the data's unit of time.

    Raises:
        ValueError: a size is less than 1, or an option is unknown.
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
        score_precision: ScorePrecision = "float32",
        refresh_steps: int = 0,
        time_frequencies: int = 0,
        time_periods: tuple[float, float] = (7_200.0, 63_072_000.0),
    ) -> None:
        gaps = None
        if time_frequencies:
            shortest, longest = time_periods
            gaps = TimeGapBias(
                num_heads=num_heads,
                num_frequencies=time_frequencies,
                periods=(shortest, longest),
            )
        super().__init__(
            query_dim=query_dim,
            cross_dim=cross_dim,
            output_dim=output_dim,
            k=k,
            num_heads=num_heads,
            head_dim=head_dim,
            score_scale=score_scale,
            gaps=gaps,
        )
        if refresh_steps < 0:
            raise ValueError(f"twin refresh_steps is {refresh_steps}; must be at least 0")
        if score_precision not in get_args(ScorePrecision):
            raise ValueError(
                f"score_precision is {score_precision!r}; must be one of "
                f"{', '.join(get_args(ScorePrecision))}"
            )
        self.score_precision = score_precision
        self.refresh_steps = refresh_steps
        # scripts/evaluate.py projections=<folder> puts them here
        self.projections: Projections | None = None
        self._held: list[str] = []

    def hold(self, sizes: Mapping[str, int]) -> None:
        """Makes room for the projections of so many ids of each inherent field."""
        width = self.attention.num_heads * self.attention.head_dim
        for field, size in sizes.items():
            # in checkpoints, so that a resumed run searches in what an uninterrupted one would
            self.register_buffer(f"cached_{field}", torch.zeros(size, width))
            self._held.append(field)

    def key_weight(self) -> Tensor:
        """Returns W^h [H, D, d]."""
        return self.attention.key_weight

    def store(self, field: str, begin: int, projected: Tensor) -> None:
        """Stores the projections [ids, H d] of a field's ids from `begin` on."""
        cached = self.get_buffer(f"cached_{field}")
        cached[begin : begin + len(projected)] = projected

    @property
    def cache(self) -> Projections | None:
        """What the search reads instead of behaviours; None reads these."""
        if self.projections is None and self.training and self._held:
            return Projections({f: self.get_buffer(f"cached_{f}") for f in self._held})
        return self.projections

    def search(self, inputs: SearchInputs) -> Tensor:
        """Returns the selected behaviours [C, k], -1 for none."""
        cache = self.cache
        if cache is None:
            query, keys = self.attention.absorb(inputs.query), inputs.behaviors
        else:
            query = cache.query(self.attention.project_query(inputs.query))
            keys = cache.keys(inputs.behavior_ids)
        return search_topk(
            self.attention.with_time(round_rows(query, self.score_precision), inputs.time),
            self.attention.search_keys(
                keys.map(lambda values: round_rows(values, self.score_precision)),
                inputs.behavior_time,
            ),
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
