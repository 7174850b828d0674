"""The contracts of the plug-in folders: encoders, gates, interactions, heads and objectives.

A plug-in is one class in one file; its YAML gives the keyword arguments that a user chooses, the
builder adds the runtime ones named here.
"""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ranker_kernels.search_topk import DistinctRows


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
        log_size: [N] ln of the number of events that each behaviour stands for, where histories are
            clustered; None where each is one event.
        weights: [C] sample weights, for losses of an encoder's own; None counts every row as one.
        labels: likewise in training, labels [C] and their weights by the label's name.
        losses: where an encoder puts losses of its own in training, by name: scalars, this rank's
            shares of global means, with their weight in the total loss.
    """

    query: Tensor
    behaviors: Tensor
    cross: Tensor
    windows: Tensor
    user_of: Tensor
    behavior_time: Tensor
    time: Tensor
    log_size: Tensor | None = None
    weights: Tensor | None = None
    labels: Mapping[str, "TaskTargets"] = dataclasses.field(default_factory=dict)
    losses: dict[str, Tensor] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class SearchInputs:
    """What the search of a two-stage encoder sees: all behaviours of the batch, without gradient.

    Attributes:
        query: [C, D] the candidate's inherent features.
        behaviors: [N, D] the behaviours' inherent features, distinct vectors once.
        cross: [N, X] their cross features, likewise.
        windows, user_of, behavior_time, time, log_size: as in `SequenceInputs`.
        query_ids: [C] ids of the candidate's single-valued inherent fields by name.
        behavior_ids: [N] ids of the behaviours in the same fields.
    """

    query: Tensor
    behaviors: DistinctRows
    cross: DistinctRows
    windows: Tensor
    user_of: Tensor
    behavior_time: Tensor
    time: Tensor
    log_size: Tensor | None = None
    query_ids: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    behavior_ids: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)


class SequenceEncoder(Protocol):
    """Turns the behaviours that a candidate sees into a vector.

    Built with `query_dim` D and `cross_dim` X. It looks at the latest `max_length` behaviours of a
    window, at all of them where that is None.
    """

    output_dim: int
    max_length: int | None

    def __call__(self, inputs: SequenceInputs) -> Tensor:
        """Returns [C, output_dim]; an empty window gives zeros."""
        ...


@runtime_checkable
class SearchEncoder(Protocol):
    """A sequence encoder in two stages: a search, and attention to what it found.

    Built like a `SequenceEncoder`. The search sees every behaviour, without gradient; only what it
    selects is looked up again with gradient, so that a table learns from selected rows alone.
    """

    output_dim: int

    def search(self, inputs: SearchInputs) -> Tensor:
        """Returns the selected behaviours, int64 [C, k] positions in N, -1 for none."""
        ...

    def __call__(self, inputs: SequenceInputs, index: Tensor) -> Tensor:
        """Attends to the selected behaviours.

        Args:
            inputs: some of the behaviours, those of the index among them.
            index: [C, k] positions in them, -1 for none.

        Returns:
            [C, output_dim], zeros where there is none.
        """
        ...


@runtime_checkable
class CachingEncoder(Protocol):
    """An encoder whose search, in training, reads K_h W^h from a cache that lags behind.

    Attributes:
        refresh_steps: training steps between refreshes; 0 has no cache.
    """

    refresh_steps: int

    def hold(self, sizes: Mapping[str, int]) -> None:
        """Makes room for the projections of so many ids of each inherent field."""
        ...

    def key_weight(self) -> Tensor:
        """Returns W^h [H, D, d]."""
        ...

    def store(self, field: str, begin: int, projected: Tensor) -> None:
        """Stores the projections [ids, H d] of a field's ids from `begin` on."""
        ...


@dataclasses.dataclass(frozen=True)
class FeatureLayout:
    """Where each feature lies in the columns of the shared embedding [C, D].

    Attributes:
        names: sample fields by their schema name, and the outputs of sequence encoders as
            "sequence.<encoder>", in the order of the columns.
        widths: number of columns of each.
    """

    names: tuple[str, ...]
    widths: tuple[int, ...]

    @property
    def dim(self) -> int:
        """The number of columns, D."""
        return sum(self.widths)

    def columns(self, name: str) -> slice:
        """Returns the columns of one feature."""
        index = self.names.index(name)
        begin = sum(self.widths[:index])
        return slice(begin, begin + self.widths[index])

    def width_of(self, names: Sequence[str], option: str) -> int:
        """Returns the width of some features side by side.

        Args:
            names: features that a user named.
            option: the key of the configuration that named them.

        Raises:
            ValueError: there are none, or one is unknown.
        """
        if not names:
            raise ValueError(f"{option} is empty; name at least one of {', '.join(self.names)}")
        for name in names:
            if name not in self.names:
                close = difflib.get_close_matches(name, self.names, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(self.names)}"
                raise ValueError(f"{option} names {name!r}, which the model does not have; {hint}")
        return sum(self.widths[self.names.index(name)] for name in names)

    def take(self, embedded: Tensor, names: Sequence[str]) -> Tensor:
        """Returns some features of the shared embedding [C, D] side by side."""
        return torch.cat([embedded[:, self.columns(name)] for name in names], dim=1)


@dataclasses.dataclass(frozen=True)
class RegularizerInputs:
    """What a regulariser sees of a training batch.

    Attributes:
        ids: all ids by key of the batch, as they were looked up.
        vectors: [ids, D] the embedding of each of them.
        items: [C, F] the candidate's item features.
        item_ids: [C, I] its single-valued item ids, one column per field.
        weights: [C] sample weights.
        user_of: [C] row of the candidate's user.
        windows: [C, 2] begin and end of the candidate's visible history on the behaviour axis.
        bag_lengths: ids of each row, by multi-valued key.
    """

    ids: Mapping[str, Tensor]
    vectors: Mapping[str, Tensor]
    items: Tensor
    item_ids: Tensor
    weights: Tensor
    user_of: Tensor
    windows: Tensor
    bag_lengths: Mapping[str, Tensor]


class Regularizer(Protocol):
    """Adds a term to the loss that reads embeddings, not predictions.

    Built with `schema` and with `items`, the layout of the candidate's item features.
    """

    def __call__(self, inputs: RegularizerInputs) -> Tensor:
        """Returns a scalar with its weight in the total loss, this rank's share of it."""
        ...


class Gate(Protocol):
    """Scales the shared embedding. Built with `layout`, where its features lie."""

    def __call__(self, embedded: Tensor) -> Tensor:
        """Maps [C, D] to [C, D]."""
        ...


class Interaction(Protocol):
    """Turns the (gated) shared embedding into features. Built with `layout`."""

    output_dim: int

    def __call__(self, embedded: Tensor) -> Tensor:
        """Maps [C, D] to [C, output_dim]."""
        ...


@dataclasses.dataclass(frozen=True)
class HeadInputs:
    """What a head sees.

    Attributes:
        features: [C, F] behind gate and interaction.
        embedded: [C, D] the shared embedding before both, for priors.
    """

    features: Tensor
    embedded: Tensor


class Head(Protocol):
    """Turns features into logits.

    Built with `input_dim` F and `tasks` (the schema's task names); also with `layout`, where the
    features of `embedded` lie, if its constructor has such an argument.
    """

    def __call__(self, inputs: HeadInputs) -> dict[str, Tensor]:
        """Returns one logit [C] per predicted task, and per auxiliary output of the head."""
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


class WeightedObjective(Objective, Protocol):
    """An objective that is a weighted sum of its parts, so that another may weigh them anew."""

    @property
    def weights(self) -> Mapping[str, float]:
        """Weights of parts in the loss; a part that is not named weighs 1."""
        ...


@runtime_checkable
class AdaptiveObjective(Protocol):
    """An objective that moves with training; its state is in buffers, equal on all ranks."""

    def after_step(self) -> None:
        """Called by all ranks after each optimizer step, however many batches were in it."""
        ...

    def report(self) -> dict[str, float]:
        """Returns what the training record should show, by name."""
        ...


@runtime_checkable
class FeatureObjective(Protocol):
    """An objective that looks at the gradients of its parts where the tasks still share all."""

    def watch(self, features: Tensor) -> None:
        """Called in each forward with the head's input, [C, F], before the objective itself."""
        ...
