"""Every part of a model on a GPU, on machines without one: see `pretended_cuda.py`."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ranker.job import TrainJob

HERE = Path(__file__).parent
CONFIGS = HERE.parents[1] / "configs"


def names_in(folder: str, pattern: str = "*") -> list[str]:
    return sorted(path.stem for path in (CONFIGS / folder).glob(f"{pattern}.yaml"))


SMALL = ["dataset=synthetic", "embedding.dim=4", "loader.max_length=10"]
TASKS = "[ctr,like,long_view]"
THREE = [
    *SMALL,
    "sequence=[mean_pool]",
    "head=shared_bottom",
    "head.bottom_units=[8]",
    "head.towers.hidden_units=[4]",
    f"head.towers.predict={TASKS}",
]
PRIORITY = [*THREE, "objective=lagrangian", f"objective.priority={TASKS}"]
BALANCED = [*THREE, f"objective.tasks={TASKS}"]
JOBS = {
    **{name: [f"experiment={name}"] for name in names_in("experiment", "synthetic_*")},
    **{
        f"interaction_{name}": [*SMALL, "sequence=[mean_pool]", f"interaction={name}"]
        for name in names_in("interaction")
    },
    **{
        name: [*BALANCED, f"objective={name}"]
        for name in ("uncertainty", "gradnorm", "pareto_efficient")
    },
    "dwa": [*BALANCED, "objective=dwa", "objective.window_steps=1"],
    "pcgrad": [*BALANCED, "objective=gramian_weights", "objective.method=pcgrad"],
    "encoders": [*SMALL, f"sequence=[{','.join(names_in('sequence'))}]"],
    "encoders_bf16": [
        *SMALL,
        f"sequence=[{','.join(names_in('sequence'))}]",
        "trainer.precision=bf16",
    ],
    "din_dice_clipped": [
        *SMALL,
        "sequence.din.activation=dice",
        "sequence.din.max_positions=5",
        "sequence.din.time_buckets=8",
        "optimizer.max_grad_norm=1.0",
        "interaction=dcnv2",
    ],
    "din_dice_bf16": [*SMALL, "sequence.din.activation=dice", "trainer.precision=bf16"],
    "twin_cached": [*SMALL, "sequence=[twin]", "sequence.twin.refresh_steps=2"],
    "lagrangian_of_training": [*PRIORITY, "objective.constraints.stream=train"],
    "lagrangian_of_metrics": [
        *PRIORITY,
        "objective.constraints.every_steps=1",
        "+objective.constraints.metrics={ctr: auc}",
    ],
    "lagrangian_in_micro_batches": [*PRIORITY, "loader.max_behaviors=120"],
    "ple_bf16": ["experiment=synthetic_ple", "trainer.precision=bf16"],
    "apem_bf16": ["experiment=synthetic_apem", "trainer.precision=bf16"],
    "mba_streamed_bf16": [
        *SMALL,
        "regularizer=[mba,item_contrast]",
        "regularizer.mba.tables=[item]",
        "regularizer.mba.frequencies=null",
        "trainer.precision=bf16",
    ],
}
# modules that make a training step wait for the GPU, and what for; all others never do
WAITS = {
    "ranker.modules.windows": "how many behaviours all windows have, each for itself",
    "ranker.modules.recency": "how many distinct windows there are",
    "ranker.modules.sample_counts": "how many distinct ids the samples have",
    "ranker.modules.window_groups": "how many distinct windows there are, and of what lengths",
    "ranker.sequence.din_outer": "how many pairs a group of windows has",
    "ranker.modules.selection": "how many behaviours an encoder's `where` leaves",
    "ranker_kernels.numbering": "how many distinct ids, and behaviours found, a search has",
    "ranker.objectives.auprc": "how many positive rows there are",
    "ranker.objectives.pareto_efficient": "a solver on the CPU",
    "ranker.objectives.gramian_weights": "a solver on the CPU",
    "ranker.modules.gramian_balancer": "what a solver on the CPU found",
    "ranker.regularizers.mba": "how many distinct ids there are",
    "ranker.regularizers.item_contrast": "how many distinct items there are, and a mask",
}


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes torch believe in a GPU."""
    if torch.version.cuda is not None:
        pytest.skip("this PyTorch is built for CUDA, and cannot be told about another GPU")
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    library = tmp_path_factory.mktemp("stub") / "cuda_stub.so"
    torch_folder = Path(torch.__file__).parent
    libraries = torch_folder / "lib"
    subprocess.run(
        [
            *(compiler, "-std=c++20", "-shared", "-fPIC", "-Wno-attributes"),
            f"-I{torch_folder / 'include'}",
            str(HERE / "cuda_stub.cpp"),
            *("-o", str(library)),
            *(f"-L{libraries}", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{libraries}"),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    return library


@pytest.fixture(scope="module")
def results(
    stub: Path,
    make_job_in: Callable[[Path], Callable[..., TrainJob]],
    tmp_path_factory: pytest.TempPathFactory,
    project_root: Path,
) -> dict[str, Any]:
    """What `train_on_pretended_cuda.py` found of each job."""
    folder = tmp_path_factory.mktemp("devices")
    make_job = make_job_in(folder / "runs")
    for name, overrides in JOBS.items():
        config = make_job(*overrides, f"name={name}").config
        (folder / f"{name}.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, str(HERE / "train_on_pretended_cuda.py"), str(stub), str(folder)],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            "PYTHONPATH": str(project_root),
        },
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.result")}


def test_the_pretended_gpu_refuses_and_waits_like_one(results: dict[str, Any]) -> None:
    assert results["device"] == {
        "a vector of the CPU": "refused",
        "a number of the CPU": 0,
        "joined with a number": "refused",
        "written to the CPU": "refused",
        "a generator of the CPU": "refused",
        "numpy": "refused",
        "an index for the CPU": "refused",
        "item": 1,
        "tolist": 1,
        "bool": 1,
        "unique": 1,
        "mask": 1,
        "list as an index": 1,
        "index of the CPU": 1,
        "from numbers": 1,
        "from memory": 1,
        "from pinned memory": 0,
        "one element": 1,
        "a slice": 0,
        "a masked value": 0,
        "sums": 0,
        "repeat_interleave": 1,
        "repeat_interleave of a size": 0,
        "dtype under autocast": "torch.bfloat16",
    }


@pytest.mark.parametrize("name", JOBS)
def test_it_trains_and_scores_on_a_gpu_as_on_a_cpu(results: dict[str, Any], name: str) -> None:
    found = results[name]
    assert "error" not in found, found["error"]
    # CPUs and GPUs round different operations to bfloat16
    tolerance = 0.05 if name.endswith("bf16") else 1e-4
    expected = pytest.approx(found["cpu"], rel=tolerance, abs=tolerance / 5, nan_ok=True)
    assert found["gpu"] == expected
    assert len(found["gpu"]) > 5


def test_a_step_waits_for_the_gpu_only_where_it_has_to(results: dict[str, Any]) -> None:
    # what a regularizer or a cache does at its own pace is not of the step
    waits = {
        name: [line for line in found.get("waits", ()) if line.split(":")[0] not in WAITS]
        for name, found in results.items()
    }
    assert {name: lines for name, lines in waits.items() if lines} == {}
    named = {line.split(":")[0] for found in results.values() for line in found.get("waits", ())}
    assert named == set(WAITS)


@pytest.mark.parametrize(
    "name", ["synthetic_din", "synthetic_ple", "interaction_dcnv2", "ple_bf16"]
)
def test_most_models_never_wait(results: dict[str, Any], name: str) -> None:
    assert results[name]["waits"] == []


@pytest.mark.parametrize(
    ("name", "ops"),
    [
        ("encoders_bf16", ["din_attention", "search_topk", "target_attention"]),
        ("din_dice_bf16", ["din_attention", "din_moments"]),
    ],
)
def test_bf16_reaches_attention_and_search(
    results: dict[str, Any], name: str, ops: list[str]
) -> None:
    in_steps, in_scores = ["torch.bfloat16"], ["torch.float32"]
    operands = results[name]["operands"]
    # evaluations stay in fp32, and take no moments of a batch
    expected = {op: in_steps + in_scores * (op != "din_moments") for op in ops}
    assert {op: operands[op] for op in ops} == expected
    assert results["encoders"]["operands"]["din_attention"] == in_scores
