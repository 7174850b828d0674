"""Induced set attention (Lee et al., Set Transformer, ICML 2019, section 3.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ranker.modules.linear import Linear


class InducedAttention(nn.Module):
    """ISAB(X) = MAB(X, MAB(I, X)): m learned queries I stand between the tokens, in O(n m).

    MAB(Q, K) = H + relu(H W), H = Q + attention(Q W_q, K W_k, K W_v), heads side by side.

    Args:
        dim: width D of a token.
        num_inducing: number m of the learned queries.
        num_heads: heads; divides `dim`.
    """

    def __init__(self, *, dim: int, num_inducing: int, num_heads: int) -> None:
        super().__init__()
        self.inducing = nn.Parameter(torch.empty(num_inducing, dim))
        nn.init.xavier_uniform_(self.inducing)
        self.gather, self.scatter = _Block(dim, num_heads), _Block(dim, num_heads)

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps [C, n, D] to [C, n, D]."""
        induced = self.gather(self.inducing.expand(len(tokens), -1, -1), tokens)
        mixed: Tensor = self.scatter(tokens, induced)
        return mixed


class _Block(nn.Module):
    """MAB."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value = (Linear(dim, dim) for _ in range(3))
        self.feed = Linear(dim, dim)

    def forward(self, query: Tensor, tokens: Tensor) -> Tensor:
        heads = [
            layer(x).view(*x.shape[:2], self.num_heads, -1).transpose(1, 2)
            for layer, x in ((self.query, query), (self.key, tokens), (self.value, tokens))
        ]
        attended = F.scaled_dot_product_attention(*heads)
        hidden = query + attended.transpose(1, 2).flatten(2)
        output: Tensor = hidden + torch.relu(self.feed(hidden))
        return output
