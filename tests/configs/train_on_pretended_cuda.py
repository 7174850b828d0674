"""Takes steps with every config of a folder on a pretended GPU and on the CPU, and compares.

    python train_on_pretended_cuda.py <library of cuda_stub.cpp> <folder of configs>

Writes <name>.result beside <name>.json. Tables are not sharded: TorchRec's lookups on GPUs are
kernels of FBGEMM's build for CUDA.
"""

import ctypes
import json
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# torch must not be imported before
ctypes.CDLL(sys.argv[1], ctypes.RTLD_GLOBAL)

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torchrec import EmbeddingCollection, JaggedTensor, KeyedJaggedTensor  # noqa: E402
from torchrec.optim.keyed import CombinedOptimizer  # noqa: E402

from ranker.config import build_train_job  # noqa: E402
from ranker.distributed import Process  # noqa: E402
from ranker.evaluate import predict  # noqa: E402
from ranker.job import TrainJob, seed_everything, trainable_of  # noqa: E402
from ranker.optimizers.dense import build_dense_optimizer  # noqa: E402
from ranker.sharding import Sharded  # noqa: E402
from ranker.stages import Stages  # noqa: E402
from ranker.table_names import is_table  # noqa: E402
from tests.configs.pretended_cuda import CUDA, PretendedCuda, move_to_gpu, pretended_cuda  # noqa: E402

CPU = torch.device("cpu")
STEPS = 2


class Alone(nn.Module):
    """Stands for `DistributedModelParallel`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: Any) -> Any:
        return self.module(batch)


def look_up_plainly(collection: EmbeddingCollection) -> None:
    tables = {
        key: table.name for table in collection.embedding_configs() for key in table.feature_names
    }

    def forward(ids: KeyedJaggedTensor) -> dict[str, JaggedTensor]:
        weights = {key: collection.embeddings[name].weight for key, name in tables.items()}
        return {
            key: JaggedTensor(
                values=nn.functional.embedding(ids[key].values(), weight),
                lengths=ids[key].lengths(),
            )
            for key, weight in weights.items()
        }

    collection.forward = forward


def build(job: TrainJob, device: torch.device) -> Sharded:
    """Builds a model whose tables no optimizer moves."""
    seed_everything(0)
    module = job.build_module()
    tables = module.model.embedding
    tables.to_empty(device="cpu")
    for table in tables.parameters():
        nn.init.normal_(table, std=0.1)
    for collection in tables.collections:
        look_up_plainly(collection)
    model = Alone(module)
    if device == CUDA:
        move_to_gpu(model)
    networks = build_dense_optimizer(
        {name: value for name, value in model.named_parameters() if not is_table(name)},
        job.optimizer,
    )
    return Sharded(
        model=model,
        optimizer=CombinedOptimizer([("dense", networks)]),
        dense=networks,
        networks=networks,
        table_groups=[],
        dense_groups=list(networks.param_groups),
        plan=[],
    )


def train(job: TrainJob, device: torch.device, gpu: PretendedCuda) -> tuple[list[float], list[str]]:
    """Returns what can be compared with another device, and the waits of the last step."""
    process = Process(0, 1, device)
    sharded = build(job, device)
    trainable = trainable_of(sharded)
    loader = job.build_loader("train", process, shuffle=True)
    valid = job.build_loader("valid", process, shuffle=False)
    feed = job.build_feed(process, loader, sharded)
    stages = Stages(trainable, valid, budget=feed.budget, device=device, seed=job.seed)
    for stage in range(stages.count):
        stages.begin(stage, loader.batches())
    step = job.build_train_step(sharded, trainable, rank=0, total_steps=10)
    found, waits = [], Counter[str]()
    for index, batches in zip(range(STEPS), feed.batches(0, 0), strict=False):
        before = Counter(gpu.waits)
        result = step(batches, index)
        waits = gpu.waits - before
        stages.after_step(index + 1)
        found += [float(value) for value in (result.loss, *result.parts.values())]
    found += [*step.report().values()]
    stages.check()
    predictions = predict(sharded.model, valid, job.schema, device)
    assert predictions is not None
    found += [float(abs(task.logit).mean()) for task in predictions.tasks.values()]
    return found, [f"{line} ({count} times)" for line, count in waits.items()]


def check(job: TrainJob, gpu: PretendedCuda) -> dict[str, Any]:
    gpu.operands.clear()
    there, waits = train(job, CUDA, gpu)
    operands = {name: sorted(dtypes) for name, dtypes in gpu.operands.items()}
    here, _ = train(job, CPU, gpu)
    return {"gpu": there, "cpu": here, "waits": waits, "operands": operands}


def look_at(gpu: PretendedCuda) -> dict[str, Any]:
    """What the pretended GPU refuses, and where it is waited for."""
    values = torch.arange(6.0).to(CUDA)
    chosen = torch.tensor([1, 4])

    def fill(index: Any, value: Any) -> None:
        values.clone()[index] = value

    calls: Mapping[str, Callable[[], object]] = {
        "a vector of the CPU": lambda: values + torch.ones(6),
        "a number of the CPU": lambda: values + torch.tensor(1.0),
        "joined with a number": lambda: torch.cat([values, torch.ones(1)]),
        "written to the CPU": lambda: torch.ones(6).add_(values),
        "a generator of the CPU": lambda: values.clone().normal_(generator=torch.Generator()),
        "numpy": lambda: values.numpy(),
        "an index for the CPU": lambda: torch.ones(6)[chosen.to(CUDA, non_blocking=True)],
        "item": lambda: values[0].item(),
        "tolist": lambda: values.tolist(),
        "bool": lambda: bool((values > 2).any()),
        "unique": lambda: torch.unique(values),
        "mask": lambda: values[values > 2],
        "list as an index": lambda: values[[0, 1]],
        "index of the CPU": lambda: values[chosen],
        "from numbers": lambda: torch.tensor([1.0, 2.0], device=CUDA),
        "from memory": lambda: torch.ones(6).to(CUDA),
        "from pinned memory": lambda: torch.ones(6).pin_memory().to(CUDA, non_blocking=True),
        "one element": lambda: fill(0, 1.0),
        "a slice": lambda: fill(slice(0, 1), 1.0),
        "a masked value": lambda: fill(values > 2, 0.0),
        "sums": lambda: (values * 2 + torch.arange(6, device=CUDA)).sum(),
        "repeat_interleave": lambda: values.repeat_interleave(values.long()),
        "repeat_interleave of a size": lambda: values.repeat_interleave(
            values.long(), output_size=15
        ),
    }
    found: dict[str, int | str] = {}
    for name, call in calls.items():
        before = gpu.waits.total()
        try:
            call()
            found[name] = gpu.waits.total() - before
        except (RuntimeError, TypeError):
            found[name] = "refused"
    with torch.autocast("cuda", torch.bfloat16):
        product = values.unsqueeze(0) @ values.unsqueeze(1)
    return {**found, "dtype under autocast": str(product.dtype)}


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    with pretended_cuda() as gpu:
        (folder / "device.result").write_text(json.dumps(look_at(gpu)))
        for path in sorted(folder.glob("*.json")):
            try:
                found = check(build_train_job(json.loads(path.read_text())), gpu)
            except Exception:
                found = {"error": traceback.format_exc()}
            path.with_suffix(".result").write_text(json.dumps(found))
