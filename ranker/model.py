"""The ranking model: embeddings, sequence encoders, features, head. Single-device code.

Sharding lives elsewhere.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torchrec import JaggedTensor

from ranker.embedding import EmbeddingOptions, EmbeddingTables
from ranker.slots import Head, SequenceEncoder, SequenceInputs
from ranker_data.batch import BEHAVIOR_PREFIX, RankingBatch
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
    """

    def __init__(
        self,
        *,
        schema: Schema,
        embedding: EmbeddingOptions,
        sequence: Mapping[str, Callable[..., SequenceEncoder]],
        head: Callable[..., Head],
    ) -> None:
        super().__init__()
        self.embedding = EmbeddingTables(schema=schema, options=embedding)
        self.body = RankingBody(
            schema=schema,
            embedding=embedding,
            collection_of=self.embedding.collection_of,
            sequence=sequence,
            head=head,
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
    ) -> None:
        super().__init__()
        self.collection_of = dict(collection_of)
        inherent = schema.inherent_behaviors
        by_name = {field.name: field for field in schema.candidate_fields}
        self.user = FeatureGroup(schema.fields_of("user"), embedding)
        self.candidate = FeatureGroup(schema.candidate_fields, embedding)
        self.query = FeatureGroup(tuple(by_name[field.name] for field in inherent), embedding)
        self.behavior = FeatureGroup(inherent, embedding, prefix=BEHAVIOR_PREFIX)
        self.cross = FeatureGroup(
            schema.cross_behaviors,
            embedding,
            prefix=BEHAVIOR_PREFIX,
            dense_fields=tuple(field for field in schema.behaviors if field.kind == "dense"),
        )
        if sequence and not inherent:
            raise ValueError(
                "sequence encoders need behavior fields that the candidate has too; "
                f"{schema.name!r} has none"
            )
        self.encoders = nn.ModuleDict()
        width = self.user.output_dim + self.candidate.output_dim
        for name, build in sequence.items():
            encoder = build(query_dim=self.query.output_dim, cross_dim=self.cross.output_dim)
            assert isinstance(encoder, nn.Module)
            self.encoders[name] = encoder
            width += encoder.output_dim
        tower = head(input_dim=width, tasks=tuple(task.name for task in schema.tasks))
        assert isinstance(tower, nn.Module)
        self.head = tower

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
            )
            features += [encoder(inputs) for encoder in self.encoders.values()]
        logits: dict[str, Tensor] = self.head(torch.cat(features, dim=1))
        return logits


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
        tables = [field.table for field in fields if field.table is not None]
        self.output_dim = sum(embedding.dim_of(table) for table in tables) + len(dense)

    mean: Tensor
    std: Tensor

    def forward(self, lookup: _Lookup, dense: Tensor) -> Tensor:
        """Returns [rows, output_dim] from the embedded ids and the raw dense columns [rows, F]."""
        columns = [lookup(key) for key in self.keys]
        if self.dense_columns or not columns:
            columns.append((dense[:, self.dense_columns] - self.mean) / self.std)
        return torch.cat(columns, dim=1)
