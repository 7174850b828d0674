from torch import Size

from ranker.warm_start import match_tensors

TABLE = "model.embedding.collections.0.embeddings.item.weight"


def test_what_fits_is_told_apart_from_what_does_not() -> None:
    match = match_tensors(
        {
            TABLE: Size([12, 4]),
            "model.a": Size([3]),
            "model.b": Size([3, 2]),
            "model.c": Size([1]),
        },
        {
            TABLE: Size([10, 4]),
            "model.a": Size([3]),
            "model.b": Size([2, 2]),
            "model.d": Size([1]),
        },
        hashed=(),
    )
    assert match.same == ("model.a",)
    assert match.grown == {TABLE: (10, 12)}
    # a layer with more rows is another layer
    assert match.fresh == ("model.b", "model.c")
    assert match.unused == ("model.d",)
    assert match.describe() == [
        "took 1 tensors as they are",
        f"took the first 10 rows of {TABLE}, which has 12 now",
        "begins afresh: model.b",
        "begins afresh: model.c",
        "not used: model.d",
    ]


def test_a_smaller_or_wider_table_begins_afresh() -> None:
    for now in (Size([9, 4]), Size([12, 5]), Size([12])):
        assert match_tensors({TABLE: now}, {TABLE: Size([10, 4])}, ()).fresh == (TABLE,)


def test_a_hashed_table_is_taken_whole_or_not_at_all() -> None:
    # of another number of rows, every id would find the row of another
    saved = {TABLE: Size([10, 4])}
    assert match_tensors({TABLE: Size([12, 4])}, saved, hashed=["item"]).fresh == (TABLE,)
    assert match_tensors({TABLE: Size([10, 4])}, saved, hashed=["item"]).same == (TABLE,)
    assert match_tensors({TABLE: Size([12, 4])}, saved, hashed=["user"]).grown == {TABLE: (10, 12)}
