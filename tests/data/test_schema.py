from pathlib import Path

import pytest

from ranker_data.schema import (
    Field,
    Label,
    Schema,
    SchemaError,
    Table,
    Task,
    read_schema,
    write_schema,
)


def test_a_schema_survives_writing_and_reading(tiny_schema: Schema, tmp_path: Path) -> None:
    write_schema(tiny_schema, tmp_path)
    assert read_schema(tmp_path) == tiny_schema


def test_inherent_and_cross_behaviors_are_told_apart(tiny_schema: Schema) -> None:
    assert [f.name for f in tiny_schema.inherent_behaviors] == ["item_id", "category"]
    assert [f.name for f in tiny_schema.cross_behaviors] == ["event", "dwell"]


def test_fields_can_be_left_out(tiny_schema: Schema) -> None:
    smaller = tiny_schema.without(["price", "behavior.event"])
    assert "price" not in {f.name for f in smaller.fields}
    assert [f.name for f in smaller.cross_behaviors] == ["dwell"]


def test_a_schema_lists_all_that_is_wrong_with_it() -> None:
    with pytest.raises(SchemaError) as error:
        Schema(
            name="bad",
            time_unit="s",
            tables=(Table(name="item", num_embeddings=0),),
            fields=(
                Field(name="item_id", kind="id", table="itm"),
                Field(name="user", kind="id", side="user", table="item"),
                Field(name="price", kind="dense", std=0.0),
            ),
            behaviors=(Field(name="item_id", kind="ids", table="item"),),
            labels=(Label(name="click"), Label(name="buy", requires="clik")),
            tasks=(Task(name="ctr", label="clicks"),),
            domain="tab",
        )
    text = str(error.value)
    for problem in (
        "num_embeddings is 0",
        "table 'itm' is unknown; did you mean 'item'?",
        "field 'user' uses the name of another column",
        "std must be positive, got 0.0",
        "behavior 'item_id' differs in kind or table",
        "label 'buy' requires the unknown label 'clik'",
        "label 'clicks' is unknown; did you mean 'click'?",
        "domain 'tab' must be one of the id fields",
    ):
        assert problem in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "must be a mapping, got list"),
        ("a: [", "is not valid YAML"),
        ("name: x\ntime_unit: s\ntables: []\nfields: []\nlabls: []\n", "did you mean 'labels'"),
        ("name: x\ntables: []\nfields: []\n", "key 'time_unit' is missing"),
        ("name: x\ntime_unit: h\ntables: []\nfields: []\n", "time_unit is 'h', must be one of"),
        ("name: x\ntime_unit: s\ntables: []\nfields: []\nformat: 9\n", "format is 9, must be 1"),
        ("!!python/object/apply:os.system [ls]", "is not valid YAML"),
    ],
)
def test_a_bad_file_is_explained(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "schema.yaml").write_text(text)
    with pytest.raises(SchemaError, match=message):
        read_schema(tmp_path)
