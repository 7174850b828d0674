import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from ranker.report.predictions import Predictions, TaskPredictions
from ranker_data.simulator.world import WorldConfig
from scripts.claims import soft_auc
from scripts.claims_lifelong import METHODS, WORLD, read_world, render_table, score
from scripts.measured_runs import CONFIGS


@pytest.mark.parametrize("method", METHODS)
def test_a_method_composes(method: str) -> None:
    overrides = [value.format(twin="runs/twin_1") for value in METHODS[method]]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("train", ["experiment=claims/lifelong", "name=x", *overrides])
    encoder = {"din_last_50": "din", "twin_v2": "twin", "twin_v2_scratch": "twin"}
    assert encoder.get(method, method) in config.sequence
    assert ("din" in config.sequence) == (method != "mean_pool")
    if "din" in config.sequence:
        assert config.sequence.din.max_length == 50
    if method != "din_last_50":
        assert config.loader.max_length > WORLD["events_per_user"]


def test_the_world_exists_and_can_be_changed() -> None:
    assert WorldConfig(**WORLD).num_topics == 18
    changed = read_world(["num_users=20", "click_shift=0.5"])
    assert changed == {**WORLD, "num_users": 20, "click_shift": 0.5}
    for change in ("users=3", "num_users", "num_users=", "num_users=0", "num_users=x"):
        with pytest.raises(ValueError, match="num_users"):
            read_world([change])


def predictions(user: list[int], logit: list[float], truth: list[float]) -> Predictions:
    count = len(user)
    zeros = np.zeros(count, np.int64)
    return Predictions(
        sample_id=np.arange(count),
        user=np.array(user),
        request=zeros,
        group=np.array(user),
        time=zeros,
        domain=zeros,
        weight=np.ones(count),
        tasks={
            "ctr": TaskPredictions(
                logit=np.array(logit, np.float32),
                probability=np.zeros(count, np.float32),
                label=np.zeros(count, np.float32),
                truth=np.array(truth),
            )
        },
    )


def test_gauc_is_the_mean_over_users_by_their_rows() -> None:
    user, logit = [7, 3, 7, 3, 7, 9], [0.1, 0.2, 0.5, 0.9, 0.3, 0.0]
    truth = [0.2, 0.9, 0.7, 0.1, 0.1, 0.5]
    found = score(predictions(user, logit, truth))
    value = np.array(logit, np.float32)
    seven = soft_auc(value[[0, 2, 4]], np.array([0.2, 0.7, 0.1]))
    three = soft_auc(value[[1, 3]], np.array([0.9, 0.1]))
    # of user 9 there is one row, which has no order
    assert found["gauc"] == pytest.approx((3 * seven + 2 * three) / 5)
    assert found["auc"] == pytest.approx(soft_auc(value, np.array(truth)))


def test_the_table_has_paired_differences_and_shares_of_the_gain() -> None:
    gauc = {
        "din_last_50": [0.70, 0.72],
        "full_attention": [0.80, 0.82],
        "twin": [0.79, 0.83],
        "sdim": [0.75, 0.77],
    }
    results = {
        f"{name}|{seed}": {"gauc": values[seed - 1], "auc": 0.5}
        for name, values in gauc.items()
        for seed in (1, 2)
    }
    results["twin|1"]["hit rate"] = results["twin|2"]["hit rate"] = 1.0
    for seed, gauc_searched in ((1, 0.79), (2, 0.81)):
        results[f"full_attention|{seed}"] |= {"searched gauc": gauc_searched, "searched auc": 0.6}
    lines = render_table(results, [*gauc, "eta"], [1, 2]).splitlines()
    # what has not been measured is left out
    assert len(lines) == 3 + 5
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[3:]]
    cells = {row[0]: row for row in rows}
    assert cells["twin"][1:3] == ["0.8100", "0.5000"]
    assert cells["twin"][3] == ""
    assert cells["twin"][4].startswith("+1.0000 [")
    assert cells["twin"][-1] == "100.0%"
    assert cells["searched full_attention"][1:3] == ["0.8000", "0.6000"]
    assert cells["searched full_attention"][4] == "+0.9000 [+0.9000, +0.9000]"
    # no share of a gain for what the gain is measured between
    assert cells["full_attention"][4] == "" != cells["full_attention"][5]
    assert cells["din_last_50"][4:6] == ["", ""]
    assert cells["sdim"][3].startswith("-0.0500 [")
    assert cells["sdim"][4] == "+0.5000 [+0.5000, +0.5000]"
    # 0.05 of 0.09 and 0.05 of 0.11
    assert cells["sdim"][5].startswith("+0.5051 [")
