"""How a behaviour enters attention when it has cross features that the candidate lacks."""

from typing import Literal, get_args

from torch import Tensor, nn

from ranker.modules.linear import Linear

CrossMode = Literal["auto", "add", "none"]


class BehaviorInput(nn.Module):
    """k_j = e_j, or e_j + W x_j with cross features x_j (read time, rating, ...).

    Args:
        query_dim: width D of the inherent features e_j.
        cross_dim: width X of the cross features x_j.
        cross: "add", "none", or "auto": add if there are cross features.

    Raises:
        ValueError: "add" on data without cross features.
    """

    def __init__(self, *, query_dim: int, cross_dim: int, cross: CrossMode) -> None:
        super().__init__()
        if cross not in get_args(CrossMode):
            choices = ", ".join(get_args(CrossMode))
            raise ValueError(f"sequence cross is {cross!r}; must be one of {choices}")
        if cross == "add" and not cross_dim:
            raise ValueError(
                "sequence cross is 'add', but the data set's behaviors have no cross fields; "
                "use none or auto"
            )
        adds = cross == "add" or (cross == "auto" and cross_dim > 0)
        self.projection = Linear(cross_dim, query_dim, bias=False) if adds else None

    def forward(self, behaviors: Tensor, cross: Tensor) -> Tensor:
        """Maps [N, D] and [N, X] to [N, D]."""
        return behaviors if self.projection is None else behaviors + self.projection(cross)
