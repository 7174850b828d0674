"""AutoInt, self-attention over feature fields (Song et al., CIKM 2019, section 4)."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ranker.modules.field_tokens import FieldTokens
from ranker.modules.linear import Linear
from ranker.slots import FeatureLayout

Variant = Literal["paper", "authors"]


class AutoInt(nn.Module):
    """e'_m = relu(concat_h sum_k softmax_k(<W_Q e_m, W_K e_k>) W_V e_k + W_R e_m), layer by layer.

    The output is all features' vectors side by side.

    Args:
        layout: of the shared embedding.
        token_dim: width of a feature's vector; features of another width are projected.
        num_layers: number of attention layers.
        num_heads: heads H of each.
        head_dim: width of a head.
        variant: "paper" is the equations 5 to 8; "authors" is their released code: relu on all
            four projections, scores divided by sqrt(head_dim), layer norm behind each layer.
        keep_input: also hand the embedding itself to the head.

    Raises:
        ValueError: a size is not positive or the variant unknown.
    """

    def __init__(
        self,
        *,
        layout: FeatureLayout,
        token_dim: int,
        num_layers: int,
        num_heads: int,
        head_dim: int,
        variant: Variant = "paper",
        keep_input: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (
            ("num_layers", num_layers),
            ("num_heads", num_heads),
            ("head_dim", head_dim),
        ):
            if value < 1:
                raise ValueError(f"interaction.{name} is {value}; it must be at least 1")
        if variant not in get_args(Variant):
            raise ValueError(f"interaction.variant is {variant!r}; must be paper or authors")
        self.tokens = FieldTokens(layout=layout, dim=token_dim)
        width = num_heads * head_dim
        self.layers = nn.ModuleList(
            _Attention(token_dim if layer == 0 else width, num_heads, head_dim, variant)
            for layer in range(num_layers)
        )
        self.keep_input = keep_input
        self.output_dim = self.tokens.num_tokens * width + (layout.dim if keep_input else 0)

    def forward(self, embedded: Tensor) -> Tensor:
        """Maps [C, D] to [C, output_dim]."""
        tokens = self.tokens(embedded)
        for layer in self.layers:
            tokens = layer(tokens)
        crossed = tokens.flatten(1)
        return torch.cat([crossed, embedded], dim=1) if self.keep_input else crossed


class _Attention(nn.Module):
    """One layer: [C, F, input_dim] to [C, F, H * head_dim]."""

    def __init__(self, input_dim: int, num_heads: int, head_dim: int, variant: Variant) -> None:
        super().__init__()
        width = num_heads * head_dim
        self.num_heads = num_heads
        self.is_authors = variant == "authors"
        self.scale = head_dim**-0.5 if self.is_authors else 1.0
        # query, key, value and residual at once
        self.projections = Linear(input_dim, 4 * width, bias=False)
        for weight in self.projections.weight.data.chunk(4):
            nn.init.xavier_normal_(weight)
        self.norm = nn.LayerNorm(width) if self.is_authors else nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        projected = self.projections(tokens)
        if self.is_authors:
            projected = torch.relu(projected)
        query, key, value, residual = projected.chunk(4, dim=2)
        query, key, value = (
            x.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for x in (query, key, value)
        )
        attended = F.scaled_dot_product_attention(query, key, value, scale=self.scale)
        merged = attended.transpose(1, 2).flatten(2)
        output: Tensor = self.norm(torch.relu(merged + residual))
        return output
