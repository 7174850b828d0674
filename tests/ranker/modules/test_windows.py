import torch
from hypothesis import given
from hypothesis import strategies as st

from ranker.modules.windows import expand_windows

WINDOWS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 6)), max_size=8)


@given(WINDOWS)
def test_expand_windows_lists_each_range(pairs: list[tuple[int, int]]) -> None:
    windows = torch.tensor([[b, b + n] for b, n in pairs], dtype=torch.int64).reshape(-1, 2)
    rows, offsets = expand_windows(windows)
    for i, (begin, length) in enumerate(pairs):
        found = rows[offsets[i] : offsets[i + 1]].tolist()
        assert found == list(range(begin, begin + length))
