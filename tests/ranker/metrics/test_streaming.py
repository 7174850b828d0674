import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ranker.metrics.auc import auc
from ranker.metrics.calibration import pcoc
from ranker.metrics.streaming import StreamedMetrics, auc_of_bins, read_all

CPU = torch.device("cpu")


def rows(size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(seed)
    labels = generator.random(size) < 0.2
    logits = generator.normal(size=size) + labels - 2
    weights = torch.from_numpy(generator.integers(0, 3, size)).float()
    return torch.from_numpy(logits).float(), torch.from_numpy(labels).float(), weights


@pytest.mark.parametrize("num_bins", [1, 7, 300, 1 << 15])
def test_the_exact_auc_is_within_the_bound(num_bins: int) -> None:
    logits, labels, weights = rows(5000)
    metrics = StreamedMetrics(num_bins=num_bins, device=CPU)
    # in pieces, as batches come
    for part in range(0, 5000, 700):
        piece = slice(part, part + 700)
        metrics.add(logits[piece], labels[piece], weights[piece])
    found = metrics.read()
    exact = float(auc(logits.numpy(), labels.numpy(), weights.numpy()))
    assert abs(found["auc"] - exact) <= found["auc_error_bound"] + 1e-12
    chance = logits.double().sigmoid().numpy()
    expected = float(pcoc(chance, labels.numpy(), weights.numpy()))
    assert found["pcoc"] == pytest.approx(expected, rel=1e-9)
    if num_bins == 1:
        assert found["auc"] == found["auc_error_bound"] == 0.5
    if num_bins == 1 << 15:
        assert found["auc_error_bound"] < 2e-4


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 2)), min_size=2),
    st.integers(1, 5),
)
def test_the_bound_holds_with_ties_and_few_rows(
    drawn: list[tuple[int, bool, int]], num_bins: int
) -> None:
    logits, labels, weights = (torch.tensor(column).float() for column in zip(*drawn, strict=True))
    metrics = StreamedMetrics(num_bins=num_bins, device=CPU)
    metrics.add(logits, labels, weights)
    exact = auc(logits.numpy(), labels.numpy(), weights.numpy())
    found = metrics.read()
    assert ("auc" in found) == (exact.value is not None)
    if exact.value is not None:
        assert abs(found["auc"] - exact.value) <= found["auc_error_bound"] + 1e-12


def test_rows_that_wait_are_counted_together_and_are_no_longer_the_callers() -> None:
    apart, together = StreamedMetrics(device=CPU), StreamedMetrics(device=CPU)
    for seed in range(3):
        logits, labels, weights = (column.double() for column in rows(30_000, seed))
        together.add(logits, labels, weights)
        for part in range(0, 30_000, 7000):
            pieces = [column[part : part + 7000].clone() for column in (logits, labels, weights)]
            apart.add(*pieces)
            for piece in pieces:
                piece.fill_(1)
        assert sum(len(waiting) for waiting, _, _ in apart._waiting) < 1 << 15
    found, expected = apart.read(), together.read()
    assert found.pop("pcoc") == pytest.approx(expected.pop("pcoc"), rel=1e-12)
    assert found == expected
    assert not apart._waiting


def test_reading_begins_anew() -> None:
    metrics = StreamedMetrics(device=CPU)
    metrics.add(*rows(100))
    assert "auc" in metrics.read()
    assert metrics.read() == {}
    metrics.add(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0]), torch.ones(2))
    # one class has no AUC, but predictions that can be counted
    assert metrics.read().keys() == {"pcoc"}


def test_what_is_not_finite_or_far_out_breaks_nothing() -> None:
    metrics = StreamedMetrics(num_bins=10, device=CPU)
    logits = torch.tensor([float("nan"), float("inf"), -1e30, 1e30, 0.0])
    metrics.add(logits, torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0]), torch.ones(5))
    assert metrics.read()["auc"] == 1.0


def test_tasks_by_name() -> None:
    tasks = {"ctr": StreamedMetrics(device=CPU), "cvr": StreamedMetrics(device=CPU)}
    tasks["ctr"].add(*rows(100))
    assert read_all(tasks).keys() == {"ctr.auc", "ctr.auc_error_bound", "ctr.pcoc"}


def test_by_hand() -> None:
    found = auc_of_bins(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 3.0]))
    assert found is not None
    # of 12 pairs 6 are right for sure, 5 are inside a bin
    assert found.value == (6 + 2.5) / 12
    assert found.error_bound == 2.5 / 12
    assert auc_of_bins(torch.zeros(2), torch.ones(2)) is None


def test_refuses_no_bins() -> None:
    with pytest.raises(ValueError, match="num_bins is 0"):
        StreamedMetrics(num_bins=0, device=CPU)
