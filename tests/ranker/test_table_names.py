"""Names and patterns of tables."""

import pytest

from ranker.table_names import check_patterns, is_table, option_of, table_of


def test_an_exact_name_wins_over_patterns_and_the_first_pattern_over_later_ones() -> None:
    options = {"user_*": 1, "*_id": 2, "user_id": 3}
    assert option_of(options, "user_id") == 3
    assert option_of(options, "user_age") == 1
    assert option_of(options, "item_id") == 2
    assert option_of(options, "tag") is None


def test_what_matches_nothing_is_named_with_the_nearest() -> None:
    check_patterns("sharding.tables", ["item_*", "tag"], ["item_id", "tag"])
    with pytest.raises(
        ValueError, match=r"sharding\.tables names 'itm_id'.*did you mean 'item_id'"
    ):
        check_patterns("sharding.tables", ["itm_id"], ["item_id", "tag"])


def test_a_parameter_of_a_table_is_known_by_its_name() -> None:
    name = "model.embedding.collections.0.embeddings.item_id.weight"
    assert is_table(name)
    assert table_of(name) == "item_id"
    assert not is_table("model.body.head.weight")
