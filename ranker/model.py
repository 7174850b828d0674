"""The ranking model: embeddings, encoders, gate, interaction, head. Single-device code.

Sharding lives elsewhere.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torchrec import JaggedTensor

from ranker.embedding import EmbeddingTables, KeySource
from ranker.modules.embedding_options import EmbeddingOptions
from ranker.modules.features import FeatureGroup, Lookup
from ranker.modules.narrowing import distinct_ids, keep_behaviors
from ranker.modules.selection import (
    Where,
    check_where,
    matching_behaviors,
    select_behaviors,
)
from ranker.modules.windows import latest_behaviors
from ranker.search_cache import field_sizes, project_ids, weights_by_field
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


class RankingModel(nn.Module):
    """Looks ids up and hands everything else to the body.

    TorchRec's pipelines trace this forward, because it holds the sharded tables; the body is a leaf
    of that trace and may be any code.

    Args:
        schema: of the data set.
        embedding: widths and initialisation of the tables.
        sequence: builders of sequence encoders by name; none, one or several side by side.
        head: builder of the head.
        gate: builder of the gate on the shared embedding; None leaves it as it is.
        interaction: builder of the feature interaction; None hands the embedding to the head.
        regularizers: builders of further terms of the loss, by name.
        where: for encoders that see behaviours of one kind only, ids by behaviour field.
    """

    def __init__(
        self,
        *,
        schema: Schema,
        embedding: EmbeddingOptions,
        sequence: Mapping[str, Callable[..., SequenceEncoder | SearchEncoder]],
        head: Callable[..., Head],
        gate: Callable[..., Gate] | None = None,
        interaction: Callable[..., Interaction] | None = None,
        regularizers: Mapping[str, Callable[..., Regularizer]] | None = None,
        where: Mapping[str, Where] | None = None,
    ) -> None:
        super().__init__()
        self.embedding = EmbeddingTables(schema=schema, options=embedding)
        self.body = RankingBody(
            schema=schema,
            embedding=embedding,
            sources=self.embedding.sources,
            sequence=sequence,
            head=head,
            gate=gate,
            interaction=interaction,
            regularizers=regularizers or {},
            where=where or {},
        )
        self.search = SearchPhase(tables=self.embedding, body=self.body)

    def forward(self, batch: RankingBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Returns one logit [C] per task of the head, and the model's own losses in training."""
        # asked when the model is traced: ids that come straight from the batch are exchanged ahead
        found = self.search(batch) if self.body.searchers else Found(batch, {})
        outputs: tuple[dict[str, Tensor], dict[str, Tensor]] = self.body(
            self.embedding(found.batch.ids), found.batch, found.index
        )
        return outputs


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

    def __init__(self, *, tables: EmbeddingTables, body: "RankingBody") -> None:
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
        self.cached_sizes: dict[str, int] = {}
        for caching in self.caching:
            self.cached_sizes = field_sizes(schema, [name for name, _ in self.behavior.blocks])
            caching.hold(self.cached_sizes)
        self.where = {name: chosen for name, chosen in where.items() if chosen}
        for name, chosen in self.where.items():
            check_where(f"sequence.{name}.where", chosen, schema)
            if name in self.searchers:
                raise ValueError(
                    f"sequence.{name}.where: an encoder that searches sees all behaviours; leave "
                    "`where` out, or choose an encoder without a search"
                )
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

    @property
    def searchers(self) -> dict[str, SearchEncoder]:
        """The encoders that search, by name."""
        return {n: e for n, e in self.encoders.items() if isinstance(e, SearchEncoder)}

    @property
    def caching(self) -> list[CachingEncoder]:
        """The encoders that search in a cache while they are trained."""
        found = (e for e in self.encoders.values() if isinstance(e, CachingEncoder))
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
        features = [user[batch.user_of], candidate]
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
