"""RelaImpr: how much more a model ranks better than random, compared with a baseline."""


def relative_improvement(auc: float, baseline: float) -> float | None:
    """(auc - 0.5) / (baseline - 0.5) - 1; None for a baseline that is not better than random.

    Zhou et al., "Deep interest network for click-through rate prediction", KDD 2018.
    """
    if baseline <= 0.5:
        return None
    return (auc - 0.5) / (baseline - 0.5) - 1
