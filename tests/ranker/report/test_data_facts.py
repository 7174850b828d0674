from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ranker.report.data_facts import describe_rows, describe_training_data
from ranker.report.predictions import Predictions

Make = Callable[..., Predictions]


def test_facts_of_the_rows(make_predictions: Make) -> None:
    predictions = make_predictions(300)
    day = 86_400
    timed = replace(predictions, time=1_700_000_000 + np.arange(300) * day)
    facts = describe_rows(timed, time_unit="s")
    assert facts["rows"] == "300"
    assert facts["time (UTC)"] == "2023-11-14 22:13 to 2024-09-08 22:13"
    assert facts["rows of a request"] == "p50 3, p90 3, p99 3, max 3"
    assert facts["history length"] == "p50 25, p90 45, p99 49, max 49"
    clicks = np.nanmean(timed.tasks["ctr"].label)
    assert facts["label of ctr"] == f"known for 300 rows, {clicks:.2%} positive"
    milliseconds = describe_rows(replace(timed, time=timed.time * 1000), time_unit="ms")
    assert milliseconds == facts
    # a constant time is no time, and a time of another kind stays a number
    assert "time (UTC)" not in describe_rows(replace(timed, time=timed.time * 0), time_unit="s")
    odd = replace(timed, time=np.arange(300) * 10**15)
    assert "299,000,000,000,000,000" in describe_rows(odd, time_unit="s")["time (UTC)"]


def test_facts_of_the_training_rows() -> None:
    stats = {
        "behaviors": {"num_rows": 9, "events_per_user": {"p50": 2, "max": 4}},
        "samples": {
            "train": {
                "num_rows": 1200,
                "num_users": 30,
                "time": {"first": 0, "last": 3600},
                "labels": {"click": {"rate": 0.25}, "buy": {"rate": None}},
            }
        },
    }
    assert describe_training_data(stats, time_unit="s") == {
        "training rows": "1,200 of 30 users",
        "training time (UTC)": "1970-01-01 00:00 to 1970-01-01 01:00",
        "training label click": "25.00% positive",
        "behaviours": "9, of a user p50 2, max 4",
    }
    assert describe_training_data({}, time_unit="s") == {}
