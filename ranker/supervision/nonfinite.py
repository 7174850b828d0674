"""When a loss is not finite: which step was the first, which rows and fields look guilty.

The order of the data is a function of the position, so the batch of any step can be read again: it
is inspected and written down after the fact, and a healthy step pays for none of it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from ranker_data.batch import RankingBatch
from ranker_data.schema import Field, Schema

# dense values further than this from their mean, in standard deviations, are named
_EXTREME = 100.0
_MAX_NAMED_ROWS = 5


class LossWatch:
    """Remembers the first step whose loss was not finite, without waiting for a GPU.

    Args:
        device: of the losses.
    """

    def __init__(self, device: torch.device) -> None:
        self._first = torch.full((), -1, dtype=torch.int64, device=device)
        self._step: int | None = None

    def see(self, loss: Tensor, step: int) -> None:
        """Notes the loss of a step; on a CPU at once, on a GPU behind its kernels."""
        if loss.is_cuda:
            broken = (self._first < 0) & ~torch.isfinite(loss)
            self._first = torch.where(broken, step, self._first)
        elif self._step is None and not bool(torch.isfinite(loss)):
            self._step = step

    def seen(self) -> int | None:
        """Returns the first broken step that is known without waiting."""
        return self._step

    def read(self) -> int | None:
        """Returns the first broken step; waits for the GPU."""
        if self._first.is_cuda and int(self._first) >= 0:
            self._step = int(self._first)
        return self._step


def inspect_batch(batch: RankingBatch, schema: Schema) -> list[str]:
    """Returns a line for each dense field with extreme values, naming the worst rows.

    The reader refuses values that are not finite, so a finite value far outside what was seen when
    the data was prepared is what data can contribute to a broken loss.
    """
    lines = []
    for field, values, rows in _dense_columns(batch, schema):
        distance = np.abs(values.astype(np.float64) - field.mean) / max(field.std, 1e-12)
        worst = np.argsort(-distance, kind="stable")[:_MAX_NAMED_ROWS]
        worst = worst[distance[worst] > _EXTREME]
        if len(worst):
            count = int((distance > _EXTREME).sum())
            named = ", ".join(f"{values[i]:g} (sample {rows[i]})" for i in worst)
            lines.append(
                f"field {field.name} has {count} values more than {_EXTREME:.0f} standard "
                f"deviations from its mean {field.mean:g}: {named}"
            )
    return lines


def _dense_columns(
    batch: RankingBatch, schema: Schema
) -> list[tuple[Field, NDArray[Any], NDArray[Any]]]:
    """Each dense field of a sample with its value [C] and the sample ids [C]."""
    sample_id = batch.sample_id.numpy()
    users = batch.user_dense.numpy()[batch.user_of.numpy()]
    candidates = batch.candidate_dense.numpy()
    fields = [f for f in schema.candidate_fields if f.kind == "dense"]
    columns = [(f, users[:, i], sample_id) for i, f in enumerate(schema.fields_of("user", "dense"))]
    return columns + [(f, candidates[:, i], sample_id) for i, f in enumerate(fields)]


def write_batch(batch: RankingBatch, schema: Schema, path: Path) -> None:
    """Writes what identifies the rows of a batch, their labels and dense values, as Parquet."""
    columns: dict[str, Any] = {
        name: getattr(batch, name).numpy()
        for name in ("sample_id", "user", "request", "time", "domain")
    }
    columns["weight"] = batch.weights.numpy()
    columns["history_length"] = (batch.windows[:, 1] - batch.windows[:, 0]).numpy()
    for i, label in enumerate(schema.labels):
        defined = batch.label_mask[:, i].numpy() > 0
        columns[f"label.{label.name}"] = pa.array(batch.labels[:, i].numpy(), mask=~defined)
    for field, values, _ in _dense_columns(batch, schema):
        columns[f"dense.{field.name}"] = values
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
