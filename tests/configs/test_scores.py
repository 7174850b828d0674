"""In evaluation a row's score is its own, whatever its batch and the order of the rows."""

from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest
import torch
from torchrec import JaggedTensor

from ranker.distributed import Process
from ranker.job import TrainJob
from ranker.train_module import TrainModule

ALONE = Process(0, 1, torch.device("cpu"))
MakeJob = Callable[..., TrainJob]

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
ENCODERS, INTERACTIONS, HEADS = (
    sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))
    for group in ("sequence", "interaction", "head")
)
# every encoder, each with an interaction and a head in turn; there are fewer of those
COMBINATIONS = list(zip(ENCODERS, cycle(INTERACTIONS), cycle(HEADS), strict=False))
# what a config needs to be told
NEEDED = {
    **{head: ["head.towers.predict=[ctr,like]"] for head in HEADS},
    "esmm": [],
    "single_task": [],
    # of up to twenty behaviours the searches keep four
    "twin": ["sequence.twin.k=4"],
    "sim_soft": ["sequence.sim_soft.k=4"],
    "sim_hard": ["sequence.sim_hard.k=4"],
    "eta": ["sequence.eta.k=4"],
    "din": ["sequence.din.max_positions=5", "sequence.din.time_buckets=20"],
}


def test_every_component_is_in_a_combination() -> None:
    encoders, interactions, heads = (set(names) for names in zip(*COMBINATIONS, strict=True))
    assert (encoders, interactions, heads) == (set(ENCODERS), set(INTERACTIONS), set(HEADS))


def build_module(job: TrainJob) -> TrainModule:
    """Returns the model with random weights everywhere, its tables unsharded."""
    torch.manual_seed(0)
    module = job.build_module().to_empty(device="cpu")
    fresh = job.build_module()
    buffers = dict(fresh.named_buffers())
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            buffer.copy_(buffers[name])
        for parameter in module.parameters():
            parameter.normal_(0, 0.2)
    # in double, so that sums in another order are no excuse
    module.double().eval()
    module.model.embedding.register_forward_hook(lambda *call: widen(call[2]))
    return module


def widen(embedded: list[dict[str, JaggedTensor]]) -> list[dict[str, JaggedTensor]]:
    """Collections return float32 whatever their tables are."""
    return [
        {
            key: JaggedTensor(values=value.values().double(), lengths=value.lengths())
            for key, value in collection.items()
        }
        for collection in embedded
    ]


def score(job: TrainJob, module: TrainModule, shuffle: bool) -> dict[str, torch.Tensor]:
    """Returns the logits of each task, ordered by sample id."""
    pieces, ids = [], []
    with torch.no_grad():
        for batch in job.build_loader("train", ALONE, shuffle=shuffle).batches():
            pieces.append(module.model(batch)[0])
            ids.append(batch.sample_id)
    sample_ids = torch.cat(ids)
    order = sample_ids.argsort()
    scores = {name: torch.cat([piece[name] for piece in pieces])[order] for name in pieces[0]}
    return {"sample_id": sample_ids[order].double(), **scores}


def check_scores(make_job: MakeJob, *overrides: str) -> None:
    """Compares the scores of rows in large batches with those in small ones of another order."""
    module = build_module(make_job(*overrides))
    expected, found = (
        score(make_job(*overrides, f"loader.batch_size={size}"), module, shuffle)
        for size, shuffle in ((500, False), (170, True))
    )
    # shuffled training batches leave out the rows that do not fill the last one
    rows = torch.isin(expected["sample_id"], found["sample_id"])
    assert rows.sum() == len(found["sample_id"]) > 500
    for name, values in found.items():
        assert values.std() > 0.001, name
        torch.testing.assert_close(values, expected[name][rows], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("experiment", ["synthetic_ple", "synthetic_twin_mmoe"])
def test_a_row_has_its_own_score(make_job: MakeJob, experiment: str) -> None:
    check_scores(make_job, f"experiment={experiment}")


@pytest.mark.parametrize(("encoder", "interaction", "head"), COMBINATIONS)
def test_no_component_mixes_rows(
    make_job: MakeJob, encoder: str, interaction: str, head: str
) -> None:
    check_scores(
        make_job,
        "name=scores",
        f"sequence=[{encoder}]",
        f"interaction={interaction}",
        f"head={head}",
        "gate=epnet",
        "embedding.dim=4",
        "loader.max_length=20",
        *(override for name in (encoder, interaction, head) for override in NEEDED.get(name, ())),
    )
