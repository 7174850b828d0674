"""Every encoder in configs/sequence, built and run on a batch, alone and side by side."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from ranker.config import build_train_job, to_plain
from ranker.job import TrainJob
from ranker.model import RankingModel
from ranker.slots import SequenceInputs
from ranker_data.batch import RankingBatch
from ranker_data.clustering.events import ClusteringOptions
from ranker_data.clustering.prepare import cluster_histories
from ranker_data.loader import LoaderOptions, RankingLoader
from ranker_data.preparation.summary import write_stats
from ranker_data.schema import read_schema

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
NAMES = sorted(path.stem for path in (CONFIGS / "sequence").glob("*.yaml"))


def make_job(data: Path, sequence: str) -> TrainJob:
    arguments = ["dataset=prepared", f"dataset.path={data}", f"sequence={sequence}", "name=x"]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return build_train_job(to_plain(compose("train", arguments)))


def read_batch(data: Path, job: TrainJob) -> RankingBatch:
    loader = RankingLoader(
        root=data,
        schema=job.schema,
        split="train",
        options=LoaderOptions(batch_size=64, max_length=20, num_streams=4),
        seed=0,
        shuffle=True,
        rank=0,
        world_size=1,
    )
    return next(loader.batches())


def build(job: TrainJob, **changes: object) -> RankingModel:
    job = dataclasses.replace(job, **changes)  # type: ignore[arg-type]
    model = RankingModel(
        schema=job.schema, embedding=job.embedding, sequence=job.sequence, head=job.head
    )
    model.embedding.to_empty(device="cpu")
    for parameter in model.embedding.parameters():
        nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize("sequence", [f"[{name}]" for name in NAMES] + ["[din,twin]"])
def test_the_encoder_builds_runs_and_learns(tiny_dataset: Path, sequence: str) -> None:
    job = make_job(tiny_dataset, sequence)
    model = build(job)
    logits, _ = model(read_batch(tiny_dataset, job))
    assert all(logit.isfinite().all() for logit in logits.values())
    sum(logit.sum() for logit in logits.values()).backward()
    for name, parameter in model.body.encoders.named_parameters():
        assert parameter.grad is not None, name


class Probe(nn.Module):
    """Keeps what an encoder sees."""

    def __init__(self, *, query_dim: int, cross_dim: int) -> None:
        super().__init__()
        self.output_dim = 1
        self.cross_dim = cross_dim
        self.seen: SequenceInputs | None = None

    def forward(self, inputs: SequenceInputs) -> Tensor:
        self.seen = inputs
        return inputs.query[:, :1]


def see(data: Path) -> SequenceInputs:
    job = make_job(data, "[twin]")
    model = build(job, sequence={"probe": Probe})
    model(read_batch(data, job))
    probe = model.body.encoders["probe"]
    assert isinstance(probe, Probe)
    assert probe.seen is not None
    assert probe.seen.cross.shape[1] == probe.cross_dim
    return probe.seen


def test_the_size_of_clusters_is_a_weight_and_no_feature(
    make_tiny_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    source, clustered = make_tiny_dataset(tmp_path / "source"), tmp_path / "clustered"
    write_stats(
        source,
        read_schema(source),
        digest="tiny",
        num_parts=4,
        checks=[],
        wanted_splits=[],
        split_in_time=False,
    )
    vectors = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    options = ClusteringOptions(field="item_id", max_size=4)
    cluster_histories(source, clustered, vectors, options)
    before, after = see(source), see(clustered)
    assert before.log_size is None
    assert after.log_size is not None
    sizes = after.log_size.exp()
    torch.testing.assert_close(sizes, sizes.round())
    assert sizes.min() == 1
    assert 1 < sizes.max() <= 4
    assert before.cross.shape[1] == after.cross.shape[1]
