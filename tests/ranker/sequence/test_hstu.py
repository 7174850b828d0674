from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ranker.sequence.hstu import HSTU
from ranker.slots import SequenceInputs


def silu(x: Any) -> Any:
    return x / (1 + np.exp(-x))


def norm(x: Any, weight: Any, bias: Any) -> Any:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * weight + bias


def test_it_is_equations_1_to_3(make_inputs: Callable[..., SequenceInputs]) -> None:
    inputs = make_inputs([[0, 5], [2, 3], [4, 14]])
    torch.manual_seed(1)
    encoder = HSTU(
        query_dim=4,
        cross_dim=3,
        num_layers=2,
        num_heads=2,
        head_dim=3,
        max_positions=4,
        time_buckets=9,
        cross="none",
        max_length=8,
    ).double()
    with torch.no_grad():
        found = encoder(inputs).numpy()
    state = {name: value.numpy() for name, value in encoder.state_dict().items()}
    for row, (begin, end) in enumerate(inputs.windows.tolist()):
        begin = max(begin, end - 8)
        x = np.concatenate(
            [inputs.behaviors[begin:end].detach(), inputs.query[row : row + 1].detach()]
        )
        times = [*inputs.behavior_time[begin:end].tolist(), int(inputs.time[row])]
        n = len(x)
        for layer in range(2):
            p = {k.removeprefix(f"layers.{layer}."): v for k, v in state.items()}
            normed = np.array([norm(t, p["norm.weight"], p["norm.bias"]) for t in x])
            u, v, q, k = np.split(silu(normed @ p["first.weight"].T + p["first.bias"]), 4, axis=1)
            y = np.zeros((n, 6))
            for i in range(n):
                for j in range(i + 1):
                    gap = times[i] - times[j]
                    bucket = max(b for b in range(9) if 2**b - 1 <= gap)
                    rab = (
                        p["place_bias.weight"][min(i - j, 3), 0] + p["time_bias.weight"][bucket, 0]
                    )
                    for h in (0, 1):
                        cut = slice(3 * h, 3 * h + 3)
                        y[i, cut] += silu(q[i, cut] @ k[j, cut] + rab) / n * v[j, cut]
            y = np.array([norm(t, p["norm_attended.weight"], p["norm_attended.bias"]) for t in y])
            x = x + (y * u) @ p["second.weight"].T + p["second.bias"]
        np.testing.assert_allclose(found[row], x[-1], atol=1e-10)


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="hstu head_dim is 0"):
        HSTU(query_dim=4, cross_dim=0, head_dim=0)
