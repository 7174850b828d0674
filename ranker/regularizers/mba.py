"""Mini-batch aware regularisation of embeddings (DIN, Zhou et al., KDD 2018, section 5.2)."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ranker.distributed import world_size
from ranker.embedding import table_keys
from ranker.modules.id_counts import ask_owners, own_ids
from ranker.modules.sample_counts import count_samples, sample_windows
from ranker.modules.streamed_counts import StreamedCounts
from ranker.slots import FeatureLayout, RegularizerInputs
from ranker_data.batch import BEHAVIOR_PREFIX
from ranker_data.frequencies import frequency_path
from ranker_data.schema import Schema


class MBA(nn.Module):
    """weight / 2 * sum_j (a_j / n_j) |w_j|^2: a_j is 1 if id j is in the global batch.

    n_j is the number of training samples that contain id j. So the gradient is the paper's
    weight (a_j / n_j) w_j (equation 10), and an epoch shrinks an id by the same share whether it is
    frequent or rare. An id counts once a batch, however many rows and ranks have it. The term goes
    through the lookup: the fused sparse optimizer sees its gradient with that of the loss, and rows
    that are not in the batch are not touched. A rank keeps its share of the counts.

    With `frequencies` null, counts are streamed: n_j is the number of samples so far, this batch
    included, and is kept in the checkpoint. An id that has been rare is then shrunk as the rare id
    that it was.

    Behaviours that no encoder looks at (see TWIN's search) are not looked up, hence not in the
    batch.

    Args:
        schema: of the data set.
        items: layout of the item features; not used.
        weight: lambda; the paper has 0.01.
        tables: to regularise.
        frequencies: folder with the counts, made by scripts/count_ids.py; None counts in training.

    Raises:
        ValueError: a table is unknown or has no vocabulary, or its counts are missing or old.
    """

    def __init__(
        self,
        *,
        schema: Schema,
        items: FeatureLayout,
        weight: float,
        tables: list[str],
        frequencies: str | None,
    ) -> None:
        super().__init__()
        if weight <= 0:
            raise ValueError(f"regularizer.mba.weight is {weight}; must be positive")
        if not tables:
            raise ValueError("regularizer.mba.tables is empty; name at least one table")
        self.weight = weight
        self.sizes = {table: _size_of(schema, table) for table in tables}
        keys = table_keys(schema)
        self.keys = {table: keys[table] for table in tables}
        self.user_keys = {field.name for field in schema.fields_of("user")}
        self.streamed = StreamedCounts(self.sizes) if frequencies is None else None
        # no buffers: they differ by rank, and DDP would give all ranks those of rank 0
        self._inverse = {
            table: _read(Path(frequencies), table, size)
            for table, size in self.sizes.items()
            if frequencies is not None
        }

    def forward(self, inputs: RegularizerInputs) -> Tensor:
        """Returns the term, this rank's share of it times the number of ranks."""
        terms = []
        for table, keys in self.keys.items():
            ids = torch.cat([inputs.ids[key] for key in keys])
            vectors = torch.cat([inputs.vectors[key] for key in keys])
            unique, place, counts = ids.unique(return_inverse=True, return_counts=True)  # type: ignore[no-untyped-call]
            sums = [counts]
            if self.streamed is not None:
                places = place.split([len(inputs.ids[key]) for key in keys])
                windows = [self._windows(key, inputs) for key in keys]
                sums.append(count_samples(places, windows, len(unique)))
            shares = ask_owners(
                unique,
                torch.stack(sums, dim=1),
                num_ids=self.sizes[table],
                answer=lambda own, totals, table=table: self._share(table, own, totals),  # type: ignore[misc]
            )
            terms.append((shares[place] * vectors.square().sum(1)).sum())
        return self.weight / 2 * torch.stack(terms).sum() * world_size()

    def _windows(self, key: str, inputs: RegularizerInputs) -> Tensor:
        """Returns [C, 2] begin and end of the ids of a key that belong to a sample."""
        if key.startswith(BEHAVIOR_PREFIX):
            rows = inputs.windows
        else:
            row = inputs.user_of
            if key not in self.user_keys:
                row = torch.arange(len(row), device=row.device)
            rows = torch.stack([row, row + 1], dim=1)
        return sample_windows(rows, key, inputs.bag_lengths)

    def _share(self, table: str, own: Tensor, totals: Tensor) -> Tensor:
        """Returns 1 / n_j, divided among the places of the global batch that have id j."""
        if self.streamed is None:
            self._inverse[table] = self._inverse[table].to(own.device)
            return self._inverse[table][own] / totals[:, 0]
        # a first pass over the batch without gradient does not count
        seen = totals[:, 1] if torch.is_grad_enabled() else torch.zeros_like(totals[:, 1])
        samples = self.streamed.add(table, own, seen)
        return 1 / (samples.clamp_min(1) * totals[:, 0])


def _size_of(schema: Schema, table: str) -> int:
    """Returns the number of ids of a table."""
    names = [known.name for known in schema.tables if known.name in table_keys(schema)]
    if table not in names:
        raise ValueError(
            f"regularizer.mba.tables names {table!r}; the model reads the tables {', '.join(names)}"
        )
    size = schema.table(table).num_embeddings
    if size is None:
        raise ValueError(
            f"regularizer.mba.tables names {table!r}, which has no vocabulary: its ids share rows "
            "and cannot be counted; leave it out"
        )
    return size


def _read(folder: Path, table: str, size: int) -> Tensor:
    """Returns 1 / n_j of the ids that this rank owns."""
    path = frequency_path(folder, table)
    if not path.is_file():
        raise ValueError(
            f"regularizer.mba.frequencies: {path} does not exist; run scripts/count_ids.py first, "
            "or count in training with regularizer.mba.frequencies=null"
        )
    counts = np.load(path, mmap_mode="r", allow_pickle=False)
    if counts.shape != (size,):
        raise ValueError(
            f"{path} has {counts.shape[0]} counts, but the table has {size} ids; run "
            "scripts/count_ids.py again"
        )
    own = own_ids(size)
    # an id that no training sample has can only come from a longer history than was counted
    inverse = 1 / np.maximum(counts[own.start : own.stop], 1).astype(np.float32)
    return torch.from_numpy(inverse)
