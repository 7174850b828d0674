"""Windows of similar length side by side, for encoders that need a rectangle.

A batch's windows are ranges of very different lengths. They are encoded once each, however many
candidates share them, and together with windows at most twice as long: padding at most doubles the
work, and what is padded is masked, so that a row's result does not depend on the batch.
"""

import dataclasses
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from ranker.modules.powers import ceil_log2
from ranker.slots import SequenceInputs

# no window has 2^62 behaviours
_CLASSES = 64


@dataclasses.dataclass(frozen=True)
class WindowGroup:
    """Distinct windows G of similar length, none empty, and the candidates K that see them.

    Attributes:
        rows: [G, L] positions of the behaviours, in the order of time; 0 where padded.
        mask: [G, L] whether there is a behaviour.
        lengths: [G].
        candidates: [K] rows of the candidates.
        slot: [K] which of the G windows each of them sees.
    """

    rows: Tensor
    mask: Tensor
    lengths: Tensor
    candidates: Tensor
    slot: Tensor

    def counts(self, weights: Tensor | None) -> Tensor:
        """Returns [G] how many candidates see each window, or the sum of their weights [C]."""
        each = self.slot.new_ones(len(self.slot), dtype=torch.float32)
        if weights is not None:
            each = weights[self.candidates].float()
        return each.new_zeros(len(self.rows)).index_add(0, self.slot, each)


def group_windows(windows: Tensor) -> list[WindowGroup]:
    """Sorts the windows [C, 2] into groups by length: 1, 2, 3 to 4, 5 to 8 and so on.

    Empty windows are in no group.
    """
    distinct, window_of = torch.unique(windows, dim=0, return_inverse=True)
    lengths = distinct[:, 1] - distinct[:, 0]
    # 0 for an empty window, else 1 + ceil(log2(length))
    classes = torch.where(lengths > 0, ceil_log2(lengths.clamp_min(1)) + 1, 0)
    of_candidates = classes[window_of]
    # what is asked of a class is asked of all at once: a GPU is waited for
    zeros = lengths.new_zeros(_CLASSES)
    counts, candidate_counts, longest = torch.stack(
        [
            zeros.index_add(0, classes, torch.ones_like(classes)),
            zeros.index_add(0, of_candidates, torch.ones_like(of_candidates)),
            zeros.scatter_reduce(0, classes, lengths, "amax"),
        ]
    ).tolist()
    members_of = torch.split(classes.argsort(stable=True), counts)
    candidates_of = torch.split(of_candidates.argsort(stable=True), candidate_counts)
    place = torch.empty_like(lengths)
    groups = []
    for level in range(1, _CLASSES):
        if not counts[level]:
            continue
        members, candidates = members_of[level], candidates_of[level]
        place[members] = torch.arange(len(members), device=windows.device)
        steps = torch.arange(longest[level], device=windows.device)
        mask = steps < lengths[members].unsqueeze(1)
        rows = torch.where(mask, distinct[members, :1] + steps, 0)
        slot = place[window_of[candidates]]
        groups.append(WindowGroup(rows, mask, lengths[members], candidates, slot))
    return groups


def encode_groups(
    groups: Iterable[WindowGroup],
    encode: Callable[[WindowGroup], Tensor],
    *,
    encoder: nn.Module,
    output_dim: int,
    inputs: SequenceInputs,
) -> Tensor:
    """Encodes group by group; a candidate without a history gets zeros.

    Args:
        groups: of the batch.
        encode: maps a group to [K, output_dim].
        encoder: whose parameters `encode` uses.
        output_dim: width D of the result.
        inputs: of the encoder.

    Returns:
        [C, D].
    """
    encoded = [(group.candidates, encode(group)) for group in groups]
    if not encoded:
        # ranks must agree on which parameters have gradients, also when one has no history at all
        used = [*encoder.parameters(), inputs.query, inputs.behaviors, inputs.cross]
        linked = torch.stack([value.sum() for value in used]).sum()
        return inputs.query.new_zeros(len(inputs.query), output_dim) + 0 * linked
    rows = torch.cat([candidates for candidates, _ in encoded])
    values = torch.cat([value for _, value in encoded])
    return values.new_zeros(len(inputs.query), output_dim).index_copy(0, rows, values)
