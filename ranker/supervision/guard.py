"""Watches the steps of a run: all ranks stop at the same one, for a signal or a broken loss."""

from pathlib import Path

from torch import Tensor

from ranker.distributed import Process, gather_to_all
from ranker.exit_codes import NonFiniteError
from ranker.supervision.control import Control, Word
from ranker.supervision.nonfinite import LossWatch, inspect_batch, write_batch
from ranker.supervision.signals import StopSignals
from ranker_data.loader import RankingLoader
from ranker_data.schema import Schema


class StopRequested(Exception):
    """All ranks agreed to stop because one got a signal.

    Args:
        signal: its number.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


class Guard:
    """Exchanges one word a step with the other ranks and acts on what they agree on.

    Args:
        process: this process.
        signals: that ask the run to stop.
        loader: of the training split; a broken step's batch is read from it again.
        schema: of the data.
        debug: folder for such batches.
    """

    def __init__(
        self,
        *,
        process: Process,
        signals: StopSignals,
        loader: RankingLoader,
        schema: Schema,
        debug: Path,
    ) -> None:
        self._process, self._signals = process, signals
        self._loader, self._schema, self._debug = loader, schema, debug
        self._control = Control()
        self._losses = LossWatch(process.device)

    def after_step(self, loss: Tensor, step: int, position: int, *, wait: bool) -> None:
        """Notes a step, and stops if the ranks agreed on it at the step before.

        Args:
            loss: of the step.
            step: steps taken, this one included.
            position: the same since the beginning of the data: epoch times steps plus epoch step.
            wait: for a GPU's losses; without it they are known when a checkpoint is due.

        Raises:
            StopRequested: a rank got a signal.
            NonFiniteError: a loss was not finite.
        """
        self._losses.see(loss, step)
        broken = self._losses.read() if wait else self._losses.seen()
        word = self._control.exchange(Word(self._signals.requested, broken))
        self._refuse_broken(word, step, position)
        self.stop(word)

    def between_batches(self) -> None:
        """Lets an evaluation be stopped.

        Raises:
            StopRequested: a rank got a signal.
        """
        self.stop(self._control.exchange(Word(self._signals.requested)))

    def check(self, step: int, position: int) -> None:
        """Waits until it is known that no rank has seen a broken loss, up to this step.

        Raises:
            NonFiniteError: one has.
        """
        self._refuse_broken(
            self._control.agree(Word(broken_step=self._losses.read())), step, position
        )

    def stop(self, word: Word) -> None:
        """Raises if the ranks agreed to stop."""
        if word.stop:
            raise StopRequested(word.stop)

    def _refuse_broken(self, word: Word, step: int, position: int) -> None:
        broken = word.broken_step
        if broken is None:
            return
        folder = self._debug / f"step-{broken}"
        lines = []
        # a gradient that overflows breaks the weights, and the loss a step later
        for back in (step - broken, step - broken + 1):
            if position - back >= 1:
                found = self._inspect(position - back - 1, step - back, folder)
                lines += [line for rank in gather_to_all(found) for line in rank]
        suspects = "\n  ".join(lines) or "no dense value of its batches is extreme"
        raise NonFiniteError(
            f"the loss is not finite at step {broken}; this state is not saved.\n  {suspects}\n"
            f"The rows of its batches are in {folder}. Lower the learning rates or mend the data, "
            "and launch the same command again: it goes on from the last checkpoint"
        )

    def _inspect(self, index: int, step: int, folder: Path) -> list[str]:
        """Reads this rank's share of a past batch again, writes it down and describes it."""
        epoch, first = divmod(index, self._loader.num_steps)
        batch = next(iter(self._loader.batches(epoch, first)))
        rank = self._process.rank
        write_batch(batch, self._schema, folder / f"batch-{step}-rank-{rank}.parquet")
        found = inspect_batch(batch, self._schema)
        return [f"step {step}, rank {rank}: {line}" for line in found]
