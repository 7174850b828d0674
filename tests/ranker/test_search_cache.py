import pytest
import torch

from ranker.search_cache import field_sizes, weights_by_field
from ranker_data.schema import Field, Schema, Table

SCHEMA = Schema(
    name="cache",
    time_unit="s",
    tables=(Table(name="item", num_embeddings=10), Table(name="tag", num_embeddings=None)),
    fields=(
        Field(name="item_id", kind="id", table="item"),
        Field(name="tag_id", kind="id", table="tag"),
        Field(name="tags", kind="ids", table="item"),
    ),
    behaviors=(
        Field(name="item_id", kind="id", table="item"),
        Field(name="tag_id", kind="id", table="tag"),
        Field(name="tags", kind="ids", table="item"),
    ),
)


def test_every_field_has_the_size_of_its_table() -> None:
    assert field_sizes(SCHEMA, ["item_id"]) == {"item_id": 10}


@pytest.mark.parametrize("name", ["tag_id", "tags"])
def test_bags_and_ids_without_a_vocabulary_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"behavior field '{name}' cannot be projected"):
        field_sizes(SCHEMA, ["item_id", name])


def test_projections_of_the_fields_add_up_to_that_of_the_whole() -> None:
    weight = torch.randn(2, 7, 3)
    parts = weights_by_field(weight, [("item_id", 5), ("tag_id", 2)])
    vector = torch.randn(7)
    expected = torch.einsum("d,hde->he", vector, weight)
    pieces = torch.split(vector, [5, 2])
    found = [
        torch.einsum("d,hde->he", piece, part)
        for piece, part in zip(pieces, parts.values(), strict=True)
    ]
    torch.testing.assert_close(found[0] + found[1], expected)
