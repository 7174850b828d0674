from typing import Any

import pytest
import torch
from fbgemm_gpu.split_embedding_codegen_lookup_invokers import lookup_rowwise_adagrad
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice,
    SplitTableBatchedEmbeddingBagsCodegen,
)
from torch import Tensor

from ranker import compiled_lookup
from ranker_kernels import embedding_rows
from ranker_kernels.native import SWITCH

WIDTH, LR, EPS = 12, 0.1, 1e-3
ROWS = (40, 7, 3000)


@pytest.fixture(autouse=True)
def _patched(monkeypatch: pytest.MonkeyPatch) -> None:
    # taken back after each test
    monkeypatch.setattr(lookup_rowwise_adagrad, "invoke", lookup_rowwise_adagrad.invoke)
    compiled_lookup.use_compiled_lookup.cache_clear()
    compiled_lookup.use_compiled_lookup()


def build(*, features: list[int], weight_decay: float = 0.0) -> Any:
    torch.manual_seed(5)
    module = SplitTableBatchedEmbeddingBagsCodegen(
        [(rows, WIDTH, EmbeddingLocation.HOST, ComputeDevice.CPU) for rows in ROWS],
        feature_table_map=features,
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        pooling_mode=PoolingMode.NONE,
        learning_rate=LR,
        eps=EPS,
        weight_decay=weight_decay,
    )
    for weights in module.split_embedding_weights():
        weights.normal_()
    return module


def train(module: Any, features: list[int], *, steps: int = 3) -> list[Tensor]:
    """Returns the outputs of some steps, then all weights and accumulators."""
    generator = torch.Generator().manual_seed(3)
    results = []
    for _ in range(steps):
        bags = torch.randint(0, 9, (len(features), 50), generator=generator)
        bags[0, :3] = 0
        ids = [
            torch.randint(0, ROWS[table], (int(lengths.sum()),), generator=generator)
            for table, lengths in zip(features, bags, strict=True)
        ]
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), bags.flatten().cumsum(0)])
        output = module(torch.cat(ids), offsets)
        results.append(output.detach().clone())
        output.backward(torch.randn(output.shape, generator=generator))
    states = [state["sum"] for state in module.get_optimizer_state()]
    return [*results, *(w.clone() for w in module.split_embedding_weights()), *states]


@pytest.mark.parametrize("features", [[0, 1, 2], [0, 0, 1, 2, 2], [0, 1, 1, 2]])
def test_does_what_fbgemm_does(features: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert embedding_rows.find_library() is not None
    actual = train(build(features=features), features)
    monkeypatch.setenv(SWITCH, "0")
    expected = train(build(features=features), features)
    torch.testing.assert_close(actual, expected)
    # the switch is what makes the difference between the two
    monkeypatch.setattr(compiled_lookup, "_lookup", lambda *_: pytest.fail("turned off"))
    train(build(features=features), features, steps=1)


def test_is_used_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    lookup = compiled_lookup._lookup

    def watched(*arguments: Any) -> Tensor:
        calls.append(arguments)
        return lookup(*arguments)

    monkeypatch.setattr(compiled_lookup, "_lookup", watched)
    train(build(features=[0, 1, 2]), [0, 1, 2], steps=2)
    assert len(calls) == 2


def test_leaves_what_it_does_not_cover_to_fbgemm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_lookup, "_lookup", lambda *_: pytest.fail("not covered"))
    actual = train(build(features=[0, 1, 2], weight_decay=0.1), [0, 1, 2], steps=1)
    monkeypatch.setenv(SWITCH, "0")
    expected = train(build(features=[0, 1, 2], weight_decay=0.1), [0, 1, 2], steps=1)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_a_batch_without_ids() -> None:
    module = build(features=[0, 1, 2])
    before = [weights.clone() for weights in module.split_embedding_weights()]
    output = module(torch.zeros(0, dtype=torch.int64), torch.zeros(3 * 4 + 1, dtype=torch.int64))
    assert output.shape == (0, WIDTH)
    output.sum().backward()
    torch.testing.assert_close(list(module.split_embedding_weights()), before, rtol=0, atol=0)


def test_rates_that_change_between_steps_are_followed() -> None:
    module = build(features=[0, 1, 2])
    module.set_learning_rate(0.0)
    before = [weights.clone() for weights in module.split_embedding_weights()]
    output = module(torch.tensor([1, 1, 5]), torch.tensor([0, 2, 3, 3, 3, 3, 3]))
    output[2].sum().backward()
    torch.testing.assert_close(list(module.split_embedding_weights()), before, rtol=0, atol=0)
    assert module.get_optimizer_state()[0]["sum"][5] == 1.0
