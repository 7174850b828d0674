"""What rank 0 tells: a progress line for people, metrics.jsonl and TensorBoard for tools."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm


class RunLog:
    """Writes records to `metrics.jsonl` (the truth) and TensorBoard, and keeps the progress line.

    Args:
        run_dir: of the run.
        total_steps: steps that the run will have at most.
        batch_size: rows of a global batch, for the rate.
        resume_step: records after this step are dropped: the run takes them again.
        enabled: False on all ranks but 0.
    """

    def __init__(
        self, run_dir: Path, *, total_steps: int, batch_size: int, resume_step: int, enabled: bool
    ) -> None:
        self.enabled = enabled
        self.batch_size = batch_size
        self._since = (time.monotonic(), resume_step)
        if not enabled:
            return
        self.path = run_dir / "metrics.jsonl"
        kept = [r for r in read_records(self.path) if r["step"] <= resume_step]
        self.path.write_text("".join(json.dumps(record) + "\n" for record in kept))
        self._file = self.path.open("a")
        self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=resume_step + 1)
        # disable=None: quiet unless a person watches
        self._bar = tqdm(
            total=total_steps, initial=resume_step, unit="step", disable=None, leave=False
        )

    def step(self) -> None:
        """Moves the progress line by one step."""
        if self.enabled:
            self._bar.update()

    def record(self, kind: str, step: int, values: Mapping[str, float | None]) -> None:
        """Writes one record; None stands for an undefined value and is left out of TensorBoard.

        Args:
            kind: "train" or the name of an evaluated split.
            step: global step.
            values: by name.
        """
        if not self.enabled:
            return
        values = dict(values)
        if kind == "train":
            now, (then, last) = time.monotonic(), self._since
            values["samples_per_second"] = (step - last) * self.batch_size / max(now - then, 1e-9)
            self._since = (now, step)
            self._bar.set_postfix_str(
                f"loss {values['loss']:.4f}, {values['samples_per_second']:,.0f} samples/s, "
                f"{values.get('data_wait_fraction') or 0:.0%} waiting for data, "
                f"{values.get('memory_gb') or 0:.1f} GB"
            )
        self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            if value is not None:
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def say(self, text: str) -> None:
        """Prints a line to stderr without tearing the progress line."""
        if self.enabled:
            tqdm.write(text, file=sys.stderr)

    def pause(self) -> None:
        """Leaves the time until now out of the next rate (an evaluation or a save took it)."""
        self._since = (time.monotonic(), self._since[1])

    def close(self) -> None:
        """Flushes and closes everything."""
        if self.enabled:
            self._bar.close()
            self._file.close()
            self._board.close()


def read_records(path: Path) -> list[dict[str, Any]]:
    """Returns the records of a metrics.jsonl.

    A half-written last line (the run was killed) is left out.
    """
    records = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records
