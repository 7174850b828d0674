import pytest
import torch

from ranker.heads.single_task import SingleTask
from ranker.slots import HeadInputs


def test_one_logit_per_row() -> None:
    head = SingleTask(input_dim=6, tasks=("ctr", "cvr"), task="cvr", hidden_units=[8, 4])
    features = torch.randn(5, 6)
    logits = head(HeadInputs(features=features, embedded=features))
    assert list(logits) == ["cvr"]
    assert logits["cvr"].shape == (5,)


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"head\.task is 'cvrr'; the data set has the tasks ctr, cvr"
    ):
        SingleTask(input_dim=6, tasks=("ctr", "cvr"), task="cvrr", hidden_units=[4])
