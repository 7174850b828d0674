"""Multi-head self-attention over a padded sequence."""

import torch.nn.functional as F
from torch import Tensor, nn

from ranker.modules.linear import Linear


class SelfAttention(nn.Module):
    """concat_h softmax(Q_h K_h^T / sqrt(d)) V_h W^O, without biases.

    Args:
        dim: width D of a token.
        num_heads: heads H.
        head_dim: width d of a head.

    Raises:
        ValueError: a number is less than 1.
    """

    def __init__(self, *, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        for name, value in (("num_heads", num_heads), ("head_dim", head_dim)):
            if value < 1:
                raise ValueError(f"self-attention {name} is {value}; must be at least 1")
        self.num_heads = num_heads
        # query, key and value at once
        self.projections = Linear(dim, 3 * num_heads * head_dim, bias=False)
        for weight in self.projections.weight.data.chunk(3):
            nn.init.xavier_uniform_(weight)
        self.output = Linear(num_heads * head_dim, dim, bias=False)

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Maps tokens [G, L, D] to [G, L, D]; `visible` [G, L] says which may be attended to."""
        query, key, value = (
            x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for x in self.projections(tokens).chunk(3, dim=2)
        )
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=visible[:, None, None, :]
        )
        output: Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return output
