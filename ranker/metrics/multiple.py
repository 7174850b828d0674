"""Several tests at once: p-values that stay honest however many differences are looked at."""

from collections.abc import Sequence


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted for their number; None stays None and does not count.

    Rejecting where an adjusted value is at most alpha makes a false claim anywhere with probability
    at most alpha, whatever the dependence (Holm, "A simple sequentially rejective multiple test
    procedure", Scandinavian Journal of Statistics 1979).

    Args:
        p_values: [T].

    Returns:
        [T] adjusted, each at least what it was and at most 1.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min((len(known) - rank) * p, 1.0))
        adjusted[place] = largest
    return adjusted
