"""What a simulated world has before its users: items, topics, domains and their effects."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

NUM_SEGMENTS = 8
NUM_AGES = 6
NUM_DAYPARTS = 4
# tasks besides the click, in the order of every array with a task axis
SECONDARY_TASKS = ("conversion", "like", "long_view")

SECONDS_PER_DAY = 86_400
START_TIME = 1_704_067_200


_COUNTS = ("num_users", "num_categories", "topics_per_category", "num_domains")
_SIZES = ("candidates_per_request", "impression_days", "num_interests")
_AMOUNTS = (
    "events_per_user",
    "requests_per_user",
    "num_dormant",
    "confounding",
    "selection",
    "domain_contrast",
)
_SHARES = ("dormant_fraction", "conflict", "valid_fraction", "test_fraction")
_RANGES: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (_COUNTS + _SIZES, lambda value: value < 1, "be at least 1"),
    (_AMOUNTS, lambda value: not 0 <= value < math.inf, "be finite and not negative"),
    (_SHARES, lambda value: not 0 <= value <= 1, "be in [0, 1]"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """Size and character of a simulated world.

    Attributes:
        seed: of everything that is drawn.
        num_users: users.
        num_items: items; their popularity within a topic follows Zipf's law.
        num_categories: categories, which are visible.
        topics_per_category: topics a category hides; interests are in topics, so that 1 makes the
            category tell all and a larger number leaves something that only the item ids tell.
        num_domains: scenarios with their own traffic, click rates and effects.
        domain_contrast: how much the effects of affinity, price and place differ between domains:
            their distances to the mean of the domains are multiplied by it.
        events_per_user: mean number of events that a user brings along, besides clicks on
            impressions.
        requests_per_user: mean number of requests in the impression period.
        candidates_per_request: impressions of a request.
        num_days: length of the whole log.
        impression_days: the last days, in which there are impressions.
        num_interests: interests of a user that come and go slowly.
        num_dormant: interests of a user that had one burst of events long ago, have been silent
            since, and still hold.
        dormant_fraction: fraction of the impressions that show an item of a dormant interest.
        confounding: strength of a hidden mood that raises click and conversion together; 0 turns it
            off.
        conflict: from 0 (the other tasks want what the click wants) to 1 (they want other things,
            and bait, which draws clicks, repels them).
        click_shift: added to the log odds of every click; negative values make clicks sparse.
        conversion_shift: likewise, of every conversion.
        selection: how much clicks depend on who sees what; 0 makes all clicks equally likely, so
            that clicked impressions are a random sample of all (with confounding 0).
        valid_fraction: share of the impression period for validation.
        test_fraction: share of the impression period for testing, the last of it.
    """

    seed: int = 2026
    num_users: int = 4_000
    num_items: int = 1_000
    num_categories: int = 40
    topics_per_category: int = 1
    num_domains: int = 3
    domain_contrast: float = 1.0
    events_per_user: float = 150.0
    requests_per_user: float = 16.0
    candidates_per_request: int = 5
    num_days: int = 60
    impression_days: int = 20
    num_interests: int = 5
    num_dormant: int = 3
    dormant_fraction: float = 0.1
    confounding: float = 1.0
    conflict: float = 0.3
    click_shift: float = 0.0
    conversion_shift: float = 0.0
    selection: float = 1.0
    valid_fraction: float = 0.1
    test_fraction: float = 0.1

    def __post_init__(self) -> None:
        problems = list(self._find_problems())
        if problems:
            raise ValueError("simulated data: " + "; ".join(problems))

    def _find_problems(self) -> list[str]:
        problems = []
        for names, is_bad, rule in _RANGES:
            bad = [name for name in names if is_bad(getattr(self, name))]
            problems += [f"{name} ({getattr(self, name)}) must {rule}" for name in bad]
        for name in ("click_shift", "conversion_shift"):
            if not math.isfinite(getattr(self, name)):
                problems.append(f"{name} ({getattr(self, name)}) must be finite")
        if self.num_items < self.num_topics:
            problems.append(
                f"num_items ({self.num_items}) must be at least num_categories * "
                "topics_per_category "
                f"({self.num_topics}); raise it or have fewer topics"
            )
        if self.num_dormant == 0 and self.dormant_fraction > 0:
            problems.append(
                f"dormant_fraction ({self.dormant_fraction}) shows dormant interests, but "
                "num_dormant is 0; set both to 0"
            )
        if self.num_days <= self.impression_days:
            problems.append(
                f"num_days ({self.num_days}) must exceed impression_days "
                f"({self.impression_days}); the days before are "
                "the users' past"
            )
        if self.valid_fraction + self.test_fraction >= 1:
            problems.append("valid_fraction and test_fraction must leave something for training")
        return problems

    @property
    def num_topics(self) -> int:
        """Hidden topics of all categories."""
        return self.num_categories * self.topics_per_category

    @property
    def num_seconds(self) -> int:
        """Length of the log."""
        return self.num_days * SECONDS_PER_DAY

    @property
    def first_impression(self) -> int:
        """Seconds from the beginning of the log to the impression period."""
        return (self.num_days - self.impression_days) * SECONDS_PER_DAY

    @property
    def split_times(self) -> tuple[int, int]:
        """First moments of validation and testing, since 1970."""
        length = self.impression_days * SECONDS_PER_DAY
        shares = (1 - self.valid_fraction - self.test_fraction, 1 - self.test_fraction)
        valid_from, test_from = (
            START_TIME + self.first_impression + round(s * length) for s in shares
        )
        return valid_from, test_from


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
    """Items, topics and domains. Items are numbered from 0 here and get ids from 1 when written.

    Attributes:
        item_topic: [items] topic.
        item_order: [items] items by topic.
        topic_cdf: [items + 1] popularity of `item_order`, cumulated; each topic adds 1.
        log_price: [items] standardised logarithm of the price.
        quality: [items] what all users like.
        bait: [items] what draws clicks and, with conflict, repels the other tasks.
        own_quality: [items, tasks] what only one task sees.
        own_trait: [items, tasks] met by the user's taste for the task.
        domain_topic_cdf: [domains, topics] cumulated share of each topic in a domain's popular
            items.
        segment_topic_cdf: [segments, topics] cumulated share of each topic in a segment's
            interests.
        segment_domain: [segments, domains] log odds of the domains.
        segment_category: [segments, categories] effect on the click.
        daypart_category: [dayparts, categories] effect on the click.
        click_bias: [domains].
        task_bias: [domains, tasks].
        affinity_weight: [domains] effect of the user's affinity.
        price_weight: [domains] effect of the price for young users; it turns with the age.
        position_weight: [domains] effect of each place further down.
    """

    item_topic: IntArray
    item_order: IntArray
    topic_cdf: FloatArray
    log_price: FloatArray
    quality: FloatArray
    bait: FloatArray
    own_quality: FloatArray
    own_trait: FloatArray
    domain_topic_cdf: FloatArray
    segment_topic_cdf: FloatArray
    segment_domain: FloatArray
    segment_category: FloatArray
    daypart_category: FloatArray
    click_bias: FloatArray
    task_bias: FloatArray
    affinity_weight: FloatArray
    price_weight: FloatArray
    position_weight: FloatArray

    def draw_items(self, topic: IntArray, generator: np.random.Generator) -> IntArray:
        """Draws an item of each given topic by popularity, [n]."""
        position = np.searchsorted(
            self.topic_cdf, topic + generator.random(len(topic)), side="right"
        )
        return self.item_order[position - 1]


def build_world(config: WorldConfig) -> World:
    """Draws the world of a configuration; it is the same in every process."""
    generator = np.random.Generator(np.random.PCG64([config.seed, 0]))
    items, topics, domains = config.num_items, config.num_topics, config.num_domains
    tasks = len(SECONDARY_TASKS)
    # every topic has an item; the others fall where they may
    item_topic = np.concatenate(
        [np.arange(topics), generator.integers(topics, size=items - topics)]
    )
    item_topic = generator.permutation(item_topic)
    item_order = np.argsort(item_topic, kind="stable")
    return World(
        item_topic=item_topic,
        item_order=item_order,
        topic_cdf=_topic_cdf(item_topic[item_order], generator),
        log_price=generator.normal(size=items),
        quality=generator.normal(size=items),
        bait=generator.normal(size=items),
        own_quality=generator.normal(size=(items, tasks)),
        own_trait=generator.normal(size=(items, tasks)),
        domain_topic_cdf=_softmax_cdf(generator.normal(size=(domains, topics))),
        segment_topic_cdf=_softmax_cdf(1.2 * generator.normal(size=(NUM_SEGMENTS, topics))),
        segment_domain=0.8 * generator.normal(size=(NUM_SEGMENTS, domains)),
        segment_category=0.35 * generator.normal(size=(NUM_SEGMENTS, config.num_categories)),
        daypart_category=0.2 * generator.normal(size=(NUM_DAYPARTS, config.num_categories)),
        click_bias=np.resize([-2.2, -0.9, -3.3], domains) + 0.2 * generator.normal(size=domains),
        task_bias=np.resize(
            [[-2.4, -2.8, -1.6], [-1.4, -3.4, -2.2], [-1.8, -2.2, -1.0]], (domains, tasks)
        ),
        affinity_weight=_spread([3.4, 2.4, 4.2], config),
        price_weight=_spread([-0.4, 0.1, 0.6], config),
        position_weight=_spread([-0.12, -0.25, -0.05], config),
    )


def _spread(effects: list[float], config: WorldConfig) -> FloatArray:
    """Returns an effect for each domain [domains], as far from their mean as is configured."""
    values = np.resize(effects, config.num_domains)
    return values + (config.domain_contrast - 1.0) * (values - values.mean())


def _topic_cdf(sorted_topic: IntArray, generator: np.random.Generator) -> FloatArray:
    """Cumulated Zipf popularity of items sorted by topic; topic k covers [k, k + 1)."""
    order = np.lexsort((generator.random(len(sorted_topic)), sorted_topic))
    starts = np.searchsorted(sorted_topic, sorted_topic)
    rank = np.empty(len(sorted_topic))
    rank[order] = np.arange(len(sorted_topic)) - starts
    weight = 1.0 / (1.0 + rank)
    share = weight / np.bincount(sorted_topic, weight)[sorted_topic]
    return np.concatenate([[0.0], np.cumsum(share)])


def _softmax_cdf(logits: FloatArray) -> FloatArray:
    share = np.exp(logits)
    cdf = np.cumsum(share, axis=1)
    return cdf / cdf[:, -1:]


def draw_from_rows(cdf: FloatArray, row: IntArray, generator: np.random.Generator) -> IntArray:
    """Draws a column of each given row of a table of cumulated shares, [n]."""
    # shifting row r by r makes one sorted vector of all rows
    flat = (cdf + np.arange(len(cdf))[:, None]).ravel()
    position = np.searchsorted(flat, row + generator.random(len(row)), side="right")
    num_columns = cdf.shape[1]
    return np.minimum(position - row * num_columns, num_columns - 1)
