"""The searches of a model, before the lookup that has a gradient."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ranker.embedding import EmbeddingTables
from ranker.modules.features import Lookup
from ranker.modules.narrowing import distinct_ids, keep_behaviors
from ranker.ranking_body import RankingBody, read_vectors
from ranker.search_cache import project_ids, weights_by_field
from ranker.slots import SearchInputs
from ranker_data.batch import RankingBatch


@dataclasses.dataclass(frozen=True)
class Found:
    """What the searches of a model leave of a batch.

    Attributes:
        batch: with the behaviours that an encoder looks at.
        index: [C, k] what each searching encoder found among them, -1 for none, by its name.
    """

    batch: RankingBatch
    index: dict[str, Tensor]


class SearchPhase(nn.Module):
    """Looks all behaviours up without gradient, searches, and leaves the others out of the batch.

    So histories may be long: what is looked up with gradient are the behaviours that were found,
    and those that encoders without a search look at. A module of its own, because TorchRec's
    pipelines trace what contains tables; this one only knows them.

    Args:
        tables: of the model.
        body: of the model.

    Attributes:
        watchers: called with the inputs of a search, what it found, and the batch, by encoder.
    """

    def __init__(self, *, tables: EmbeddingTables, body: RankingBody) -> None:
        super().__init__()
        # in a tuple, they are not modules of this one
        self._model = (tables, body)
        self.watchers: dict[str, Callable[[SearchInputs, Tensor, RankingBatch], None]] = {}

    @torch.no_grad()
    def forward(self, batch: RankingBatch) -> Found:
        """Returns the batch as it is, where no encoder searches."""
        tables, body = self._model
        if not body.searchers:
            return Found(batch, {})
        ids, rows = distinct_ids(batch, body.search_keys)
        vectors = read_vectors(tables(ids), tables.sources, body.search_keys)
        lookup = Lookup(vectors, batch.bag_lengths, rows, batch.bag_weights)
        inputs = body.search_inputs(lookup, batch)
        index = {name: encoder.search(inputs) for name, encoder in body.searchers.items()}
        for name, watch in self.watchers.items():
            watch(inputs, index[name], batch)
        narrowed, place = keep_behaviors(batch, body.needed(batch, index))
        moved = {
            name: torch.where(found >= 0, place[found.clamp_min(0)], -1)
            for name, found in index.items()
        }
        return Found(narrowed, moved)

    def refresh(self, step: int) -> None:
        """Refreshes the caches that are due before a training step; every rank calls it."""
        tables, body = self._model
        for encoder in body.caching:
            if step % encoder.refresh_steps == 0:
                weights = weights_by_field(encoder.key_weight(), body.behavior.blocks)
                for part in project_ids(tables, body.schema, weights, body.cached_sizes):
                    encoder.store(*part)
