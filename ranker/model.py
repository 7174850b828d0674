"""The ranking model: embeddings, encoders, gate, interaction, head. Single-device code.

Sharding lives elsewhere.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torchrec import JaggedTensor

from ranker.embedding import EmbeddingOptions, EmbeddingTables
from ranker.slots import (
    FeatureLayout,
    Gate,
    Head,
    HeadInputs,
    Interaction,
    SequenceEncoder,
    SequenceInputs,
)
from ranker_data.batch import BEHAVIOR_PREFIX, RankingBatch
from ranker_data.clustering import CLUSTER_SIZE
from ranker_data.schema import Field, Schema

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
    """

    def __init__(
        self,
        *,
        schema: Schema,
        embedding: EmbeddingOptions,
        sequence: Mapping[str, Callable[..., SequenceEncoder]],
        head: Callable[..., Head],
        gate: Callable[..., Gate] | None = None,
        interaction: Callable[..., Interaction] | None = None,
    ) -> None:
        super().__init__()
        self.embedding = EmbeddingTables(schema=schema, options=embedding)
        self.body = RankingBody(
            schema=schema,
            embedding=embedding,
            collection_of=self.embedding.collection_of,
            sequence=sequence,
            head=head,
            gate=gate,
            interaction=interaction,
        )

    def forward(self, batch: RankingBatch) -> dict[str, Tensor]:
        """Returns one logit [C] per task of the head."""
        logits: dict[str, Tensor] = self.body(self.embedding(batch.ids), batch)
        return logits


class RankingBody(nn.Module):
    """Everything behind the lookup: users [U], behaviours [N] and candidates [C] to logits."""

    def __init__(
        self,
        *,
        schema: Schema,
        embedding: EmbeddingOptions,
        collection_of: Mapping[str, int],
        sequence: Mapping[str, Callable[..., SequenceEncoder]],
        head: Callable[..., Head],
        gate: Callable[..., Gate] | None = None,
        interaction: Callable[..., Interaction] | None = None,
    ) -> None:
        super().__init__()
        self.collection_of = dict(collection_of)
        inherent = schema.inherent_behaviors
        by_name = {field.name: field for field in schema.candidate_fields}
        self.user = FeatureGroup(schema.fields_of("user"), embedding)
        self.candidate = FeatureGroup(schema.candidate_fields, embedding)
        self.query = FeatureGroup(tuple(by_name[field.name] for field in inherent), embedding)
        self.behavior = FeatureGroup(inherent, embedding, prefix=BEHAVIOR_PREFIX)
        dense_behaviors = tuple(field for field in schema.behaviors if field.kind == "dense")
        # the size of a cluster is a weight, not a feature
        self.cross = FeatureGroup(
            tuple(field for field in schema.cross_behaviors if field.name != CLUSTER_SIZE),
            embedding,
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
        self.encoders = nn.ModuleDict()
        blocks = [*self.user.blocks, *self.candidate.blocks]
        for name, build in sequence.items():
            encoder = build(query_dim=self.query.output_dim, cross_dim=self.cross.output_dim)
            self.encoders[name] = _as_module(encoder)
            blocks.append((f"sequence.{name}", encoder.output_dim))
        layout = FeatureLayout(
            names=tuple(name for name, _ in blocks), widths=tuple(width for _, width in blocks)
        )
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

    def forward(self, embedded: Embedded, batch: RankingBatch) -> dict[str, Tensor]:
        """Returns one logit [C] per task."""
        lookup = _Lookup(embedded, batch, self.collection_of)
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
                log_size=None
                if self.size_column is None
                else batch.behavior_dense[:, self.size_column].log(),
            )
            features += [encoder(inputs) for encoder in self.encoders.values()]
        shared = torch.cat(features, dim=1)
        gated = shared if self.gate is None else self.gate(shared)
        crossed = gated if self.interaction is None else self.interaction(gated)
        logits: dict[str, Tensor] = self.head(HeadInputs(features=crossed, embedded=shared))
        return logits


def _as_module(plugin: object) -> nn.Module:
    assert isinstance(plugin, nn.Module)
    return plugin


class _Lookup:
    """Embedded ids by key: [rows, D].

    Multi-valued ids averaged over their bag (an empty bag gives zeros).
    """

    def __init__(
        self, embedded: Embedded, batch: RankingBatch, collection_of: Mapping[str, int]
    ) -> None:
        self.embedded, self.batch, self.collection_of = embedded, batch, collection_of
        self.pooled: dict[str, Tensor] = {}

    def __call__(self, key: str) -> Tensor:
        if key not in self.pooled:
            values: Tensor = self.embedded[self.collection_of[key]][key].values()
            lengths = self.batch.bag_lengths.get(key)
            if lengths is not None:
                sums = torch.segment_reduce(values, "sum", lengths=lengths, unsafe=True)
                values = sums / lengths.clamp_min(1).unsqueeze(1)
            self.pooled[key] = values
        return self.pooled[key]


class FeatureGroup(nn.Module):
    """Concatenates the embedded and the standardised dense fields of one kind of row.

    Args:
        fields: in the order of the output.
        embedding: widths of the tables.
        prefix: of the fields' keys in the id tensor.
        dense_fields: the fields behind the columns of the dense tensor; by default the dense ones
            of `fields`.
    """

    def __init__(
        self,
        fields: tuple[Field, ...],
        embedding: EmbeddingOptions,
        prefix: str = "",
        dense_fields: tuple[Field, ...] | None = None,
    ) -> None:
        super().__init__()
        self.keys = [prefix + field.name for field in fields if field.table is not None]
        dense = [field for field in fields if field.table is None]
        columns = (
            [f.name for f in dense] if dense_fields is None else [f.name for f in dense_fields]
        )
        self.dense_columns = [columns.index(field.name) for field in dense]
        self.register_buffer(
            "mean", torch.tensor([field.mean for field in dense]), persistent=False
        )
        self.register_buffer("std", torch.tensor([field.std for field in dense]), persistent=False)
        # name and width of each feature in the order of the output
        self.blocks = [
            (field.name, embedding.dim_of(field.table))
            for field in fields
            if field.table is not None
        ]
        self.blocks += [(field.name, 1) for field in dense]
        self.output_dim = sum(width for _, width in self.blocks)

    mean: Tensor
    std: Tensor

    def forward(self, lookup: _Lookup, dense: Tensor) -> Tensor:
        """Returns [rows, output_dim] from the embedded ids and the raw dense columns [rows, F]."""
        columns = [lookup(key) for key in self.keys]
        if self.dense_columns or not columns:
            columns.append((dense[:, self.dense_columns] - self.mean) / self.std)
        return torch.cat(columns, dim=1)
