"""The contracts of the plug-in folders: encoders, heads and objectives.

A plug-in is one class in one file; its YAML gives the keyword arguments that a user chooses, the
builder adds the runtime ones named here.
"""

import dataclasses
from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


@dataclasses.dataclass(frozen=True)
class SequenceInputs:
    """What a sequence encoder sees.

    Attributes:
        query: [C, D] the candidate's inherent features.
        behaviors: [N, D] the behaviours' inherent features, from the same tables in the same order.
        cross: [N, X] user-item cross features of the behaviours, which a candidate does not have (X
            may be 0).
        windows: [C, 2] int64 begin and end of each candidate's visible history on the behaviour
            axis.
        user_of: [C] user row of each candidate.
        behavior_time: [N] int64 time of each behaviour.
        time: [C] int64 time of each impression.
    """

    query: Tensor
    behaviors: Tensor
    cross: Tensor
    windows: Tensor
    user_of: Tensor
    behavior_time: Tensor
    time: Tensor


class SequenceEncoder(Protocol):
    """Turns the behaviours that a candidate sees into a vector.

    Built with `query_dim` D and `cross_dim` X.
    """

    output_dim: int

    def __call__(self, inputs: SequenceInputs) -> Tensor:
        """Returns [C, output_dim]; an empty window gives zeros."""
        ...


class Head(Protocol):
    """Turns features into logits. Built with `input_dim` and `tasks` (the schema's task names)."""

    def __call__(self, features: Tensor) -> dict[str, Tensor]:
        """Returns one logit [C] per predicted task, from features [C, input_dim]."""
        ...


@dataclasses.dataclass(frozen=True)
class TaskTargets:
    """The target of one task on a batch.

    Attributes:
        labels: [C] 0 or 1.
        weights: [C] sample weight; 0 where the label is undefined or the task's condition does not
            hold.
    """

    labels: Tensor
    weights: Tensor


class Objective(Protocol):
    """Turns logits and targets into one loss.

    Parts are the named summands; both are this rank's shares of global means
    (`distributed.weighted_mean`).
    """

    def __call__(
        self, logits: Mapping[str, Tensor], targets: Mapping[str, TaskTargets]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss, a scalar, and its named parts."""
        ...
