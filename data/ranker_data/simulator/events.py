"""What simulated users do on their own: by interest, by exploration, and in bursts long ago."""

import dataclasses

import numpy as np

from ranker_data.simulator.users import Users
from ranker_data.simulator.world import (
    SECONDS_PER_DAY,
    FloatArray,
    IntArray,
    World,
    WorldConfig,
    draw_from_rows,
)

# ids of the event types
VISIT, CLICK, PURCHASE = 1, 2, 3
NUM_EVENT_TYPES = 3

_EXPLORATION = 0.3
_BURST_EVENTS = 7.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Events:
    """Events of a block of users, in any order.

    Attributes:
        user: [n] number of the user in the block.
        second: [n] since the beginning of the log.
        item: [n].
        kind: [n] event type.
        log_dwell: [n] logarithm of the seconds that the user stayed.
    """

    user: IntArray
    second: IntArray
    item: IntArray
    kind: IntArray
    log_dwell: FloatArray

    def sorted(self) -> "Events":
        """Returns the events by user and time; equal times keep their order."""
        order = np.lexsort((self.second, self.user))
        values = {f.name: getattr(self, f.name)[order] for f in dataclasses.fields(self)}
        return Events(**values)


def concatenate_events(events: list[Events]) -> Events:
    """Stacks events."""
    names = [f.name for f in dataclasses.fields(Events)]
    return Events(**{name: np.concatenate([getattr(e, name) for e in events]) for name in names})


def draw_seconds(
    first_day: int, num_days: int, count: int, generator: np.random.Generator
) -> IntArray:
    """Draws seconds since the beginning of the log, within some days, few at night."""
    day = generator.integers(first_day, first_day + num_days, size=count)
    # fewest at 3 h, most at 21 h
    hour = (3.0 + generator.triangular(0.0, 18.0, 24.0, size=count)) % 24.0
    return day * SECONDS_PER_DAY + (hour * 3600.0).astype(np.int64)


def draw_topics(
    users: Users, world: World, user: IntArray, moment: FloatArray, generator: np.random.Generator
) -> tuple[IntArray, FloatArray]:
    """Draws topics that users look at, and the interest behind each (0: exploration)."""
    strengths = users.strengths(user, moment)
    cdf = np.cumsum(
        np.concatenate([strengths, np.full((len(user), 1), _EXPLORATION)], axis=1), axis=1
    )
    chosen = (generator.random(len(user)) * cdf[:, -1])[:, None] >= cdf
    slot = chosen.sum(axis=1)
    explored = slot == strengths.shape[1]
    slot = np.minimum(slot, strengths.shape[1] - 1)
    # explorers look at what is popular in any domain
    domain = generator.integers(len(world.domain_topic_cdf), size=len(user))
    popular = draw_from_rows(world.domain_topic_cdf, domain, generator)
    topic = np.where(explored, popular, users.topic[user, slot])
    strength = np.where(explored, 0.0, strengths[np.arange(len(user)), slot])
    return topic, strength


def draw_events(
    users: Users, world: World, config: WorldConfig, generator: np.random.Generator
) -> Events:
    """Draws the events that users bring along over the whole log."""
    return concatenate_events(
        [
            _draw_drifting(users, world, config, generator),
            _draw_bursts(users, world, config, generator),
        ]
    )


def _draw_drifting(
    users: Users, world: World, config: WorldConfig, generator: np.random.Generator
) -> Events:
    counts = generator.poisson(config.events_per_user * users.activity)
    user = np.repeat(np.arange(len(counts)), counts)
    second = draw_seconds(0, config.num_days, len(user), generator)
    topic, strength = draw_topics(users, world, user, second / config.num_seconds, generator)
    return Events(
        user=user,
        second=second,
        item=world.draw_items(topic, generator),
        kind=np.full(len(user), VISIT),
        log_dwell=2.0 + 1.2 * strength + 0.6 * generator.normal(size=len(user)),
    )


def _draw_bursts(
    users: Users, world: World, config: WorldConfig, generator: np.random.Generator
) -> Events:
    """Draws the bursts of dormant interests: some events within a day, with long stays."""
    shape = users.dormant_topic.shape
    counts = 3 + generator.poisson(_BURST_EVENTS - 3.0, size=shape).ravel()
    row = np.repeat(np.arange(len(counts)), counts)
    begin = (users.dormant_moment.ravel() * config.num_seconds).astype(np.int64)
    return Events(
        user=row // max(shape[1], 1),
        second=begin[row] + generator.integers(SECONDS_PER_DAY, size=len(row)),
        item=world.draw_items(users.dormant_topic.ravel()[row], generator),
        kind=np.full(len(row), VISIT),
        log_dwell=4.2 + 0.6 * generator.normal(size=len(row)),
    )
