"""A model whose encoders search: what is looked up, and what learns."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from ranker.config import build_train_job, to_plain
from ranker.model import RankingModel
from ranker_data.batch import RankingBatch
from ranker_data.loader import LoaderOptions, RankingLoader

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def make_model(
    data: Path, *overrides: str, batch_size: int = 64
) -> tuple[RankingModel, RankingBatch]:
    arguments = ["dataset=prepared", f"dataset.path={data}", "name=x", *overrides]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        job = build_train_job(to_plain(compose("train", arguments)))
    loader = RankingLoader(
        root=data,
        schema=job.schema,
        split="train",
        options=LoaderOptions(batch_size=batch_size, max_length=20, num_streams=4),
        seed=0,
        shuffle=True,
        rank=0,
        world_size=1,
    )
    torch.manual_seed(5)
    model = RankingModel(
        schema=job.schema, embedding=job.embedding, sequence=job.sequence, head=job.head
    )
    model.embedding.to_empty(device="cpu")
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model, next(loader.batches())


def logits_of(model: RankingModel, batch: RankingBatch) -> Tensor:
    logits, _ = model(batch)
    return torch.stack(list(logits.values()))


def table_of(model: RankingModel, table: str) -> Tensor:
    (weight,) = [p for name, p in model.named_parameters() if name.endswith(f"{table}.weight")]
    return weight


@pytest.mark.parametrize("sequence", ["[twin]", "[din,twin]"])
def test_tables_learn_from_candidates_and_selected_behaviors_alone(
    tiny_dataset: Path, sequence: str
) -> None:
    overrides = [f"sequence={sequence}", "sequence.twin.k=2"]
    if "din" in sequence:
        overrides.append("sequence.din.max_length=1")
    model, batch = make_model(tiny_dataset, *overrides, batch_size=6)
    logits_of(model, batch).sum().backward()  # type: ignore[no-untyped-call]
    behaviors = batch.ids["behavior.item_id"].values()
    found = model.search(batch)
    selected = found.batch.ids["behavior.item_id"].values()
    index = found.index["twin"]
    assert int(index.max()) < len(selected) < len(behaviors)
    grad = table_of(model, "item_id").grad
    assert grad is not None
    learned = set(grad.abs().sum(1).nonzero()[:, 0].tolist())
    seen = set(selected.tolist())
    if "din" not in sequence:
        # nothing is looked up with gradient but what the search found
        assert seen == set(selected[index[index >= 0]].tolist())
    assert learned == seen | set(batch.ids["item_id"].values().tolist())
    assert learned < set(behaviors.tolist()) | set(batch.ids["item_id"].values().tolist())


def test_encoders_without_a_search_see_the_same_beside_one(tiny_dataset: Path) -> None:
    names = ("din", "mean_pool")
    short = "sequence.din.max_length=3"
    model, batch = make_model(tiny_dataset, "sequence=[din,mean_pool,twin]", short)
    alone, _ = make_model(tiny_dataset, "sequence=[din,mean_pool]", short)
    alone.embedding.load_state_dict(model.embedding.state_dict())
    outputs: dict[str, list[Tensor]] = {name: [] for name in names}
    for owner in (model, alone):
        for name in names:
            encoder = owner.body.encoders[name]
            encoder.load_state_dict(model.body.encoders[name].state_dict())
            encoder.register_forward_hook(lambda *seen, to=outputs[name]: to.append(seen[2]))
        owner(batch)
    for beside, by_itself in outputs.values():
        torch.testing.assert_close(beside, by_itself)


def test_scores_do_not_depend_on_gradients(tiny_dataset: Path) -> None:
    model, batch = make_model(tiny_dataset, "sequence=[twin]", "sequence.twin.k=3")
    expected = logits_of(model, batch)
    with torch.no_grad():
        torch.testing.assert_close(logits_of(model.eval(), batch), expected, rtol=0, atol=0)
