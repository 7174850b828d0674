"""Student's t distribution for any positive degrees of freedom, without SciPy."""

import functools
import math

import numpy as np

_STEPS = 2000


def student_t_tail(value: float, freedom: float) -> float:
    """P(T > value) for value >= 0 of Student's t; freedom may be any positive number or inf."""
    if math.isinf(freedom):
        return math.erfc(value / math.sqrt(2)) / 2
    # t = sqrt(freedom) tan(angle) turns the density into a power of the cosine on [0, pi / 2)
    start = math.atan(value / math.sqrt(freedom))
    angles = np.linspace(start, math.pi / 2, _STEPS + 1)
    heights = np.cos(angles) ** (freedom - 1)
    weights = np.ones(_STEPS + 1)
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    area = float(heights @ weights) * (math.pi / 2 - start) / _STEPS / 3
    log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    return area * math.exp(log_scale) / math.sqrt(math.pi)


@functools.lru_cache(maxsize=64)
def student_t_quantile(probability: float, freedom: float) -> float:
    """The value that T stays below with this probability, in [0.5, 1), by bisection."""
    low, high = 0.0, 1.0
    while student_t_tail(high, freedom) > 1 - probability:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        if student_t_tail(middle, freedom) > 1 - probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2
