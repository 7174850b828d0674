"""What the ranks tell each other once a step: whether to stop, and whether a loss was broken."""

import dataclasses

import torch
import torch.distributed as dist
from torch import Tensor

# stands for "no step"; far from the ends of int64, so that negation is safe
_NEVER = 1 << 60


@dataclasses.dataclass(frozen=True)
class Word:
    """What all ranks agree on.

    Attributes:
        stop: number of a signal that a rank got; 0 for none.
        broken_step: first step whose loss was not finite on some rank; None for none.
    """

    stop: int = 0
    broken_step: int | None = None


class Control:
    """Exchanges words on a gloo group of its own, so that no other collective can match them.

    An exchange is one small all-reduce that overlaps with the next step: what is put in at one step
    comes out, on all ranks alike, at the next one.
    """

    def __init__(self) -> None:
        self._alone = dist.get_world_size() == 1
        self._group = None if self._alone else dist.new_group(backend="gloo")
        self._pending: tuple[dist.Work, Tensor] | None = None

    def exchange(self, word: Word) -> Word:
        """Puts in this rank's word and returns what the ranks agreed on at the exchange before."""
        if self._alone:
            return word
        before = self.drain()
        values = _encode(word)
        work = dist.all_reduce(values, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        assert work is not None
        self._pending = work, values
        return before

    def agree(self, word: Word) -> Word:
        """Puts in this rank's word and waits for what the ranks agree on."""
        if self._alone:
            return word
        values = _encode(word)
        dist.all_reduce(values, op=dist.ReduceOp.MAX, group=self._group)
        return _decode(values)

    def drain(self) -> Word:
        """Waits for the exchange that is under way, and returns what it agrees on."""
        if self._pending is None:
            return Word()
        work, values = self._pending
        self._pending = None
        work.wait()
        return _decode(values)


def _encode(word: Word) -> Tensor:
    # the maximum of the negated steps is the first of them
    broken = -_NEVER if word.broken_step is None else -word.broken_step
    return torch.tensor([word.stop, broken])


def _decode(values: Tensor) -> Word:
    stop, broken = values.tolist()
    return Word(stop, None if broken == -_NEVER else -broken)
