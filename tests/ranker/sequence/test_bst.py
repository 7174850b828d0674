from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ranker.sequence.bst import BST
from ranker.slots import SequenceInputs


def normalize(x: Any) -> Any:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def softmax(x: Any) -> Any:
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def test_it_is_the_papers_transformer(make_inputs: Callable[..., SequenceInputs]) -> None:
    inputs = make_inputs([[0, 5], [2, 3], [4, 14]])
    torch.manual_seed(1)
    encoder = BST(
        query_dim=4,
        cross_dim=3,
        num_heads=2,
        head_dim=3,
        hidden_dim=6,
        max_positions=4,
        time_buckets=9,
        cross="none",
        max_length=8,
    ).double()
    with torch.no_grad():
        found = encoder(inputs).numpy()
    state = {name: value.numpy() for name, value in encoder.state_dict().items()}
    w_q, w_k, w_v = np.split(state["layers.0.attention.projections.weight"], 3)
    for row, (begin, end) in enumerate(inputs.windows.tolist()):
        begin = max(begin, end - 8)
        tokens = []
        for j in range(begin, end):
            gap = int(inputs.time[row] - inputs.behavior_time[j])
            # bucket k holds gaps in [2^k - 1, 2^(k+1) - 1)
            bucket = max(k for k in range(9) if 2**k - 1 <= gap)
            tokens.append(
                inputs.behaviors[j].detach().numpy()
                + state["recency.positions.weight"][min(end - 1 - j, 3)]
                + state["recency.gaps.weight"][bucket]
            )
        s = np.array([*tokens, inputs.query[row].detach().numpy()])
        heads = []
        for h in range(2):
            q, k, v = (s @ w[3 * h : 3 * h + 3].T for w in (w_q, w_k, w_v))
            heads.append(softmax(q @ k.T / np.sqrt(3)) @ v)
        attended = np.concatenate(heads, 1) @ state["layers.0.attention.output.weight"].T
        s = normalize(s + attended)
        hidden = s @ state["layers.0.first.weight"].T + state["layers.0.first.bias"]
        hidden = np.where(hidden > 0, hidden, 0.01 * hidden)
        f = normalize(
            s + hidden @ state["layers.0.second.weight"].T + state["layers.0.second.bias"]
        )
        np.testing.assert_allclose(found[row], np.concatenate([f[-1], f[:-1].mean(0)]), atol=1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": 0}, "bst num_layers is 0"),
        ({"num_heads": 0}, "self-attention num_heads is 0"),
        ({"time_buckets": -1}, "sequence time_buckets is -1"),
    ],
)
def test_bad_sizes_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BST(query_dim=4, cross_dim=0, **options)  # type: ignore[arg-type]
