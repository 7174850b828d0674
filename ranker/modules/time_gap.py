"""What the time since a behaviour adds to a score, where windows may be long."""

import math

import torch
from torch import Tensor, nn

from ranker_kernels.search_topk import DistinctRows


class TimeGapBias(nn.Module):
    """A learned function of the time gap t_c - t_j for each head, as an inner product.

        bias_cjh = sum over r of  A_hr cos(w_r (t_c - t_j)) + B_hr sin(w_r (t_c - t_j))
                 = <u_ch, v_j>,   v_j = [cos(w t_j), sin(w t_j)]

    The frequencies w_r are fixed and lie evenly, in logarithm, between those of two periods (time
    encoding: Xu et al., 2019, 1911.12864). A table of gap buckets would need a number for each
    candidate and behaviour; v_j is computed once for each behaviour, and search and attention see
    a few more columns. A and B start at zero.

    Args:
        num_heads: H.
        num_frequencies: R; each adds two columns.
        periods: the shortest and the longest period, in the data's unit of time.

    Raises:
        ValueError: a number is less than 1, or the periods do not ascend.
    """

    def __init__(
        self, *, num_heads: int, num_frequencies: int, periods: tuple[float, float]
    ) -> None:
        super().__init__()
        if num_frequencies < 1:
            raise ValueError(f"time_frequencies is {num_frequencies}; must be at least 0")
        shortest, longest = periods
        if not 0 < shortest < longest < math.inf:
            raise ValueError(
                f"time_periods is {list(periods)}; must be a shortest and a longer period, both "
                "positive, in the data's unit of time"
            )
        # in double: a time of 10^9 and a period of an hour leave float32 no digits of the phase
        exponents = torch.linspace(
            math.log(longest), math.log(shortest), num_frequencies, dtype=torch.float64
        )
        self.register_buffer("frequencies", 2 * math.pi / exponents.exp(), persistent=False)
        self.weight = nn.Parameter(torch.zeros(2, num_heads, num_frequencies))

    frequencies: Tensor

    @property
    def num_columns(self) -> int:
        """Columns that queries and keys have more."""
        return 2 * self.weight.shape[2]

    def query(self, time: Tensor) -> Tensor:
        """Returns u [C, H, 2 R] from the times [C] of impressions."""
        cosine, sine = (part.unsqueeze(1) for part in self._phases(time))
        weight, other = self.weight
        return torch.cat([weight * cosine + other * sine, weight * sine - other * cosine], dim=2)

    def keys(self, time: Tensor) -> Tensor:
        """Returns v [N, 2 R] from the times [N] of behaviours."""
        return torch.cat(self._phases(time), dim=1)

    def extend(self, keys: DistinctRows, time: Tensor) -> DistinctRows:
        """Puts v behind the keys of a search."""
        columns = self.keys(time).to(keys.values[0].dtype)
        return DistinctRows((*keys.values, columns), (*keys.rows, None))

    def _phases(self, time: Tensor) -> tuple[Tensor, Tensor]:
        phases = time.unsqueeze(1).double() * self.frequencies
        dtype = self.weight.dtype
        return phases.cos().to(dtype), phases.sin().to(dtype)
