"""How much of the objective's variation each swept key explains."""

from collections.abc import Mapping, Sequence

import numpy as np

# more distinct numbers than this are put into as many bins of equal mass
MAX_LEVELS = 5


def explained_shares(
    points: Sequence[Mapping[str, str]], objective: Sequence[float]
) -> dict[str, float]:
    """Eta squared of every key: variance between the means of its values over the variance of all.

    Keys that go together share what they explain, so the shares need not add up to one. With few
    points even a key without effect explains something: (levels - 1) / (points - 1) on average.

    Args:
        points: P points, each a value per key.
        objective: [P].
    """
    values = np.asarray(objective, dtype=np.float64)
    total = float(((values - values.mean()) ** 2).sum()) if len(values) else 0.0
    shares = {}
    for key in points[0] if points else ():
        levels = _levels([point[key] for point in points])
        found, index = np.unique(levels, return_inverse=True)
        if len(found) < 2 or total == 0:
            continue
        counts = np.bincount(index)
        means = np.bincount(index, weights=values) / counts
        shares[key] = float((counts * (means - values.mean()) ** 2).sum() / total)
    return shares


def as_numbers(texts: Sequence[str]) -> list[float] | None:
    """The texts as numbers if all of them are, else None."""
    try:
        return [float(text) for text in texts]
    except ValueError:
        return None


def _levels(texts: Sequence[str]) -> list[str]:
    numbers = as_numbers(texts)
    if numbers is None or len(set(numbers)) <= MAX_LEVELS:
        return list(texts)
    edges = np.quantile(numbers, np.arange(1, MAX_LEVELS) / MAX_LEVELS)
    return [str(level) for level in np.searchsorted(edges, numbers, side="right")]
