from typing import Any

from ranker.report.cards import GAUGE_WIDTH, headline_cards, metric_rows

NAMES = (
    "auc",
    "gauc",
    "normalized_entropy",
    "pcoc",
    "logloss",
    "relative_information_gain",
    "expected_calibration_error",
    "brier",
    "average_precision",
)


def metric(value: float | None, low: float | None = None) -> dict[str, Any]:
    interval = None
    if value is not None and low is not None:
        interval = {"low": low, "high": 2 * value - low, "level": 0.9, "reason": None}
    reason = "no rows" if value is None else None
    return {"value": value, "reason": reason, "interval": interval}


def task(value: float | None, low: float | None = None) -> dict[str, Any]:
    metrics = {name: metric(value, low) for name in NAMES}
    metrics["gauc"] |= {
        "uniform": metric(value),
        "positive_weighted": metric(value),
        "num_groups": 40,
        "skipped_groups_fraction": 0.25,
        "skipped_rows_fraction": 0.1,
    }
    if value is not None:
        metrics["auc"]["delong"] = {"low": 0.1, "high": 0.2, "level": 0.9, "reason": None}
    return {"metrics": metrics, "bayes": None, "more": {"ndcg_at_10": metric(0.5)}}


def test_cards_show_value_interval_and_gauge() -> None:
    cards = {card.title: card for card in headline_cards(task(0.75, 0.7))}
    assert list(cards) == ["AUC", "GAUC", "Normalised entropy", "PCOC"]
    auc = cards["AUC"]
    assert (auc.value, auc.interval) == ("0.7500", "90% interval 0.7000 to 0.8000")
    assert auc.gauge is not None
    assert auc.gauge.value == GAUGE_WIDTH / 2
    assert (auc.gauge.mark, auc.gauge.best) == (0, None)
    assert cards["GAUC"].note == "75.0% of 40 groups have both classes, 90.0% of the rows"


def test_gauge_grows_to_hold_the_value_and_the_best() -> None:
    far = task(0.3)
    far["bayes"] = {"auc": metric(0.9)}
    gauge = headline_cards(far)[0].gauge
    assert gauge is not None
    assert (gauge.left, gauge.value, gauge.low) == ("0.3", 0.0, None)
    assert gauge.best == round(0.6 / 0.7 * GAUGE_WIDTH, 1)


def test_undefined_cards_and_rows_say_why() -> None:
    card = headline_cards(task(None))[0]
    assert (card.value, card.interval, card.gauge) == ("n/a", "no rows", None)
    row = metric_rows(task(None))[0]
    assert (row.value, row.reason, row.interval) == ("n/a", "no rows", "")


def test_variants_follow_their_metric() -> None:
    titles = [row.title for row in metric_rows(task(0.75, 0.7))]
    assert titles[:5] == ["AUC", "AUC, DeLong", "GAUC", "GAUC, uniform", "GAUC, by positives"]
    assert len(titles) == len(NAMES) + 4
    assert titles[-1] == "ndcg_at_10"
    assert "AUC, DeLong" not in [row.title for row in metric_rows(task(None))]
