from pathlib import Path
from typing import Any

import pytest

from ranker.sweep.options import SweepOptions


def test_what_follows_from_the_objective() -> None:
    options = SweepOptions(name="x", root="r", objective="cvr.normalized_entropy")
    assert options.directory == Path("r/x")
    assert not options.more_is_better
    assert options.recorded_objective == "cvr.ne"
    assert SweepOptions(name="x", objective="ctr.brier").recorded_objective is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"workers": 0}, "workers is 0"),
        ({"name": "a/b"}, "single folder name"),
        ({"split": "train"}, "must be valid or test"),
        ({"objective": "ctr.f1"}, r"'ctr\.f1' is no task\.metric; the metric is one of auc, gauc"),
        ({"pareto": ["ctr.auc"]}, "pareto has 1 entries"),
    ],
)
def test_bad_options_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SweepOptions(**{"name": "x", **change})
