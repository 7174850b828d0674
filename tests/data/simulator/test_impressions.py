import dataclasses

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ranker_data.simulator.events import concatenate_events, draw_events
from ranker_data.simulator.impressions import Impressions, draw_impressions, integrate_mood, sigmoid
from ranker_data.simulator.users import Users, draw_users
from ranker_data.simulator.world import FloatArray, World, WorldConfig, build_world

CONFIG = WorldConfig(
    num_users=1500, num_items=400, num_categories=20, topics_per_category=2, requests_per_user=12
)


def simulate(config: WorldConfig) -> tuple[World, Users, Impressions]:
    generator = np.random.default_rng(7)
    world = build_world(config)
    users = draw_users(world, config, config.num_users, generator)
    return world, users, draw_impressions(users, world, config, generator)


def z_score(events: np.ndarray[tuple[int], np.dtype[np.int64]], probability: FloatArray) -> float:
    """Distance of the number of events from its expectation, in standard deviations."""
    spread = np.sqrt((probability * (1 - probability)).sum())
    return float((events.sum() - probability.sum()) / spread)


@pytest.fixture(scope="module")
def shown() -> Impressions:
    return simulate(CONFIG)[2]


@pytest.mark.parametrize(
    ("label", "truth"),
    [
        ("click", "p_click"),
        ("conversion", "p_ctcvr"),
        ("like", "p_like"),
        ("long_view", "p_long_view"),
    ],
)
def test_labels_follow_their_true_probabilities(shown: Impressions, label: str, truth: str) -> None:
    probability = getattr(shown, truth)
    events = shown.labels[label]
    assert abs(z_score(events, probability)) < 4
    # in every decile of the truth too, and in every domain
    decile = np.argsort(np.argsort(probability)) * 10 // len(probability)
    for group in (decile, 10 + shown.domain):
        for value in np.unique(group):
            rows = group == value
            assert abs(z_score(events[rows], probability[rows])) < 4


def test_conversion_given_click_follows_its_truth(shown: Impressions) -> None:
    clicked = shown.labels["click"] == 1
    assert abs(z_score(shown.labels["conversion"][clicked], shown.p_conversion[clicked])) < 4
    assert not (shown.labels["conversion"][~clicked]).any()
    np.testing.assert_allclose(shown.p_ctcvr, shown.p_click * shown.p_conversion)


@pytest.mark.parametrize(("confounding", "biased"), [(0.0, False), (1.5, True)])
def test_confounding_biases_the_clicked(confounding: float, biased: bool) -> None:
    _, _, shown = simulate(dataclasses.replace(CONFIG, confounding=confounding))
    clicked = shown.labels["click"] == 1
    excess = z_score(shown.labels["conversion"][clicked], shown.conversion_if_all_clicked[clicked])
    if biased:
        assert excess > 10
    else:
        assert abs(excess) < 4
        np.testing.assert_allclose(shown.p_conversion, shown.conversion_if_all_clicked)


def test_integrate_mood_equals_a_monte_carlo_estimate() -> None:
    click, conversion, strength = np.array([-2.0, 0.5]), np.array([-1.0, -3.0]), 1.5
    mood = strength * np.random.default_rng(0).normal(size=(400_000, 1))
    a, b = sigmoid(click + mood), sigmoid(conversion + mood)
    expected = (a.mean(axis=0), (a * b).mean(axis=0), b.mean(axis=0))
    for found, wanted in zip(integrate_mood(click, conversion, strength), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=5e-3)


def test_conflict_turns_the_tasks_apart() -> None:
    correlations = []
    for conflict in (0.0, 0.5, 1.0):
        _, _, shown = simulate(dataclasses.replace(CONFIG, conflict=conflict))
        correlations.append(np.corrcoef(np.log(shown.p_click), np.log(shown.p_like))[0, 1])
    assert correlations[0] > 0.5
    assert correlations[0] > correlations[1] > correlations[2]
    assert correlations[2] < -0.2


def test_the_truth_ranks_better_than_its_parts(shown: Impressions) -> None:
    click = shown.labels["click"]
    truth = roc_auc_score(click, shown.p_click)
    assert 0.75 < truth < 0.88
    noise = np.random.default_rng(1).normal(size=len(click))
    logit = np.log(shown.p_click / (1 - shown.p_click))
    for worse in (shown.affinity, logit + noise, shown.p_like):
        assert roc_auc_score(click, worse) < truth - 0.01


def test_clicks_depend_on_earlier_behaviour_long_ago_too() -> None:
    world, users, shown = simulate(CONFIG)
    generator = np.random.default_rng(3)
    events = concatenate_events(
        [draw_events(users, world, CONFIG, generator), shown.clicked_events(generator)]
    ).sorted()
    topic = world.item_topic[shown.item]
    dormant = (users.dormant_topic[shown.user] == topic[:, None]).any(axis=1)
    present = (users.topic[shown.user] == topic[:, None]).any(axis=1)
    rate = {
        name: shown.labels["click"][rows].mean()
        for name, rows in {
            "none": ~dormant & ~present,
            "present": present & ~dormant,
            "dormant": dormant & ~present,
        }.items()
    }
    assert rate["dormant"] > 3 * rate["none"]
    assert rate["present"] > 1.5 * rate["none"]
    # the events of dormant topics alone are old
    event_topic = world.item_topic[events.item]
    own = (users.dormant_topic[events.user] == event_topic[:, None]).any(axis=1)
    own &= ~(users.topic[events.user] == event_topic[:, None]).any(axis=1)
    visits = own & (events.kind == 1)
    early = events.second < 0.45 * CONFIG.num_seconds
    assert early[visits].mean() > 0.75 > 0.55 > early[~own].mean()


def test_domains_differ(shown: Impressions) -> None:
    rates = [shown.labels["click"][shown.domain == d].mean() for d in range(CONFIG.num_domains)]
    assert max(rates) > 1.5 * min(rates)
    shares = np.stack(
        [
            np.bincount(shown.item[shown.domain == d], minlength=CONFIG.num_items)
            / (shown.domain == d).sum()
            for d in range(CONFIG.num_domains)
        ]
    )
    # total variation between the items of two domains
    assert 0.5 * np.abs(shares[0] - shares[1]).sum() > 0.15


@pytest.mark.parametrize("contrast", [0.0, 1.0, 3.0])
def test_effects_are_as_far_apart_as_the_contrast_says(contrast: float) -> None:
    world = build_world(dataclasses.replace(CONFIG, domain_contrast=contrast))
    plain = build_world(CONFIG)
    for name in ("affinity_weight", "price_weight", "position_weight"):
        found, expected = getattr(world, name), getattr(plain, name)
        assert found.mean() == pytest.approx(expected.mean())
        assert np.ptp(found) == pytest.approx(contrast * np.ptp(expected))


def test_items_are_popular_by_zipf() -> None:
    world = build_world(CONFIG)
    topic = np.repeat(np.arange(CONFIG.num_topics), 2000)
    items = world.draw_items(topic, np.random.default_rng(0))
    np.testing.assert_array_equal(world.item_topic[items], topic)
    counts = np.bincount(items, minlength=CONFIG.num_items)
    of_first = np.sort(counts[world.item_topic == 0])[::-1]
    assert of_first[0] > 1.6 * of_first[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_users": 0}, r"num_users \(0\) must be at least 1"),
        ({"conflict": 1.5}, r"conflict \(1.5\) must be in \[0, 1\]"),
        ({"confounding": -1.0}, r"confounding \(-1.0\) must be finite and not negative"),
        ({"num_items": 10}, r"num_items \(10\) must be at least num_categories"),
        ({"num_dormant": 0}, r"but num_dormant is 0; set both to 0"),
        ({"num_days": 20}, r"num_days \(20\) must exceed impression_days"),
        ({"valid_fraction": 0.6, "test_fraction": 0.6}, "must leave something for training"),
    ],
)
def test_impossible_worlds_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)  # type: ignore[arg-type]


def test_clicks_can_be_sparse_and_can_be_a_random_sample() -> None:
    base = dataclasses.replace(CONFIG, num_users=300, confounding=0.0)
    rate = simulate(base)[2].p_click.mean()
    sparse = simulate(dataclasses.replace(base, click_shift=-2.6))[2].p_click
    assert sparse.mean() < rate / 3
    assert sparse.std() > 0.02
    chance = simulate(dataclasses.replace(base, click_shift=-3.0, selection=0.0))[2]
    np.testing.assert_allclose(chance.p_click, 1 / (1 + np.exp(3.0)))
    assert chance.p_conversion.std() > 0.1
    rare = simulate(dataclasses.replace(base, conversion_shift=-3.0))[2]
    assert rare.p_conversion.mean() < simulate(base)[2].p_conversion.mean() / 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"click_shift": float("nan")}, "click_shift .nan. must be finite"),
        ({"conversion_shift": float("inf")}, "conversion_shift .inf. must be finite"),
        ({"selection": -1.0}, "selection .-1.0. must be finite and not negative"),
    ],
)
def test_bad_clicks_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WorldConfig(**options)  # type: ignore[arg-type]
