"""Mini-batch aware regularisation of embeddings (DIN, Zhou et al., KDD 2018, section 5.2)."""

from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ranker.distributed import world_size
from ranker.embedding import table_keys
from ranker.modules.id_counts import owner_values
from ranker.slots import FeatureLayout, RegularizerInputs
from ranker_data.frequencies import frequency_path
from ranker_data.schema import Schema


class MBA(nn.Module):
    """weight / 2 * sum_j (a_j / n_j) |w_j|^2: a_j is 1 if id j is in the global batch.

    n_j is the number of training samples that contain id j. So the gradient is the paper's
    weight (a_j / n_j) w_j (equation 10), and an epoch shrinks an id by the same share whether it is
    frequent or rare. An id counts once a batch, however many rows and ranks have it. The term goes
    through the lookup: the fused sparse optimizer sees its gradient with that of the loss, and rows
    that are not in the batch are not touched. A rank keeps its share of the counts.

    Behaviours that no encoder looks at (see TWIN's search) are not looked up, hence not in the
    batch.

    Args:
        schema: of the data set.
        items: layout of the item features; not used.
        weight: lambda; the paper has 0.01.
        tables: to regularise.
        frequencies: folder with the counts, made by scripts/count_ids.py.

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
        frequencies: str,
    ) -> None:
        super().__init__()
        if weight <= 0:
            raise ValueError(f"regularizer.mba.weight is {weight}; must be positive")
        if not tables:
            raise ValueError("regularizer.mba.tables is empty; name at least one table")
        keys = table_keys(schema)
        self.weight = weight
        self.keys = {table: keys.get(table, []) for table in tables}
        # no buffers: they differ by rank, and DDP would give all ranks those of rank 0
        self._inverse: dict[str, Tensor] = {}
        rank = dist.get_rank() if world_size() > 1 else 0
        for table in tables:
            owned = _read(Path(frequencies), schema, table)[rank :: world_size()]
            # an id that no training sample has can only come from a longer history than was counted
            inverse = torch.from_numpy(1 / np.maximum(owned, 1).astype(np.float32))
            self._inverse[table] = inverse

    def forward(self, inputs: RegularizerInputs) -> Tensor:
        """Returns the term, this rank's share of it times the number of ranks."""
        terms = []
        for table, keys in self.keys.items():
            ids = torch.cat([inputs.ids[key] for key in keys])
            vectors = torch.cat([inputs.vectors[key] for key in keys])
            unique, place, counts = ids.unique(return_inverse=True, return_counts=True)  # type: ignore[no-untyped-call]
            self._inverse[table] = self._inverse[table].to(ids.device)
            shares = owner_values(unique, counts, self._inverse[table])
            terms.append((shares[place] * vectors.square().sum(1)).sum())
        return self.weight / 2 * torch.stack(terms).sum() * world_size()


def _read(folder: Path, schema: Schema, table: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Returns the counts of a table, mapped into memory."""
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
    path = frequency_path(folder, table)
    if not path.is_file():
        raise ValueError(
            f"regularizer.mba.frequencies: {path} does not exist; run scripts/count_ids.py first"
        )
    counts: np.ndarray[tuple[int], np.dtype[np.int64]] = np.load(
        path, mmap_mode="r", allow_pickle=False
    )
    if counts.shape != (size,):
        raise ValueError(
            f"{path} has {counts.shape[0]} counts, but the table has {size} ids; run "
            "scripts/count_ids.py again"
        )
    return counts
