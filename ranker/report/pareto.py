"""The points that no other point beats in two metrics at once."""

from collections.abc import Sequence


def pareto_front(
    points: Sequence[tuple[float, float]], more_is_better: tuple[bool, bool]
) -> list[int]:
    """Indices of the points that none is at least as good as in both and better in one.

    Args:
        points: two metrics each.
        more_is_better: of each metric.

    Returns:
        Indices ordered by the first metric, best first; equal points are all on the front.
    """
    signs = tuple(1 if more else -1 for more in more_is_better)
    good = [(signs[0] * first, signs[1] * second) for first, second in points]
    order = sorted(range(len(good)), key=lambda index: good[index], reverse=True)
    front: list[int] = []
    best = float("-inf")
    for index in order:
        second = good[index][1]
        if second > best or (front and good[index] == good[front[-1]]):
            front.append(index)
            best = max(best, second)
    return front
