"""How a model is put together: several histories, losses of its own."""

import dataclasses
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from ranker.config import build_train_job, to_plain
from ranker.distributed import Process
from ranker.job import TrainJob
from ranker.slots import RegularizerInputs, SequenceInputs
from ranker.train_module import TrainModule
from ranker_data.batch import RankingBatch
from ranker_data.schema import Schema

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def make_job(data: Path, *overrides: str) -> TrainJob:
    arguments = ["dataset=prepared", f"dataset.path={data}", "name=x", "loader.batch_size=64"]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return build_train_job(
            to_plain(compose("train", [*arguments, "loader.num_streams=4", *overrides]))
        )


def build(job: TrainJob) -> TrainModule:
    torch.manual_seed(0)
    module = job.build_module()
    module.model.embedding.to_empty(device="cpu")
    for parameter in module.model.embedding.parameters():
        nn.init.normal_(parameter)
    return module


def read_batch(job: TrainJob) -> RankingBatch:
    process = Process(0, 1, torch.device("cpu"))
    return next(job.build_loader("train", process, shuffle=True).batches())


class Probe(nn.Module):
    """Keeps what an encoder sees."""

    max_length: int | None = 3

    def __init__(self, *, query_dim: int, cross_dim: int) -> None:
        super().__init__()
        self.output_dim = 1
        self.seen: list[SequenceInputs] = []

    def forward(self, inputs: SequenceInputs) -> Tensor:
        self.seen.append(inputs)
        if self.training:
            inputs.losses["probe"] = inputs.query.sum() * 0 + 2
        return inputs.query[:, :1]


def times_of(inputs: SequenceInputs) -> list[list[int]]:
    return [inputs.behavior_time[b:e].tolist() for b, e in inputs.windows.tolist()]


@pytest.mark.parametrize("beside", [[], ["twin"]])
def test_an_encoder_sees_the_kind_of_behaviour_it_asks_for(
    tiny_dataset: Path, beside: list[str]
) -> None:
    # beside an encoder that searches, behaviours are left out of the batch
    job = make_job(tiny_dataset, f"sequence={beside or '[mean_pool]'}".replace("'", ""))
    where = {"events": {"event": [2, 3]}}
    job = dataclasses.replace(
        job, sequence={**job.sequence, "all": Probe, "events": Probe}, where=where
    )
    batch = read_batch(job)
    module = build(job)
    module.model(batch)
    events = batch.ids["behavior.event"].values()
    expected = []
    for begin, end in batch.windows.tolist():
        chosen = [j for j in range(begin, end) if events[j] in (2, 3)]
        expected.append(batch.behavior_time[chosen].tolist())
    probe = module.model.body.encoders["events"]
    assert isinstance(probe, Probe)
    assert times_of(probe.seen[0]) == expected
    assert sum(map(len, expected)) > 50
    everything = module.model.body.encoders["all"]
    assert isinstance(everything, Probe)
    latest = [times[-3:] for times in times_of(everything.seen[0])]
    assert latest == [batch.behavior_time[b:e].tolist()[-3:] for b, e in batch.windows.tolist()]


def test_a_selection_is_checked(tiny_dataset: Path) -> None:
    with pytest.raises(ValueError, match=r"sequence.din.where names 'evnt'"):
        build(make_job(tiny_dataset, "+sequence.din.where={evnt: [1]}"))
    with pytest.raises(ValueError, match=r"sequence.twin.where: an encoder that searches"):
        build(make_job(tiny_dataset, "sequence=[twin]", "+sequence.twin.where={event: [1]}"))


class Decay(nn.Module):
    """A regulariser that keeps what it sees."""

    def __init__(self, *, schema: Schema, items: object) -> None:
        super().__init__()
        self.seen: list[RegularizerInputs] = []

    def forward(self, inputs: RegularizerInputs) -> Tensor:
        self.seen.append(inputs)
        return 0.5 * inputs.vectors["item_id"].square().sum()


def test_losses_of_the_model_are_added_in_training_only(tiny_dataset: Path) -> None:
    job = make_job(tiny_dataset)
    job = dataclasses.replace(job, sequence={"probe": Probe}, regularizers={"decay": Decay})
    batch = read_batch(job)
    module = build(job)
    loss, parts, _ = module(batch)
    term = module.model.body.regularizers["decay"]
    assert isinstance(term, Decay)
    (seen,) = term.seen
    weight = dict(module.named_parameters())[
        "model.embedding.collections.0.embeddings.item_id.weight"
    ]
    ids = batch.ids["item_id"].values()
    assert torch.equal(seen.ids["item_id"], ids)
    torch.testing.assert_close(seen.vectors["item_id"], weight[ids])
    assert seen.items.shape == (64, 3 * 16 + 1)
    assert torch.equal(seen.item_ids[:, 0], ids)
    torch.testing.assert_close(parts["decay"], 0.5 * weight[ids].square().sum())
    torch.testing.assert_close(loss, parts["ctr"] + parts["decay"] + 2)
    module.eval()
    loss, parts, _ = module(batch)
    torch.testing.assert_close(loss, parts["ctr"])
    assert set(parts) == {"ctr"}
