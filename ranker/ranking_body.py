"""Everything behind the lookup: encoders, gate, interaction and head."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torchrec import JaggedTensor

from ranker.embedding import KeySource
from ranker.modules.embedding_options import EmbeddingOptions
from ranker.modules.features import FeatureGroup, Lookup
from ranker.modules.selection import (
    Where,
    check_where,
    matching_behaviors,
    select_behaviors,
)
from ranker.modules.user_rows import repeat_for_candidates
from ranker.modules.windows import latest_behaviors
from ranker.search_cache import field_sizes
from ranker.slots import (
    CachingEncoder,
    FeatureLayout,
    Gate,
    Head,
    HeadInputs,
    Interaction,
    Regularizer,
    RegularizerInputs,
    SearchEncoder,
    SearchInputs,
    SequenceEncoder,
    SequenceInputs,
    TaskTargets,
)
from ranker_data.batch import BEHAVIOR_PREFIX, RankingBatch
from ranker_data.clustering import CLUSTER_SIZE
from ranker_data.schema import Schema

Embedded = list[dict[str, JaggedTensor]]


def read_vectors(
    embedded: Embedded, sources: Mapping[str, KeySource], keys: Iterable[str]
) -> dict[str, Tensor]:
    """Returns the vectors [ids, D] of some keys, waiting for them if need be."""
    return {key: sources[key].take(embedded) for key in keys}


class RankingBody(nn.Module):
    """Everything behind the lookup: users [U], behaviours [N] and candidates [C] to logits."""

    def __init__(
        self,
        *,
        schema: Schema,
        embedding: EmbeddingOptions,
        sources: Mapping[str, KeySource],
        sequence: Mapping[str, Callable[..., SequenceEncoder | SearchEncoder]],
        head: Callable[..., Head],
        gate: Callable[..., Gate] | None,
        interaction: Callable[..., Interaction] | None,
        regularizers: Mapping[str, Callable[..., Regularizer]],
        where: Mapping[str, Where],
    ) -> None:
        super().__init__()
        self.schema, self.sources = schema, dict(sources)
        inherent = schema.inherent_behaviors
        by_name = {field.name: field for field in schema.candidate_fields}
        self.user = FeatureGroup(schema.fields_of("user"), embedding.dim_of)
        self.candidate = FeatureGroup(schema.candidate_fields, embedding.dim_of)
        self.query = FeatureGroup(
            tuple(by_name[field.name] for field in inherent), embedding.dim_of
        )
        self.behavior = FeatureGroup(inherent, embedding.dim_of, prefix=BEHAVIOR_PREFIX)
        dense_behaviors = tuple(field for field in schema.behaviors if field.kind == "dense")
        # the size of a cluster is a weight, not a feature
        self.cross = FeatureGroup(
            tuple(field for field in schema.cross_behaviors if field.name != CLUSTER_SIZE),
            embedding.dim_of,
            prefix=BEHAVIOR_PREFIX,
            dense_fields=dense_behaviors,
        )
        names = [field.name for field in dense_behaviors]
        self.size_column = names.index(CLUSTER_SIZE) if CLUSTER_SIZE in names else None
        if sequence and not inherent:
            raise ValueError(
                "sequence encoders need behavior fields that the candidate has too; "
                f"{schema.name!r} has none"
            )
        self.label_names = [label.name for label in schema.labels]
        self.inherent_ids = [field.name for field in inherent if field.kind == "id"]
        self.encoders = nn.ModuleDict()
        blocks = [*self.user.blocks, *self.candidate.blocks]
        for name, build in sequence.items():
            encoder = build(query_dim=self.query.output_dim, cross_dim=self.cross.output_dim)
            self.encoders[name] = _as_module(encoder)
            blocks.append((f"sequence.{name}", encoder.output_dim))
        # asked once: whether something has the methods of a protocol takes a while
        self._searching = [n for n, e in self.encoders.items() if isinstance(e, SearchEncoder)]
        self._caching = [n for n, e in self.encoders.items() if isinstance(e, CachingEncoder)]
        self.where = {name: chosen for name, chosen in where.items() if chosen}
        self._check_where(schema)
        self.cached_sizes = self._hold_caches(schema)
        self.items = FeatureGroup(schema.fields_of("item"), embedding.dim_of)
        self.item_ids = [field.name for field in schema.fields_of("item", "id")]
        self.regularizers = nn.ModuleDict(
            {
                name: _as_module(build(schema=schema, items=_layout(self.items.blocks)))
                for name, build in regularizers.items()
            }
        )
        self.search_keys = {*self.query.keys, *self.behavior.keys, *self.cross.keys}
        layout = _layout(blocks)
        self.gate = None if gate is None else _as_module(gate(layout=layout))
        crossed = None if interaction is None else interaction(layout=layout)
        self.interaction = None if crossed is None else _as_module(crossed)
        self.head = _as_module(
            head(
                input_dim=layout.dim if crossed is None else crossed.output_dim,
                tasks=tuple(task.name for task in schema.tasks),
                layout=layout,
            )
        )

    def _check_where(self, schema: Schema) -> None:
        for name, chosen in self.where.items():
            check_where(f"sequence.{name}.where", chosen, schema)
            if name in self.searchers:
                raise ValueError(
                    f"sequence.{name}.where: an encoder that searches sees all behaviours; leave "
                    "`where` out, or choose an encoder without a search"
                )

    def _hold_caches(self, schema: Schema) -> dict[str, int]:
        """Makes room in the encoders with a cache, and returns the ids of each field in one."""
        caching = self.caching
        if not caching:
            return {}
        sizes = field_sizes(schema, [name for name, _ in self.behavior.blocks])
        for encoder in caching:
            encoder.hold(sizes)
        return sizes

    @property
    def searchers(self) -> dict[str, SearchEncoder]:
        """The encoders that search, by name."""
        return {name: cast(SearchEncoder, self.encoders[name]) for name in self._searching}

    @property
    def caching(self) -> list[CachingEncoder]:
        """The encoders that search in a cache while they are trained."""
        found = (cast(CachingEncoder, self.encoders[name]) for name in self._caching)
        return [encoder for encoder in found if encoder.refresh_steps]

    def search_inputs(self, lookup: Lookup, batch: RankingBatch) -> SearchInputs:
        """Returns what searches see of a batch."""
        return SearchInputs(
            query=self.query(lookup, batch.candidate_dense),
            behaviors=self.behavior.distinct(lookup, batch.behavior_dense),
            cross=self.cross.distinct(lookup, batch.behavior_dense),
            windows=batch.windows,
            user_of=batch.user_of,
            behavior_time=batch.behavior_time,
            time=batch.time,
            log_size=self._log_size(batch),
            query_ids={name: batch.ids[name].values() for name in self.inherent_ids},
            behavior_ids={
                name: batch.ids[BEHAVIOR_PREFIX + name].values() for name in self.inherent_ids
            },
        )

    def needed(self, batch: RankingBatch, index: Mapping[str, Tensor]) -> Tensor:
        """Returns which behaviours [N] encoders look at, given what the searching ones found."""
        # one more flag for what an index has as -1
        flags = torch.zeros(batch.num_behaviors + 1, dtype=torch.bool, device=batch.windows.device)
        for found in index.values():
            flags[found.flatten()] = True
        for name, encoder in self.encoders.items():
            if name not in index:
                # the latest of one kind may lie anywhere in the window
                length = None if name in self.where else cast(SequenceEncoder, encoder).max_length
                windows = latest_behaviors(batch.windows, length)
                edges = torch.zeros(len(flags), dtype=torch.int64, device=flags.device)
                ones = edges.new_ones(len(windows))
                edges.index_add_(0, windows[:, 0], ones).index_add_(0, windows[:, 1], -ones)
                seen = edges.cumsum(0)[:-1] > 0
                flags[:-1] |= seen & self._matching(batch, name)
        return flags[:-1]

    def _matching(self, batch: RankingBatch, name: str) -> Tensor:
        """Returns the behaviours [N] that an encoder's `where` lets it see."""
        return matching_behaviors(batch, self.where.get(name, {}))

    def _log_size(self, batch: RankingBatch) -> Tensor | None:
        column = self.size_column
        return None if column is None else batch.behavior_dense[:, column].log()

    def forward(
        self, embedded: Embedded, batch: RankingBatch, index: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Returns one logit [C] per task, and the model's own losses in training.

        Args:
            embedded: all ids of the batch.
            batch: with the behaviours that encoders look at.
            index: what the searching encoders found among them.
        """
        vectors = read_vectors(embedded, self.sources, self.sources)
        lookup = Lookup(vectors, batch.bag_lengths, bag_weights=batch.bag_weights)
        losses: dict[str, Tensor] = {}
        user = self.user(lookup, batch.user_dense)
        candidate = self.candidate(lookup, batch.candidate_dense)
        features = [repeat_for_candidates(user, batch.user_of), candidate]
        if self.encoders:
            inputs = SequenceInputs(
                query=self.query(lookup, batch.candidate_dense),
                behaviors=self.behavior(lookup, batch.behavior_dense),
                cross=self.cross(lookup, batch.behavior_dense),
                windows=batch.windows,
                user_of=batch.user_of,
                behavior_time=batch.behavior_time,
                time=batch.time,
                log_size=self._log_size(batch),
                weights=batch.weights,
                labels=self._labels(batch) if self.training else {},
                losses=losses,
            )
            features += [
                encoder(inputs, index[name])
                if name in index
                else encoder(self._select(inputs, batch, name))
                for name, encoder in self.encoders.items()
            ]
        shared = torch.cat(features, dim=1)
        gated = shared if self.gate is None else self.gate(shared)
        crossed = gated if self.interaction is None else self.interaction(gated)
        logits: dict[str, Tensor] = self.head(HeadInputs(features=crossed, embedded=shared))
        if self.training and self.regularizers:
            regularized = self._regularizer_inputs(lookup, vectors, batch)
            losses |= {name: term(regularized) for name, term in self.regularizers.items()}
        return logits, losses

    def _labels(self, batch: RankingBatch) -> dict[str, TaskTargets]:
        known = batch.weights.unsqueeze(1) * batch.label_mask
        return {
            name: TaskTargets(labels=batch.labels[:, i], weights=known[:, i])
            for i, name in enumerate(self.label_names)
        }

    def _select(self, inputs: SequenceInputs, batch: RankingBatch, name: str) -> SequenceInputs:
        if name not in self.where:
            return inputs
        return select_behaviors(inputs, self._matching(batch, name))

    def _regularizer_inputs(
        self, lookup: Lookup, vectors: Mapping[str, Tensor], batch: RankingBatch
    ) -> RegularizerInputs:
        return RegularizerInputs(
            ids={key: batch.ids[key].values() for key in self.sources},
            vectors=vectors,
            items=self.items(lookup, batch.candidate_dense),
            item_ids=torch.stack([batch.ids[name].values() for name in self.item_ids], dim=1)
            if self.item_ids
            else batch.windows[:, :0],
            weights=batch.weights,
            user_of=batch.user_of,
            windows=batch.windows,
            bag_lengths=batch.bag_lengths,
        )


def _layout(blocks: Sequence[tuple[str, int]]) -> FeatureLayout:
    return FeatureLayout(
        names=tuple(name for name, _ in blocks), widths=tuple(width for _, width in blocks)
    )


def _as_module(plugin: object) -> nn.Module:
    assert isinstance(plugin, nn.Module)
    return plugin
