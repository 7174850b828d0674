"""Lookups without an exchange do what TorchRec's do, to the last bit."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from fbgemm_gpu.split_embedding_codegen_lookup_invokers import lookup_rowwise_adagrad
from torch import Tensor, nn
from torchrec import EmbeddingCollection, EmbeddingConfig, KeyedJaggedTensor
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.sharding_plan import construct_module_sharding_plan, table_wise
from torchrec.distributed.types import ShardingPlan

from ranker.compiled_lookup import use_compiled_lookup
from ranker.distributed import process_group
from ranker.local_lookup import LocalLookup, look_up_locally
from ranker.optimizers.options import TableOptimizer
from ranker.optimizers.tables import attach_fused_optimizer
from ranker_kernels.native import SWITCH

WIDTH, BATCH = 12, 50
SIZES = {"user": 40, "item": 3000, "tag": 7}
TABLES = {"user": ["user"], "item": ["history", "item"], "tag": ["tag"]}
# not the order of the tables
KEYS = ["history", "tag", "user", "item"]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # taken back after each test
    monkeypatch.setattr(lookup_rowwise_adagrad, "invoke", lookup_rowwise_adagrad.invoke)
    use_compiled_lookup.cache_clear()
    use_compiled_lookup()
    with process_group("cpu"):
        yield


class Model(nn.Module):
    def __init__(self, optimizers: dict[str, str]) -> None:
        super().__init__()
        self.collection = EmbeddingCollection(
            device=torch.device("meta"),
            tables=[
                EmbeddingConfig(
                    name=name,
                    embedding_dim=WIDTH,
                    num_embeddings=SIZES[name],
                    feature_names=TABLES[name],
                )
                for name in TABLES
            ],
        )
        embeddings: Any = self.collection.embeddings
        for name, table in embeddings.items():
            kind: Any = optimizers.get(name, "rowwise_adagrad")
            options = TableOptimizer(name=kind, lr=0.1, eps=1e-3, weight_decay=0.0)
            attach_fused_optimizer(name, table.weight, options, torch.device("cpu"))

    def forward(self, ids: KeyedJaggedTensor) -> dict[str, Tensor]:
        return {key: found.values() for key, found in self.collection(ids).items()}


def build(*, local: bool, optimizers: dict[str, str] | None = None) -> DistributedModelParallel:
    module = Model(optimizers or {})
    placed = construct_module_sharding_plan(
        module.collection,
        {name: table_wise(rank=0) for name in TABLES},
        sharder=EmbeddingCollectionSharder(),
        **{"local_size": 1, "world_size": 1, "device_type": "cpu"},
    )
    model = DistributedModelParallel(
        *(module, None, torch.device("cpu"), ShardingPlan({"collection": placed})),
        init_data_parallel=False,
    )
    generator = torch.Generator().manual_seed(2)
    for table in model.state_dict().values():
        (shard,) = table.local_shards()
        shard.tensor.normal_(generator=generator)
    if local:
        look_up_locally(model)
    assert is_local(model) == (local and not optimizers)
    return model


def is_local(model: DistributedModelParallel) -> bool:
    return isinstance(model.module.collection.forward, LocalLookup)


def draw_ids(seed: int) -> KeyedJaggedTensor:
    generator = torch.Generator().manual_seed(seed)
    table_of = {key: table for table, keys in TABLES.items() for key in keys}
    lengths = torch.randint(0, 9, (len(KEYS), BATCH), generator=generator)
    # no ids at all
    lengths[KEYS.index("tag")] *= seed % 2
    values = [
        torch.randint(0, SIZES[table_of[key]], (int(count.sum()),), generator=generator)
        for key, count in zip(KEYS, lengths, strict=True)
    ]
    return KeyedJaggedTensor(keys=KEYS, values=torch.cat(values), lengths=lengths.flatten())


def train(model: DistributedModelParallel, steps: int = 4) -> list[Tensor]:
    """Returns the embeddings of all steps, then the tables and their accumulators."""
    results: list[Tensor] = []
    for seed in range(steps):
        generator = torch.Generator().manual_seed(seed)
        found = model(draw_ids(seed))
        results += [found[key].detach().clone() for key in KEYS]
        # two keys side by side, whose gradients are not contiguous, and one without a gradient
        joined = torch.cat([found["history"], found["history"].square()], dim=1)
        loss = (joined * torch.randn(joined.shape, generator=generator)).sum()
        for key in ("item", "tag"):
            loss = loss + (found[key] * torch.randn(found[key].shape, generator=generator)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
    states = model.fused_optimizer.state_dict()["state"]
    shards = [value for state in states.values() for value in state.values()]
    return results + [
        value.local_shards()[0].tensor.clone() for value in [*model.state_dict().values(), *shards]
    ]


def test_trains_as_with_an_exchange() -> None:
    expected = train(build(local=False))
    actual = train(build(local=True))
    assert len(actual) == 4 * len(KEYS) + 2 * len(TABLES)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_lengths_and_keys_are_those_of_an_exchange() -> None:
    ids = draw_ids(3)
    expected, actual = (build(local=local).module.collection(ids) for local in (False, True))
    assert {*actual.keys()} == {*expected.keys()} == {*KEYS}
    for key in KEYS:
        assert torch.equal(actual[key].lengths(), expected[key].lengths()), key
        assert torch.equal(actual[key].values(), expected[key].values()), key


def test_a_learning_rate_that_changes_is_followed() -> None:
    model = build(local=True)
    for group in model.fused_optimizer.param_groups:
        group["lr"] = 0.0
    model.fused_optimizer.zero_grad()
    before = [t.local_shards()[0].tensor.clone() for t in model.state_dict().values()]
    train(model, steps=1)
    after = [t.local_shards()[0].tensor for t in model.state_dict().values()]
    torch.testing.assert_close(after, before, rtol=0, atol=0)


@pytest.mark.parametrize("optimizers", [{"item": "sgd"}, {"user": "adagrad"}])
def test_other_optimizers_keep_the_exchange(optimizers: dict[str, str]) -> None:
    expected = train(build(local=False, optimizers=optimizers))
    torch.testing.assert_close(
        train(build(local=True, optimizers=optimizers)), expected, rtol=0, atol=0
    )


def test_ids_that_no_table_has_go_the_usual_way() -> None:
    results = []
    for local in (False, True):
        ids = draw_ids(0)
        # FBGEMM warns of it and takes row 0
        ids.values()[0] = 3000
        found = build(local=local)(ids)
        results.append([found[key].detach() for key in KEYS])
        ids.values()[0] = -1
        with pytest.raises(RuntimeError, match="out of bounds: -1"):
            build(local=local)(ids)
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_without_a_compiler_there_is_an_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(local=True)
    lookup = model.module.collection.forward
    calls = []
    exchange = lookup.exchange

    def watched(ids: KeyedJaggedTensor) -> Any:
        calls.append(ids)
        return exchange(ids)

    monkeypatch.setattr(lookup, "exchange", watched)
    with torch.no_grad():
        expected = model(draw_ids(1))
        assert not calls
        monkeypatch.setenv(SWITCH, "0")
        actual = model(draw_ids(1))
    assert len(calls) == 1
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
