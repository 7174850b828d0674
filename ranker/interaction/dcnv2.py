"""DCN-V2, the improved cross network (Wang et al., WWW 2021, sections 3.2 and 3.4)."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ranker.modules.linear import Linear
from ranker.slots import FeatureLayout
from ranker_kernels.linear import linear

Form = Literal["full", "low_rank", "mixture"]


class DCNv2(nn.Module):
    """x_{l+1} = x_0 * f_l(x_l) + x_l, from the embedding x_0.

    full:      f(x) = W x + b
    low_rank:  f(x) = U V^T x + b, U and V of `rank` columns
    mixture:   f(x) = sum_i softmax(G x)_i (U_i tanh(C_i tanh(V_i^T x)) + b)

    The head follows (the stacked form of the paper); with `keep_input` it also sees x_0.

    Args:
        layout: of the shared embedding.
        num_layers: number of cross layers.
        form: of f.
        rank: of U and V; a quarter of the width is typical. Not for the full form.
        num_experts: number of low-rank experts of a mixture.
        keep_input: also hand x_0 to the head.

    Raises:
        ValueError: a size is missing, not positive or has no meaning for the form.
    """

    def __init__(
        self,
        *,
        layout: FeatureLayout,
        num_layers: int,
        form: Form = "full",
        rank: int | None = None,
        num_experts: int | None = None,
        keep_input: bool = False,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"interaction.num_layers is {num_layers}; it must be at least 1")
        if form not in get_args(Form):
            names = ", ".join(get_args(Form))
            raise ValueError(f"interaction.form is {form!r}; must be one of {names}")
        _check_size("rank", rank, form, needed=form != "full")
        _check_size("num_experts", num_experts, form, needed=form == "mixture")
        self.layers = nn.ModuleList(
            _build_layer(layout.dim, form, rank or 0, num_experts or 0) for _ in range(num_layers)
        )
        self.keep_input = keep_input
        self.output_dim = layout.dim * (2 if keep_input else 1)

    def forward(self, embedded: Tensor) -> Tensor:
        """Maps [C, D] to [C, output_dim]."""
        crossed = embedded
        for layer in self.layers:
            crossed = embedded * layer(crossed) + crossed
        return torch.cat([crossed, embedded], dim=1) if self.keep_input else crossed


class _Mixture(nn.Module):
    """f(x) of the mixture: [C, D] to [C, D]."""

    def __init__(self, dim: int, rank: int, num_experts: int) -> None:
        super().__init__()
        self.gate = Linear(dim, num_experts, bias=False)
        self.down = nn.Parameter(torch.empty(num_experts, rank, dim))
        self.core = nn.Parameter(torch.empty(num_experts, rank, rank))
        self.up = nn.Parameter(torch.empty(num_experts, dim, rank))
        self.bias = nn.Parameter(torch.zeros(dim))
        for stacked in (self.down, self.core, self.up):
            for weight in stacked.data:
                nn.init.xavier_normal_(weight)

    def forward(self, inputs: Tensor) -> Tensor:
        # all experts' V_i^T at once
        down = linear(inputs, self.down.flatten(0, 1)).view(-1, *self.down.shape[:2])
        hidden = torch.tanh(torch.einsum("cer,esr->ces", torch.tanh(down), self.core))
        shares = torch.softmax(self.gate(inputs), dim=1)
        # shares times U_i x is U_i times shares x, and shares add up to 1: one product, [C, D] wide
        mixed = (shares.unsqueeze(2) * hidden).flatten(1)
        return linear(mixed, self.up.transpose(0, 1).flatten(1), self.bias)


def _build_layer(dim: int, form: Form, rank: int, num_experts: int) -> nn.Module:
    match form:
        case "full":
            return _linear(dim, dim, bias=True)
        case "low_rank":
            return nn.Sequential(_linear(dim, rank, bias=False), _linear(rank, dim, bias=True))
        case "mixture":
            return _Mixture(dim, rank, num_experts)


def _linear(input_dim: int, output_dim: int, *, bias: bool) -> Linear:
    layer = Linear(input_dim, output_dim, bias=bias)
    nn.init.xavier_normal_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def _check_size(name: str, value: int | None, form: Form, *, needed: bool) -> None:
    if needed and (value is None or value < 1):
        raise ValueError(f"interaction.{name} is {value}; the form {form} needs at least 1")
    if not needed and value is not None:
        raise ValueError(f"interaction.{name} is {value}, but the form {form} has none; use null")
