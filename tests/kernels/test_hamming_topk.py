import pytest
import torch
from torch import Tensor

from ranker_kernels.hamming_topk import blocked, hamming_topk, pack_bits
from ranker_kernels.hamming_topk.reference import hamming_topk_reference

WINDOWS = {
    "disjoint": [(0, 1), (1, 9), (9, 9), (9, 60), (60, 200)],
    "overlapping": [(0, 200), (3, 141), (40, 60), (200, 200), (10, 150), (0, 33)],
    "shared": [(5, 150)] * 6 + [(0, 0)] + [(5, 150)] * 3 + [(6, 151)],
    "no candidate": [],
}


def make_inputs(windows: list[tuple[int, int]], bits: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2026)
    query = torch.rand(len(windows), bits, generator=generator) < 0.5
    keys = torch.rand(200, bits, generator=generator) < 0.5
    return pack_bits(query), pack_bits(keys), torch.tensor(windows).long().reshape(-1, 2)


# few bits make ties everywhere; 64 use the sign bit; 100 need two words
@pytest.mark.parametrize(("bits", "k"), [(4, 7), (48, 1), (64, 30), (100, 300)])
@pytest.mark.parametrize("name", WINDOWS)
def test_selection_matches_the_reference(name: str, k: int, bits: int) -> None:
    query, keys, windows = make_inputs(WINDOWS[name], bits)
    expected = hamming_topk_reference(query, keys, windows, k)
    assert torch.equal(hamming_topk(query, keys, windows, k=k), expected)


def test_small_tiles_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    query, keys, windows = make_inputs(WINDOWS["shared"], 6)
    expected = hamming_topk(query, keys, windows, k=20)
    monkeypatch.setattr(blocked, "MAX_DISTANCES", 300)
    assert torch.equal(hamming_topk(query, keys, windows, k=20), expected)


def test_bits_are_packed_in_order() -> None:
    bits = torch.zeros(2, 70, dtype=torch.bool)
    bits[0, [0, 63, 64]] = True
    bits[1, 3] = True
    assert pack_bits(bits).tolist() == [[1 - 2**63, 1], [8, 0]]


def test_the_op_is_registered_well() -> None:
    query, keys, windows = make_inputs([(0, 100), (3, 7)], 48)
    torch.library.opcheck(torch.ops.ranker_kernels.hamming_topk.default, (query, keys, windows, 5))
    search = torch.compile(
        lambda codes: hamming_topk(codes, keys, windows, k=5) + 1,
        fullgraph=True,
        backend="aot_eager",
    )
    assert torch.equal(search(query), hamming_topk(query, keys, windows, k=5) + 1)


def test_shapes_are_checked() -> None:
    query, keys, windows = make_inputs([(0, 9), (1, 5)], 48)
    with pytest.raises(ValueError, match=r"keys is torch\.float32 \[200, 1\]"):
        hamming_topk(query, keys.float(), windows, k=2)
    with pytest.raises(ValueError, match="query has 1 words and keys 2"):
        hamming_topk(query, keys.repeat(1, 2), windows, k=2)
    with pytest.raises(ValueError, match="k is 0"):
        hamming_topk(query, keys, windows, k=0)
