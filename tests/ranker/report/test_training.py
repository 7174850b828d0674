from ranker.report.training import MAX_POINTS, training_series


def test_series_by_metric_and_kind() -> None:
    records = [
        {"kind": "train", "step": 10, "loss": 0.5, "samples_per_second": 9.0},
        {"kind": "valid", "step": 10, "ctr.auc": 0.7, "ctr.gauc": 0.6, "cvr.auc": None},
        {"kind": "train", "step": 20, "loss": 0.4, "note": "text"},
        {"kind": "valid", "step": 20, "ctr.auc": 0.8, "cvr.auc": 0.65, "ctr.pcoc": 1.0},
    ]
    assert training_series(records) == {
        "loss": {"train loss": [[10.0, 0.5], [20.0, 0.4]]},
        "auc": {"valid ctr.auc": [[10.0, 0.7], [20.0, 0.8]], "valid cvr.auc": [[20.0, 0.65]]},
        "gauc": {"valid ctr.gauc": [[10.0, 0.6]]},
    }
    assert training_series([]) == {}


def test_numbers_that_json_does_not_know_are_left_out() -> None:
    values = [float("nan"), float("inf"), 0.25]
    records = [{"kind": "train", "step": step, "loss": loss} for step, loss in enumerate(values)]
    assert training_series(records) == {"loss": {"train loss": [[2.0, 0.25]]}}


def test_thinning_keeps_the_mean() -> None:
    records = [{"kind": "train", "step": step, "loss": float(step % 2)} for step in range(4001)]
    points = training_series(records)["loss"]["train loss"]
    assert MAX_POINTS / 2 < len(points) <= MAX_POINTS
    # the first eleven: zeros and ones in turn, from 0
    assert points[0] == [5.0, 5 / 11]


def test_constraints_are_drawn_against_references_that_change_in_steps() -> None:
    reference = "constraint/ctr/reference"
    records = [
        {"kind": "train", "step": 10, "constraint/ctr/loss": 0.5, reference: 0.4},
        {"kind": "train", "step": 20, "constraint/ctr/loss": 0.3, reference: 0.2},
        {"kind": "valid", "step": 20, "held_out/ctr/excess": 0.01, "held_out/ctr/met": 1.0},
    ]
    assert training_series(records) == {
        "constraint ctr": {
            "loss": [[10.0, 0.5], [20.0, 0.3]],
            "reference": [[10.0, 0.4], [20.0, 0.4], [20.0, 0.2]],
        },
        "held-out ctr": {"excess": [[20.0, 0.01]]},
    }
