"""What the model's sharded lookup costs over FBGEMM's kernel alone, forward and backward.

    python scripts/benchmark_lookup.py --device cuda
    python scripts/benchmark_lookup.py --device cpu --lookups 20000 --rows 100000 --dim 32

10 tables, as many lookups in each, Zipf 1.05, float32, row-wise Adagrad fused into the backward
(workload EMB-1, goal G11: at most 3 % over the kernel). Both look up the same ids; values, before
and after a step, are compared first. Rounds are interleaved and medians printed: time on a GPU, CPU
time of one thread otherwise. On a GPU twice: as it is called, and with its launches queued while
the GPU still idles, as in a step that computes something else before.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice,
    SplitTableBatchedEmbeddingBagsCodegen,
)
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedJaggedTensor

from ranker.embedding import EmbeddingTables
from ranker.modules.embedding_options import EmbeddingOptions
from ranker.optimizers.options import OptimizerOptions
from ranker.placement import ShardingOptions
from ranker.sharding import shard
from ranker_data.schema import Field, Label, Schema, Table, Task

NUM_TABLES, LEARNING_RATE, EPSILON = 10, 0.05, 1e-8
NAMES = [f"f{table}" for table in range(NUM_TABLES)]
GOAL = 1.03


class Lookup(nn.Module):
    """The tables and a network, which a run always has."""

    def __init__(self, tables: EmbeddingTables) -> None:
        super().__init__()
        self.tables, self.network = tables, nn.Linear(1, 1)

    def forward(self, ids: KeyedJaggedTensor) -> list[dict[str, JaggedTensor]]:
        """Looks ids up."""
        return self.tables(ids)


def main() -> None:
    """Prints medians, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--lookups", type=int, default=104_857, help="of each table")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of each table")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=21)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("MASTER_ADDR", "localhost")
    store = dist.HashStore()  # type: ignore[attr-defined]
    backend = "nccl" if arguments.device == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
    device = torch.device(arguments.device, 0) if backend == "nccl" else torch.device("cpu")

    ids = draw_ids(arguments.lookups, arguments.rows).to(device)
    ours = build_ours(arguments.rows, arguments.dim, arguments.lookups, device)
    raw = build_raw(arguments.rows, arguments.dim, device)
    copy_tables(ours, raw)
    features = KeyedJaggedTensor(
        keys=NAMES,
        values=ids.flatten(),
        lengths=torch.ones(ids.numel(), dtype=torch.int64, device=device),
    )
    offsets = torch.arange(ids.numel() + 1, device=device)

    def look_up() -> list[Tensor]:
        found = ours(features)[0]
        return [found[name].values() for name in NAMES]

    def look_up_raw() -> list[Tensor]:
        return [raw(ids.flatten(), offsets)]

    def train(forward: Callable[[], list[Tensor]]) -> None:
        found = forward()
        torch.autograd.backward(found, [torch.ones_like(values) for values in found])

    for _ in range(2):
        torch.testing.assert_close(torch.cat(look_up()), look_up_raw()[0])
        train(look_up)
        train(look_up_raw)
    calls: dict[str, Callable[[], object]] = {
        "ours, forward": look_up,
        "FBGEMM, forward": look_up_raw,
        "ours, with backward": lambda: train(look_up),
        "FBGEMM, with backward": lambda: train(look_up_raw),
    }
    for queued in (False, True) if arguments.device == "cuda" else (False,):
        compare(calls, device, arguments.rounds, queued=queued)
    dist.destroy_process_group()


def compare(
    calls: dict[str, Callable[[], object]], device: torch.device, rounds: int, *, queued: bool
) -> None:
    """Prints medians, and ours over FBGEMM's."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(time_call(call, device, queued=queued))
    medians = {name: statistics.median(found) for name, found in times.items()}
    how = ", launches queued" if queued else ""
    for name, median in medians.items():
        print(f"{name}{how}: {1e3 * median:.3f} ms")
    for kind in ("forward", "with backward"):
        ratio = medians[f"ours, {kind}"] / medians[f"FBGEMM, {kind}"]
        verdict = "reached" if ratio <= GOAL else "missed"
        print(f"G11, {kind}{how}: {ratio:.3f} of FBGEMM's time; goal {GOAL}: {verdict}")


def draw_ids(lookups: int, rows: int) -> Tensor:
    """Returns ids `[tables, lookups]` with Zipf's distribution, in no order of popularity."""
    generator = torch.Generator().manual_seed(2026)
    weights = torch.arange(1, rows + 1, dtype=torch.float64).pow(-1.05)
    bounds = weights.cumsum(0) / weights.sum()
    drawn = torch.rand(NUM_TABLES, lookups, generator=generator, dtype=torch.float64)
    return torch.randperm(rows, generator=generator)[torch.searchsorted(bounds, drawn)]


def build_ours(rows: int, dim: int, lookups: int, device: torch.device) -> nn.Module:
    """Returns the model's tables as a run shards them."""
    schema = Schema(
        name="lookup",
        time_unit="s",
        tables=tuple(Table(name=name, num_embeddings=rows) for name in NAMES),
        fields=tuple(Field(name=name, kind="id", side="item", table=name) for name in NAMES),
        behaviors=(),
        labels=(Label(name="click"),),
        tasks=(Task(name="ctr", label="click"),),
    )
    tables = EmbeddingTables(schema=schema, options=EmbeddingOptions(dim=dim))
    sharded = shard(
        Lookup(tables),
        tables=tables,
        optimizer=OptimizerOptions(
            sparse="rowwise_adagrad",
            sparse_lr=LEARNING_RATE,
            sparse_eps=EPSILON,
            dense="adamw",
            dense_lr=1e-3,
            dense_weight_decay=0.0,
        ),
        sharding=ShardingOptions(default="table_wise"),
        init_std=0.01,
        seed=0,
        device=device,
        batch_size=lookups,
    )
    return sharded.model


def build_raw(rows: int, dim: int, device: torch.device) -> SplitTableBatchedEmbeddingBagsCodegen:
    """Returns FBGEMM's batch of tables, with the same optimizer."""
    on_gpu = device.type == "cuda"
    location = EmbeddingLocation.DEVICE if on_gpu else EmbeddingLocation.HOST
    compute = ComputeDevice.CUDA if on_gpu else ComputeDevice.CPU
    return SplitTableBatchedEmbeddingBagsCodegen(
        [(rows, dim, location, compute)] * NUM_TABLES,
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=LEARNING_RATE,
        eps=EPSILON,
        pooling_mode=PoolingMode.NONE,
        device=device,
    )


@torch.no_grad()
def copy_tables(ours: nn.Module, raw: SplitTableBatchedEmbeddingBagsCodegen) -> None:
    """Gives FBGEMM's tables the values of ours."""
    states = ours.state_dict()
    for table, target in enumerate(raw.split_embedding_weights()):
        (name,) = [name for name in states if name.endswith(f".f{table}.weight")]
        source = states[name]
        target.copy_(source.local_shards()[0].tensor if hasattr(source, "local_shards") else source)


def time_call(call: Callable[[], object], device: torch.device, *, queued: bool) -> float:
    """Returns seconds; `queued` leaves out what the host does before the GPU starts."""
    if device.type == "cpu":
        start = time.process_time()
        call()
        return time.process_time() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    if queued:
        # 10 ms of an H200
        torch.cuda._sleep(20_000_000)  # type: ignore[no-untyped-call]
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3


if __name__ == "__main__":
    main()
