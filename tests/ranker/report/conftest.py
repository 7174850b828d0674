from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ranker.report.predictions import Predictions, TaskPredictions


def sigmoid(logit: NDArray[Any]) -> NDArray[np.float32]:
    return (1 / (1 + np.exp(-logit.astype(np.float64)))).astype(np.float32)


@pytest.fixture
def make_predictions() -> Callable[..., Predictions]:
    """Users of different activity; clicks with a known probability, conversions after a click."""

    def make(
        size: int = 3000, *, num_domains: int = 2, truth: bool = True, weighted: bool = False
    ) -> Predictions:
        generator = np.random.default_rng(0)
        user = (size / 20 * generator.random(size) ** 2).astype(np.int64)
        utility = generator.normal(size=size) - 1.5 + 0.5 * generator.normal(size=size)[user]
        true = 1 / (1 + np.exp(-utility))
        click = generator.random(size) < true
        ctr = (utility + 0.5 * generator.normal(size=size)).astype(np.float32)
        cvr = (0.5 * utility + generator.normal(size=size)).astype(np.float32)
        conversion = np.where(click, generator.random(size) < 0.4, np.nan).astype(np.float32)
        ids = np.arange(size)
        return Predictions(
            sample_id=ids,
            user=user,
            request=ids // 3,
            group=user,
            time=ids,
            domain=ids % num_domains,
            weight=generator.gamma(1.0, size=size) if weighted else np.ones(size),
            tasks={
                "ctr": TaskPredictions(
                    label=click.astype(np.float32),
                    logit=ctr,
                    probability=sigmoid(ctr),
                    truth=true if truth else None,
                ),
                "cvr": TaskPredictions(label=conversion, logit=cvr, probability=sigmoid(cvr)),
            },
            slices={"history_length": (ids * 7) % 50},
        )

    return make
