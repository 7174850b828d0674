import pytest

from ranker.embedding import EmbeddingTables
from ranker.modules.embedding_options import EmbeddingOptions
from ranker.placement import Sharding, ShardingOptions, build_planner, build_topology
from ranker_data.schema import Field, Schema, Table


def build_tables() -> EmbeddingTables:
    schema = Schema(
        name="one",
        time_unit="s",
        tables=(Table(name="item", num_embeddings=1000),),
        fields=(Field(name="item", kind="id", side="item", table="item"),),
    )
    return EmbeddingTables(schema=schema, options=EmbeddingOptions(dim=8))


@pytest.mark.parametrize(
    ("ranks", "chosen", "planned"),
    [
        (1, "row_wise", "table_wise"),
        (2, "row_wise", "row_wise"),
        (1, "column_wise", "column_wise"),
        (1, "data_parallel", "data_parallel"),
    ],
)
def test_one_rank_does_not_pay_for_spreading_rows(
    ranks: int, chosen: Sharding, planned: str
) -> None:
    options = ShardingOptions(default=chosen)
    topology = build_topology(options, device="cpu", world_size=ranks, local_world_size=ranks)
    planner = build_planner(build_tables(), options, topology, batch_size=16)
    constraint = planner._enumerator._constraints["item"]
    assert constraint.sharding_types == [planned]
