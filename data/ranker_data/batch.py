"""One batch of ranking data: users, their behaviours and the candidates that look into them.

Axes, used everywhere:

    U  users in the batch           C  candidates (samples)        N  behaviours in total
    L  longest window               D  embedding dim               F  fields

A user's behaviours are in the batch once, however many candidates look at them:

    user             0               1         2
    behaviours [N]   a0 a1 a2 a3     b0 b1     (none)
    candidates [C]   x0    x1        y0        z0
    windows [C, 2]   [0,3) [1,4)     [4,6)     [6,6)
    user_of [C]      0     0         1         2

Candidates are sorted by user. Windows of one user may overlap and are never copied; the classic
jagged batch (one history per sample) is the special case U = C.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from torchrec.streamable import Pipelineable

from ranker_data.batch_keys import BEHAVIOR_PREFIX as BEHAVIOR_PREFIX


@dataclasses.dataclass
class RankingBatch(Pipelineable):  # type: ignore[misc]
    """The tensors of one batch; all on one device.

    Attributes:
        ids: all ids, stride U. Keys are field names; behaviour fields carry the prefix "behavior.".
            A user field has one id per user, a behaviour field one per behaviour of the user, a
            candidate field one per candidate of the user. Values of a key are therefore ordered by
            user, behaviour or candidate.
        bag_lengths: for each multi-valued key, how many ids each user [U], behaviour [N] or
            candidate [C] has.
        bag_weights: for each weighted key, the weight of each of its ids, in their order.
        user_dense: [U, F] raw floats of the user's dense fields, in schema order.
        behavior_dense: [N, F] raw floats of the behaviours' dense fields.
        candidate_dense: [C, F] raw floats of item and context dense fields.
        user_of: [C] row of the candidate's user, not decreasing; every user has a candidate.
        windows: [C, 2] begin and end of the candidate's visible history on the behaviour axis.
        behavior_time: [N] time of each behaviour, in the data set's unit.
        time: [C] time of the impression.
        labels: [C, number of labels] in schema order; 0 where `label_mask` is 0.
        label_mask: [C, number of labels] 1 where the label is defined.
        weights: [C] sample weight; 0 for rows that only pad a rank's batch in evaluation.
        truths: [C, number of truth columns] true probabilities of simulated data (NaN where
            undefined).
        sample_id, user, request, domain: [C] int64 identities (domain 0 when the data has none).
    """

    ids: KeyedJaggedTensor
    bag_lengths: dict[str, Tensor]
    bag_weights: dict[str, Tensor]
    user_dense: Tensor
    behavior_dense: Tensor
    candidate_dense: Tensor
    user_of: Tensor
    windows: Tensor
    behavior_time: Tensor
    time: Tensor
    labels: Tensor
    label_mask: Tensor
    weights: Tensor
    truths: Tensor
    sample_id: Tensor
    user: Tensor
    request: Tensor
    domain: Tensor

    @property
    def num_candidates(self) -> int:
        """The number of samples, C."""
        return self.user_of.shape[0]

    @property
    def num_users(self) -> int:
        """The number of distinct users, U."""
        return self.ids.stride()

    @property
    def num_behaviors(self) -> int:
        """The number of behaviours, N."""
        return self.behavior_time.shape[0]

    def to(self, device: torch.device, non_blocking: bool = False) -> Self:
        """Copies every tensor to `device`; returns this batch if it is there."""
        if self.weights.device == device:
            return self
        return self._map(lambda value: value.to(device=device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Pins every tensor in host memory, so that copies to the GPU overlap with compute."""
        return self._map(lambda value: value.pin_memory())

    def record_stream(self, stream: torch.Stream) -> None:
        """Tells the allocator that `stream` uses the tensors of this batch."""

        def record(value: Any) -> Any:
            value.record_stream(stream)
            return value

        self._map(record)

    def _map(self, function: Callable[[Any], Any]) -> Self:
        values: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, dict):
                values[field.name] = {key: function(item) for key, item in value.items()}
            else:
                values[field.name] = function(value)
        return type(self)(**values)
