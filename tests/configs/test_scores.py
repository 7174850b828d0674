"""In evaluation a row's score is its own, whatever its batch and the order of the rows."""

from collections.abc import Callable

import pytest
import torch

from ranker.distributed import Process
from ranker.job import TrainJob
from ranker.train_module import TrainModule

ALONE = Process(0, 1, torch.device("cpu"))
MakeJob = Callable[..., TrainJob]


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
    return module.double().eval()


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


@pytest.mark.parametrize("experiment", ["synthetic_mmoe", "synthetic_ple"])
def test_a_row_has_its_own_score(make_job: MakeJob, experiment: str) -> None:
    module = build_module(make_job(f"experiment={experiment}"))
    expected, found = (
        score(make_job(f"experiment={experiment}", f"loader.batch_size={size}"), module, shuffle)
        for size, shuffle in ((500, False), (170, True))
    )
    # shuffled training batches leave out the rows that do not fill the last one
    rows = torch.isin(expected["sample_id"], found["sample_id"])
    assert rows.sum() == len(found["sample_id"]) > 500
    assert expected["ctr"].std() > 0.01
    for name, values in found.items():
        torch.testing.assert_close(values, expected[name][rows], rtol=1e-7, atol=1e-7)
