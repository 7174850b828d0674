import dataclasses

import pytest
import torch
from torchrec import KeyedJaggedTensor

from ranker.embedding import EmbeddingTables, _fill, describe_collisions, table_keys
from ranker.modules.embedding_options import EmbeddingOptions, UnifiedOptions
from ranker.modules.id_hash import count_collisions, hash_ids, salt_of
from ranker_data.schema import Schema, Table


def test_a_shard_is_filled_as_its_part_of_the_whole() -> None:
    whole = torch.empty(10_000, 6)
    _fill(whole, 0, 0, 6, 0.01, seed=5)
    for first_row, rows, first_column, width in [
        (0, 3000, 0, 6),
        (3000, 7000, 0, 6),
        (4095, 2, 2, 3),
    ]:
        piece = torch.empty(rows, width)
        _fill(piece, first_row, first_column, 6, 0.01, seed=5)
        expected = whole[first_row : first_row + rows, first_column : first_column + width]
        torch.testing.assert_close(piece, expected, rtol=0, atol=0)
    assert abs(whole.std().item() - 0.01) < 1e-3
    assert not torch.equal(whole[:4096], whole[4096:8192])


def build(schema: Schema, **options: object) -> EmbeddingTables:
    tables = EmbeddingTables(schema=schema, options=EmbeddingOptions(dim=4, **options))  # type: ignore[arg-type]
    tables.to_empty(device="cpu")
    for parameter in tables.parameters():
        torch.nn.init.normal_(parameter)
    return tables


def sized(schema: Schema, table: str, size: int | None) -> Schema:
    changed = [
        Table(name=t.name, num_embeddings=size if t.name == table else t.num_embeddings)
        for t in schema.tables
    ]
    return dataclasses.replace(schema, tables=tuple(changed))


def ids_of(schema: Schema, values: list[int]) -> KeyedJaggedTensor:
    """One user; the ids are those of items, other keys have as many, within their tables."""
    keys = {key: table for table, keys in table_keys(schema).items() for key in keys}
    ids = [
        [value if table == "item_id" else value % 3 for value in values] for table in keys.values()
    ]
    return KeyedJaggedTensor(
        keys=list(keys),
        values=torch.tensor(ids).flatten(),
        lengths=torch.tensor([len(values)] * len(keys)),
    )


def test_multiplexed_ids_are_rows_of_one_table_side_by_side(tiny_schema: Schema) -> None:
    unified = UnifiedOptions(rows=50, dim=3, lookups={"item_id": 2, "tag": 1})
    tables = build(tiny_schema, unified=unified)
    assert "unified" in tables.table_names
    assert "item_id" not in tables.table_names
    embedded = tables(ids_of(tiny_schema, [1, 3, 5]))
    weights = {name.split(".")[-2]: weight for name, weight in tables.named_parameters()}
    assert weights["unified"].shape == (50, 3)
    ids = torch.tensor([1, 3, 5])
    rows = [hash_ids(ids, salt=salt_of(0, "item_id", i), num_rows=50) for i in range(2)]
    expected = torch.cat([weights["unified"][r] for r in rows], dim=1)
    for key in ("item_id", "behavior.item_id"):
        torch.testing.assert_close(tables.sources[key].take(embedded), expected)
    torch.testing.assert_close(
        tables.sources["category"].take(embedded), weights["category"][ids % 3]
    )
    # id spaces have salts of their own
    assert not torch.equal(hash_ids(ids, salt=salt_of(0, "tag", 0), num_rows=50), rows[0])


def test_ids_without_a_vocabulary_are_hashed(tiny_schema: Schema) -> None:
    schema = sized(tiny_schema, "item_id", None)
    with pytest.raises(
        ValueError, match=r"'item_id' has no vocabulary.*\+embedding.hashed.item_id"
    ):
        build(schema)
    tables = build(schema, hashed={"item_id": 30})
    embedded = tables(ids_of(tiny_schema, [2**62, 4]))
    weight = dict(tables.named_parameters())["collections.0.embeddings.item_id.weight"]
    rows = hash_ids(torch.tensor([2**62, 4]), salt=salt_of(0, "item_id"), num_rows=30)
    torch.testing.assert_close(tables.sources["item_id"].take(embedded), weight[rows])


def test_collisions_are_told(tiny_schema: Schema) -> None:
    options = EmbeddingOptions(
        dim=4,
        hashed={"user_id": 64, "tag": 1000},
        unified=UnifiedOptions(rows=100, dim=2, lookups={"category": 2}),
    )
    lines = describe_collisions(sized(tiny_schema, "tag", None), options)
    salt = salt_of(0, "user_id")
    share = count_collisions(64, salt=salt, num_rows=64) / 64
    assert lines[0] == (
        f"table user_id: 64 ids hashed into 64 rows, {share:.1%} of them share one with another "
        "id of this table"
    )
    assert "in each of 2 lookups" in lines[1]
    assert "1,000 distinct ids would share a row with a chance of 63.2%" in lines[2]
    assert describe_collisions(tiny_schema, EmbeddingOptions(dim=4)) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hashed": {"itme": 9}}, "embedding.hashed names the table 'itme'; the data set has"),
        ({"dims": {"itme": 9}}, "embedding.dims names the table 'itme'"),
        ({"hashed": {"item_id": 0}}, "embedding.hashed.item_id is 0; it must be at least 1"),
        (
            {"unified": UnifiedOptions(rows=9, dim=2, lookups={"tag": 1}), "dims": {"tag": 8}},
            "embedding.dims names 'tag', which embedding.unified.lookups puts",
        ),
        (
            {"unified": UnifiedOptions(rows=9, dim=2, lookups={"itme": 1})},
            "embedding.unified.lookups names the table 'itme'",
        ),
    ],
)
def test_bad_options_are_refused(
    tiny_schema: Schema, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(tiny_schema, **options)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rows": 0, "dim": 1, "lookups": {"a": 1}}, "unified.rows is 0"),
        ({"rows": 1, "dim": 1, "lookups": {}}, "lookups is empty"),
        ({"rows": 1, "dim": 1, "lookups": {"a": 0}}, "lookups.a is 0"),
    ],
)
def test_a_shared_table_needs_rows_and_lookups(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UnifiedOptions(**values)  # type: ignore[arg-type]
