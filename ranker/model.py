"""The ranking model: a lookup, and everything behind it. Single-device code.

Sharding lives elsewhere.
"""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from ranker.embedding import EmbeddingTables
from ranker.modules.embedding_options import EmbeddingOptions
from ranker.modules.selection import Where
from ranker.ranking_body import RankingBody
from ranker.search_phase import Found, SearchPhase
from ranker.slots import Gate, Head, Interaction, Regularizer, SearchEncoder, SequenceEncoder
from ranker_data.batch import RankingBatch
from ranker_data.schema import Schema


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
