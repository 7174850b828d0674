"""Predictions of a model that was trained on a sample of the negatives, put back on the full scale.

He et al., "Practical lessons from predicting clicks on ads at Facebook", ADKDD 2014, section 6.3:
p = q / (q + (1 - q) / w) when negatives were kept with probability w. On the logit that is a shift:
z = z_q + log w. The order of the rows, and so AUC and GAUC, stay as they are.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ranker.report.predictions import Predictions, TaskPredictions


def correct_sampling(predictions: Predictions, rates: Mapping[str, float]) -> Predictions:
    """Predictions with the logits of the named tasks shifted by the log of their rate.

    Args:
        predictions: as the model made them, on rows that were not sampled.
        rates: by task, the share of negatives that training kept, in (0, 1].

    Raises:
        ValueError: a task is unknown or a rate is not in (0, 1].
    """
    for task, rate in rates.items():
        if task not in predictions.tasks:
            raise ValueError(
                f"negative_sampling_rates names the task {task!r}; "
                f"the predictions have {', '.join(predictions.tasks)}"
            )
        if not 0 < rate <= 1:
            raise ValueError(
                f"negative_sampling_rates.{task} is {rate}; give the share of negatives that "
                "training kept, in (0, 1]"
            )
    tasks = {
        name: _shift(task, math.log(rates[name])) if name in rates else task
        for name, task in predictions.tasks.items()
    }
    return replace(predictions, tasks=tasks)


def _shift(task: TaskPredictions, shift: float) -> TaskPredictions:
    logit = task.logit.astype(np.float64) + shift
    # tanh neither overflows nor warns
    probability = 0.5 * (1 + np.tanh(0.5 * logit))
    return replace(task, logit=logit.astype(np.float32), probability=probability.astype(np.float32))
