from typing import Any

import numpy as np
import pytest
import torch

from ranker.heads.apem import APEM
from ranker.modules.task_towers import TowerOptions
from ranker.slots import FeatureLayout, HeadInputs

LAYOUT = FeatureLayout(names=("user_id", "item_id"), widths=(3, 4))
SIZES = {
    "num_groups": 3,
    "token_dim": 4,
    "num_inducing": 2,
    "num_heads": 2,
    "num_layers": 1,
    "gate_units": 5,
}


def build(**sizes: int) -> Any:
    torch.manual_seed(0)
    return APEM(
        input_dim=7,
        tasks=("ctr", "like"),
        layout=LAYOUT,
        towers=TowerOptions(predict=["ctr", "like"], hidden_units=[]),
        **{**SIZES, **sizes},  # type: ignore[arg-type]
    ).double()


def block(p: dict[str, Any], name: str, query: Any, tokens: Any) -> Any:
    """MAB in NumPy, one row."""

    def linear(part: str, x: Any) -> Any:
        return x @ p[f"{name}.{part}.weight"].T + p[f"{name}.{part}.bias"]

    q, k, v = linear("query", query), linear("key", tokens), linear("value", tokens)
    heads = []
    for cut in (slice(0, 2), slice(2, 4)):
        scores = np.exp(q[:, cut] @ k[:, cut].T / np.sqrt(2))
        heads.append(scores / scores.sum(1, keepdims=True) @ v[:, cut])
    hidden = query + np.concatenate(heads, 1)
    return hidden + np.maximum(linear("feed", hidden), 0)


def gate(p: dict[str, Any], name: str, x: Any) -> Any:
    hidden = np.maximum(x @ p[f"{name}.0.weight"].T + p[f"{name}.0.bias"], 0)
    return 1 / (1 + np.exp(-(hidden @ p[f"{name}.2.weight"].T + p[f"{name}.2.bias"])))


def test_tasks_select_from_excited_patterns() -> None:
    head, features = build(), torch.randn(6, 7, dtype=torch.float64)
    for tower in head.towers.towers:
        torch.nn.init.normal_(tower.logit.weight)
    with torch.no_grad():
        logits = head(HeadInputs(features=features, embedded=features))
    p = {name: value.numpy() for name, value in head.state_dict().items()}
    for row in range(6):
        # 7 columns in 3 groups of 3, two of them zeros
        groups = np.append(features[row].numpy(), [0, 0]).reshape(3, 3)
        tokens = np.stack([groups[g] @ p["tokens"][g] for g in range(3)])
        induced = block(p, "attention.0.gather", p["attention.0.inducing"], tokens)
        mixed = block(p, "attention.0.scatter", tokens, induced)
        patterns = gate(p, "excitation", mixed.mean(1))[:, None] * mixed
        for t, task in enumerate(("ctr", "like")):
            chosen = gate(p, "selector", np.append(p["task_vectors"][t], patterns.mean(0)))
            expected = (chosen[:, None] * patterns).ravel() @ p[f"towers.towers.{t}.logit.weight"][
                0
            ]
            assert logits[task][row].item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_groups": 8}, r"num_groups is 8, but there are 7 columns"),
        ({"num_inducing": 0}, r"head\.num_inducing is 0"),
        ({"num_heads": 3}, r"token_dim is 4; it must be a multiple of head\.num_heads \(3\)"),
    ],
)
def test_bad_sizes_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**sizes)
