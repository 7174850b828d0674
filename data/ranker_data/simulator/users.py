"""The users of a simulated world: profile, slowly drifting interests and long dormant ones."""

import dataclasses

import numpy as np

from ranker_data.simulator.world import (
    NUM_AGES,
    NUM_SEGMENTS,
    SECONDARY_TASKS,
    FloatArray,
    IntArray,
    World,
    WorldConfig,
    draw_from_rows,
)

# a topic that the user likes makes the other topics of its category a little interesting
SIBLING_AFFINITY = 0.3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Users:
    """U users with J drifting and K dormant interests; moments are fractions of the log's length.

    Interest j has the strength w_j exp(-((t - c_j) / s_j)^2 / 2) at moment t; a dormant interest
    has one burst of events at its moment and the strength 1 ever after.

    Attributes:
        segment: [U].
        age: [U] age bucket.
        activity: [U] factor on the number of events and requests, with mean 1.
        click_bias: [U].
        taste: [U, tasks] taste for the traits that only one task sees.
        topic: [U, J].
        center: [U, J].
        width: [U, J].
        weight: [U, J].
        dormant_topic: [U, K].
        dormant_moment: [U, K].
    """

    segment: IntArray
    age: IntArray
    activity: FloatArray
    click_bias: FloatArray
    taste: FloatArray
    topic: IntArray
    center: FloatArray
    width: FloatArray
    weight: FloatArray
    dormant_topic: IntArray
    dormant_moment: FloatArray

    def strengths(self, user: IntArray, moment: FloatArray) -> FloatArray:
        """Returns the strength of every drifting interest, [n, J]."""
        distance = (moment[:, None] - self.center[user]) / self.width[user]
        return self.weight[user] * np.exp(-0.5 * distance**2)

    def affinity(
        self, user: IntArray, moment: FloatArray, topic: IntArray, topics_per_category: int
    ) -> FloatArray:
        """Returns how much each user wants each topic at each moment, [n], in [0, 1.5]."""
        strengths = self.strengths(user, moment)
        dormant = (self.dormant_moment[user] < moment[:, None]).astype(np.float64)
        own = np.concatenate([self.topic[user], self.dormant_topic[user]], axis=1)
        strengths = np.concatenate([strengths, dormant], axis=1)
        same_topic = own == topic[:, None]
        same_category = own // topics_per_category == (topic // topics_per_category)[:, None]
        share = np.where(same_topic, 1.0, np.where(same_category, SIBLING_AFFINITY, 0.0))
        return np.minimum((share * strengths).sum(axis=1), 1.5)


def draw_users(
    world: World, config: WorldConfig, count: int, generator: np.random.Generator
) -> Users:
    """Draws `count` users."""
    segment = generator.integers(NUM_SEGMENTS, size=count)
    shape = (count, config.num_interests)
    dormant_shape = (count, config.num_dormant)
    topic = draw_from_rows(
        world.segment_topic_cdf, np.repeat(segment, config.num_interests), generator
    )
    return Users(
        segment=segment,
        age=generator.integers(NUM_AGES, size=count),
        activity=generator.lognormal(-0.5 * 0.7**2, 0.7, size=count),
        click_bias=0.4 * generator.normal(size=count),
        taste=generator.normal(size=(count, len(SECONDARY_TASKS))),
        topic=topic.reshape(shape),
        center=generator.uniform(0.0, 1.2, size=shape),
        width=generator.uniform(0.15, 0.5, size=shape),
        weight=generator.uniform(0.5, 1.2, size=shape),
        dormant_topic=generator.integers(config.num_topics, size=dormant_shape),
        dormant_moment=generator.uniform(0.02, 0.35, size=dormant_shape),
    )
