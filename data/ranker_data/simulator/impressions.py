"""Impressions of simulated users with their true probabilities and labels.

    z   = shift + selection (bias_domain + bias_user + R + segment_category + hour_category
          + position_domain + 1.5 c bait)                         logit of the click
    R   = weight_domain (A - 0.4) + 0.5 quality + price_domain age log_price
    v_k = bias_domain_k + 0.5 own_k + 0.7 (1 - c) R + c (own_k + taste_k trait_k)
          - 1.5 c bait (+ shift - 0.4 log_price for conversion)   logit of another task k
    h   ~ N(0, 1) for every impression, in no feature

    p_click             = E_h[sigmoid(z + s h)]
    p_ctcvr             = E_h[sigmoid(z + s h) sigmoid(v_conversion + s h)]
    p_conversion        = p_ctcvr / p_click
    p_like, p_long_view = sigmoid(v_k)

A is the user's affinity to the item's topic at that time, c the conflict, s the confounding.
p_conversion is P(conversion = 1 | click = 1, x), for clicked and unclicked impressions alike. With
s > 0 the clicked impressions are those with a high mood h, so that it exceeds
`conversion_if_all_clicked` = E_h[sigmoid(v_conversion + s h)].
"""

import dataclasses

import numpy as np

from ranker_data.simulator.events import CLICK, PURCHASE, Events, draw_seconds, draw_topics
from ranker_data.simulator.users import Users
from ranker_data.simulator.world import (
    NUM_AGES,
    NUM_DAYPARTS,
    SECONDARY_TASKS,
    FloatArray,
    IntArray,
    World,
    WorldConfig,
    draw_from_rows,
)

# shares of candidates that come from the user's present interests; the rest is popular in the
# domain
_MATCHED_FRACTION = 0.35
_QUADRATURE_NODES = 15
BAIT_WEIGHT = 1.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Impressions:
    """Impressions of a block of users by user, time, request and position.

    Attributes:
        user: [n] number of the user in the block.
        second: [n] since the beginning of the log.
        request: [n] number of the request of the user.
        domain: [n].
        position: [n] place in the request, from 0.
        item: [n].
        affinity: [n] the user's true affinity to the item.
        p_click: [n] true probabilities, and so on.
        labels: label -> [n] of 0 and 1.
    """

    user: IntArray
    second: IntArray
    request: IntArray
    domain: IntArray
    position: IntArray
    item: IntArray
    affinity: FloatArray
    p_click: FloatArray
    p_ctcvr: FloatArray
    p_conversion: FloatArray
    p_like: FloatArray
    p_long_view: FloatArray
    conversion_if_all_clicked: FloatArray
    labels: dict[str, IntArray]

    def clicked_events(self, generator: np.random.Generator) -> Events:
        """Returns the clicks as events, some seconds after their impressions."""
        rows = np.flatnonzero(self.labels["click"])
        long_view = self.labels["long_view"][rows]
        noise = 0.6 * generator.normal(size=len(rows))
        return Events(
            user=self.user[rows],
            second=self.second[rows] + generator.integers(1, 30, size=len(rows)),
            item=self.item[rows],
            kind=np.where(self.labels["conversion"][rows] == 1, PURCHASE, CLICK),
            log_dwell=1.8 + self.affinity[rows] + 1.2 * long_view + noise,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Shown:
    """What is shown to whom, before anybody reacts."""

    user: IntArray
    second: IntArray
    request: IntArray
    domain: IntArray
    position: IntArray
    item: IntArray


def draw_impressions(
    users: Users, world: World, config: WorldConfig, generator: np.random.Generator
) -> Impressions:
    """Draws requests, their candidates, and the users' reactions."""
    shown = _draw_shown(users, world, config, generator)
    topic = world.item_topic[shown.item]
    moment = shown.second / config.num_seconds
    affinity = users.affinity(shown.user, moment, topic, config.topics_per_category)
    relevance = _relevance(users, world, shown, affinity)
    click_logit = _click_logit(users, world, config, shown, relevance)
    task_logits = _task_logits(users, world, config, shown, relevance)
    return _react(shown, affinity, click_logit, task_logits, config.confounding, generator)


def _draw_shown(
    users: Users, world: World, config: WorldConfig, generator: np.random.Generator
) -> _Shown:
    counts = generator.poisson(config.requests_per_user * users.activity)
    user = np.repeat(np.arange(len(counts)), counts)
    first_day = config.num_days - config.impression_days
    second = draw_seconds(first_day, config.impression_days, len(user), generator)
    order = np.lexsort((second, user))
    second = second[order]
    request = np.arange(len(user)) - np.repeat(np.cumsum(counts) - counts, counts)
    log_odds = world.segment_domain[users.segment[user]]
    # the largest of log odds plus Gumbel noise is a draw from the softmax
    domain = np.argmax(log_odds + generator.gumbel(size=log_odds.shape), axis=1)
    size = config.candidates_per_request
    user, second, request, domain = (np.repeat(v, size) for v in (user, second, request, domain))
    topic = _draw_candidate_topics(users, world, config, user, second, domain, generator)
    return _Shown(
        user=user,
        second=second,
        request=request,
        domain=domain,
        position=np.tile(np.arange(size), len(user) // size),
        item=world.draw_items(topic, generator),
    )


def _draw_candidate_topics(
    users: Users,
    world: World,
    config: WorldConfig,
    user: IntArray,
    second: IntArray,
    domain: IntArray,
    generator: np.random.Generator,
) -> IntArray:
    popular = draw_from_rows(world.domain_topic_cdf, domain, generator)
    matched, _ = draw_topics(users, world, user, second / config.num_seconds, generator)
    source = generator.random(len(user))
    topic = np.where(source < _MATCHED_FRACTION, matched, popular)
    if config.num_dormant:
        slot = generator.integers(config.num_dormant, size=len(user))
        returns = source >= 1.0 - config.dormant_fraction
        topic = np.where(returns, users.dormant_topic[user, slot], topic)
    return topic


def _relevance(users: Users, world: World, shown: _Shown, affinity: FloatArray) -> FloatArray:
    # from -1 for the youngest to 1 for the oldest
    age = 2.0 * users.age[shown.user] / (NUM_AGES - 1) - 1.0
    price = world.price_weight[shown.domain] * -age * world.log_price[shown.item]
    return (
        world.affinity_weight[shown.domain] * (affinity - 0.4)
        + 0.5 * world.quality[shown.item]
        + price
    )


def _click_logit(
    users: Users, world: World, config: WorldConfig, shown: _Shown, relevance: FloatArray
) -> FloatArray:
    category = world.item_topic[shown.item] // config.topics_per_category
    daypart = hour_of(shown.second) * NUM_DAYPARTS // 24
    return config.click_shift + config.selection * (
        world.click_bias[shown.domain]
        + users.click_bias[shown.user]
        + relevance
        + world.segment_category[users.segment[shown.user], category]
        + world.daypart_category[daypart, category]
        + world.position_weight[shown.domain] * shown.position
        + BAIT_WEIGHT * config.conflict * world.bait[shown.item]
    )


def _task_logits(
    users: Users, world: World, config: WorldConfig, shown: _Shown, relevance: FloatArray
) -> FloatArray:
    """Returns [n, tasks]."""
    conflict = config.conflict
    own_quality = world.own_quality[shown.item]
    own = own_quality + users.taste[shown.user] * world.own_trait[shown.item]
    shared = 0.7 * (1.0 - conflict) * relevance - BAIT_WEIGHT * conflict * world.bait[shown.item]
    logits = world.task_bias[shown.domain] + 0.5 * own_quality + conflict * own + shared[:, None]
    own_shift = config.conversion_shift - 0.4 * world.log_price[shown.item]
    logits[:, SECONDARY_TASKS.index("conversion")] += own_shift
    return logits


def hour_of(second: IntArray) -> IntArray:
    """Returns the hour of the day, from 0 to 23."""
    return second // 3600 % 24


def _react(
    shown: _Shown,
    affinity: FloatArray,
    click_logit: FloatArray,
    task_logits: FloatArray,
    confounding: float,
    generator: np.random.Generator,
) -> Impressions:
    """Draws the labels and computes their true probabilities."""
    count = len(click_logit)
    conversion_logit, like_logit, long_view_logit = task_logits.T
    mood = confounding * generator.normal(size=count)
    clicks = generator.random(count) < sigmoid(click_logit + mood)
    converts = generator.random(count) < sigmoid(conversion_logit + mood)
    p_like, p_long_view = sigmoid(like_logit), sigmoid(long_view_logit)
    p_click, p_ctcvr, if_all_clicked = integrate_mood(click_logit, conversion_logit, confounding)
    labels = {
        "click": clicks,
        "conversion": clicks & converts,
        "like": generator.random(count) < p_like,
        "long_view": generator.random(count) < p_long_view,
    }
    return Impressions(
        **vars(shown),
        affinity=affinity,
        p_click=p_click,
        p_ctcvr=p_ctcvr,
        p_conversion=p_ctcvr / p_click,
        p_like=p_like,
        p_long_view=p_long_view,
        conversion_if_all_clicked=if_all_clicked,
        labels={name: value.astype(np.int64) for name, value in labels.items()},
    )


def integrate_mood(
    click_logit: FloatArray, conversion_logit: FloatArray, confounding: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Returns p_click, p_ctcvr and the conversion rate if all were clicked, each [n].

    The integral over the mood is a Gauss-Hermite quadrature.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(_QUADRATURE_NODES)
    weights = weights / weights.sum()
    p_click, p_ctcvr, p_conversion = (np.zeros_like(click_logit) for _ in range(3))
    for node, weight in zip(nodes, weights, strict=True):
        click = sigmoid(click_logit + confounding * node)
        conversion = sigmoid(conversion_logit + confounding * node)
        p_click += weight * click
        p_conversion += weight * conversion
        p_ctcvr += weight * click * conversion
    return p_click, p_ctcvr, p_conversion


def sigmoid(logit: FloatArray) -> FloatArray:
    """Returns 1 / (1 + exp(-logit)) without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * logit))
