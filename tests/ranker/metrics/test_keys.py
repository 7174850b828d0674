import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.metrics.keys import group_codes, score_keys

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(values=st.lists(finite, min_size=2, max_size=30))
def test_keys_order_and_tie_like_scores(dtype: type[np.generic], values: list[float]) -> None:
    scores = np.array(values, dtype=dtype)
    keys = score_keys(scores)
    assert keys.dtype == np.uint32
    for compare in (np.less, np.equal):
        assert np.array_equal(compare.outer(keys, keys), compare.outer(scores, scores))


@pytest.mark.parametrize(
    "groups",
    [
        [5, 3, 3, 9],
        [-4, 2**30, -4, 7],
        [-(2**63), 2**63 - 1, 0, 0],
        [2**63 - 1, 2**63 - 2, 2**63 - 1],
        [2**40, 17, 2**50, 17],
    ],
)
def test_codes_lead_back_to_the_ids_in_order(groups: list[int]) -> None:
    ids = np.array(groups)
    codes = group_codes(ids)
    assert int(codes.codes.max()) < 2**31
    assert np.array_equal(codes.ids_of(codes.codes), ids)
    assert np.array_equal(np.argsort(codes.codes, stable=True), np.argsort(ids, stable=True))
