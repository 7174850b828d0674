import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ranker.modules.projections import Projections
from ranker.sequence.full_attention import FullAttention
from ranker.sequence.twin import TWIN, ScorePrecision, round_rows
from ranker.slots import SearchInputs, SequenceInputs

NUM_BEHAVIORS = 90
WINDOWS = [[0, 40], [0, 40], [3, 38], [40, 40], [40, 47], [47, 90]]


def make_inputs(cross_dim: int = 3, windows: list[list[int]] = WINDOWS) -> SequenceInputs:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, requires_grad=True)

    count = len(windows)
    return SequenceInputs(
        query=draw(count, 8),
        behaviors=draw(NUM_BEHAVIORS, 8),
        cross=draw(NUM_BEHAVIORS, cross_dim),
        windows=torch.tensor(windows, dtype=torch.int64).reshape(-1, 2),
        user_of=torch.arange(count),
        behavior_time=torch.arange(NUM_BEHAVIORS),
        time=torch.full((count,), 99),
    )


def make_twin(k: int, cross_dim: int = 3) -> TWIN:
    torch.manual_seed(3)
    twin = TWIN(query_dim=8, cross_dim=cross_dim, output_dim=5, k=k, num_heads=3, head_dim=4)
    # W^h starts as W^q and the bias at zero; let them say something of their own
    torch.nn.init.normal_(twin.attention.key_weight)
    if twin.attention.cross is not None:
        torch.nn.init.normal_(twin.attention.cross.weight)
    return twin


def full_attention_of(twin: TWIN) -> FullAttention:
    cross_dim = 0 if twin.attention.cross is None else twin.attention.cross.in_features
    full = FullAttention(query_dim=8, cross_dim=cross_dim, output_dim=5, num_heads=3, head_dim=4)
    full.load_state_dict(twin.state_dict())
    return full


def gradients(
    module: torch.nn.Module, inputs: SequenceInputs, encode: Callable[..., Tensor]
) -> list[Tensor]:
    leaves = [inputs.query, inputs.behaviors, inputs.cross, *module.parameters()]
    # cross features of width 0 are not looked at
    leaves = [leaf for leaf in leaves if leaf.numel()]
    # an even upstream gradient would hide errors in the order of candidates
    output = encode(module, inputs)
    upstream = torch.arange(output.numel()).view_as(output).cos()
    return list(torch.autograd.grad(output, leaves, upstream))


@pytest.mark.parametrize("cross_dim", [0, 3])
def test_with_k_of_the_length_twin_is_full_attention(
    cross_dim: int, encode: Callable[..., Tensor]
) -> None:
    inputs, twin = make_inputs(cross_dim), make_twin(43, cross_dim)
    full = full_attention_of(twin)
    torch.testing.assert_close(encode(twin, inputs), encode(full, inputs), atol=1e-6, rtol=1e-6)
    for actual, expected in zip(
        gradients(twin, inputs, encode), gradients(full, inputs, encode), strict=True
    ):
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_scores_and_values_follow_the_paper(encode: Callable[..., Tensor]) -> None:
    inputs, twin = make_inputs(windows=[[2, 12]]), make_twin(100)
    attention = twin.attention
    assert attention.cross is not None
    k_h, k_c = inputs.behaviors[2:12], inputs.cross[2:12]
    heads = []
    for a in range(3):
        keys, target = k_h @ attention.key_weight[a], inputs.query[0] @ attention.query_weight[a]
        alpha = keys @ target / 4**0.5 + k_c @ attention.cross.weight[a]
        values = torch.cat([k_h, k_c], dim=1) @ attention.value_weight[a]
        heads.append(alpha.softmax(0) @ values)
    expected = attention.output.weight @ torch.cat(heads)
    torch.testing.assert_close(encode(twin, inputs)[0], expected)


def test_only_selected_behaviors_learn(
    encode: Callable[..., Tensor], search_inputs: Callable[..., SearchInputs]
) -> None:
    inputs, twin = make_inputs(), make_twin(4)
    index = twin.search(search_inputs(inputs))
    assert index.shape == (len(WINDOWS), 4)
    selected = set(index[index >= 0].tolist())
    assert len(selected) < NUM_BEHAVIORS / 2
    by_name = gradients(twin, inputs, encode)
    for grad in by_name[1:3]:
        touched = set(grad.abs().sum(1).nonzero()[:, 0].tolist())
        assert touched == selected


def test_the_search_keeps_what_the_attention_weighs_most(
    search_inputs: Callable[..., SearchInputs],
) -> None:
    inputs = make_inputs(windows=[[0, 90]])
    torch.manual_seed(3)
    twin = TWIN(query_dim=8, cross_dim=3, output_dim=5, k=10, num_heads=1, head_dim=4)
    query = twin.attention.absorb(inputs.query)
    bias = twin.attention.bias(inputs.cross, None)
    assert bias is not None
    scores = (inputs.behaviors @ query[0].T + bias)[:, 0]
    kept = twin.search(search_inputs(inputs))[0].tolist()
    assert kept == sorted(scores.topk(10).indices.tolist())


def test_before_it_learned_anything_scores_are_a_likeness() -> None:
    torch.manual_seed(3)
    attention = TWIN(query_dim=8, cross_dim=3, output_dim=5).attention
    rows = torch.randn(30, 8)
    scores = torch.einsum("chd,bd->hcb", attention.absorb(rows), rows)
    # an inner product: no candidate starts out by disliking what is like itself
    torch.testing.assert_close(scores, scores.mT)
    assert (scores.diagonal(dim1=1, dim2=2) > 0).all()
    # the two learn apart
    assert attention.key_weight.data_ptr() != attention.query_weight.data_ptr()


def test_a_candidate_does_not_depend_on_its_batch_mates(encode: Callable[..., Tensor]) -> None:
    inputs, twin = make_inputs(), make_twin(6)
    together = encode(twin, inputs)
    for c in range(len(WINDOWS)):
        alone = dataclasses.replace(
            inputs, query=inputs.query[c : c + 1], windows=inputs.windows[c : c + 1]
        )
        torch.testing.assert_close(encode(twin, alone)[0], together[c])


def test_empty_windows_give_zeros_and_every_parameter_a_gradient(
    encode: Callable[..., Tensor],
) -> None:
    twin = make_twin(6)
    inputs = make_inputs()
    assert encode(twin, inputs)[3].abs().max() == 0
    nothing = dataclasses.replace(
        inputs,
        behaviors=inputs.behaviors[:0],
        cross=inputs.cross[:0],
        windows=torch.zeros(len(WINDOWS), 2, dtype=torch.int64),
    )
    for encoder in (twin, full_attention_of(twin)):
        output = encode(encoder, nothing)
        assert output.shape == (len(WINDOWS), 5)
        assert output.abs().max() == 0
        output.sum().backward()  # type: ignore[no-untyped-call]
        assert all(parameter.grad is not None for parameter in encoder.parameters())


@pytest.mark.parametrize("k", [6, 100])
def test_clusters_of_one_event_change_nothing(k: int, encode: Callable[..., Tensor]) -> None:
    inputs, twin = make_inputs(), make_twin(k)
    ones = dataclasses.replace(inputs, log_size=torch.zeros(NUM_BEHAVIORS))
    torch.testing.assert_close(encode(twin, ones), encode(twin, inputs))


@pytest.mark.parametrize("cross_dim", [0, 3])
def test_a_cluster_of_n_identical_events_equals_n_copies(
    cross_dim: int, encode: Callable[..., Tensor]
) -> None:
    inputs, twin = make_inputs(cross_dim, [[0, NUM_BEHAVIORS]]), make_twin(1000, cross_dim)
    sizes = torch.randint(1, 6, (NUM_BEHAVIORS,), generator=torch.Generator().manual_seed(4))
    copies = dataclasses.replace(
        inputs,
        behaviors=inputs.behaviors.repeat_interleave(sizes, dim=0),
        cross=inputs.cross.repeat_interleave(sizes, dim=0),
        windows=torch.tensor([[0, int(sizes.sum())]]),
    )
    clustered = dataclasses.replace(inputs, log_size=sizes.float().log())
    expected = encode(twin, copies)
    torch.testing.assert_close(encode(twin, clustered), expected)
    torch.testing.assert_close(encode(full_attention_of(twin), clustered), expected)


def test_a_large_cluster_is_found_first(search_inputs: Callable[..., SearchInputs]) -> None:
    inputs, twin = make_inputs(windows=[[0, 90]]), make_twin(1)
    log_size = torch.zeros(NUM_BEHAVIORS)
    log_size[57] = 50.0
    found = twin.search(search_inputs(dataclasses.replace(inputs, log_size=log_size)))
    assert found.tolist() == [[57]]


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_a_rounded_search_attends_in_full_precision(
    precision: ScorePrecision,
    encode: Callable[..., Tensor],
    search_inputs: Callable[..., SearchInputs],
) -> None:
    inputs, twin = make_inputs(windows=[[0, 90]]), make_twin(20)
    seen = search_inputs(inputs)
    exact = twin.search(seen)
    assert torch.equal(exact, twin.exact_search(seen))
    twin.score_precision = precision
    rounded = twin.search(seen)
    assert torch.equal(exact, twin.exact_search(seen))
    assert len(set(exact[0].tolist()) & set(rounded[0].tolist())) >= 17
    torch.testing.assert_close(encode(twin, inputs), twin(inputs, rounded), atol=0, rtol=0)


def test_int8_keeps_127_steps_of_the_largest_element() -> None:
    rows = torch.tensor([[1.27, -0.634, 0.006], [0.0, 0.0, 0.0]])
    expected = torch.tensor([[1.27, -0.63, 0.01], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(round_rows(rows, "int8"), expected)


def test_a_fresh_cache_of_projections_finds_the_same_and_a_stale_one_may_not(
    search_inputs: Callable[..., SearchInputs],
) -> None:
    twin = make_twin(10)
    generator = torch.Generator().manual_seed(11)
    tables = {"item": torch.randn(30, 5, generator=generator), "kind": torch.randn(4, 3)}
    inputs = make_inputs()
    ids = {
        name: torch.randint(len(table), (NUM_BEHAVIORS,), generator=generator)
        for name, table in tables.items()
    }
    rows = torch.cat([table[ids[name]] for name, table in tables.items()], dim=1)
    seen = search_inputs(dataclasses.replace(inputs, behaviors=rows))
    seen = dataclasses.replace(seen, behavior_ids=ids)
    expected = twin.search(seen)
    weights = dict(
        zip(tables, torch.split(twin.attention.key_weight.detach(), [5, 3], 1), strict=True)
    )
    vectors = {
        name: torch.einsum("vd,hde->vhe", table, weights[name]).flatten(1)
        for name, table in tables.items()
    }
    twin.projections = Projections(vectors)
    assert torch.equal(twin.search(seen), expected)
    # only what was projected comes from the cache: the candidates are fresh
    torch.nn.init.normal_(twin.attention.key_weight)
    assert torch.equal(twin.search(seen), expected)
    twin.projections = None
    assert not torch.equal(twin.search(seen), expected)


def timed_twin(k: int) -> TWIN:
    torch.manual_seed(3)
    twin = TWIN(
        query_dim=8,
        cross_dim=3,
        output_dim=5,
        k=k,
        num_heads=3,
        head_dim=4,
        time_frequencies=4,
        time_periods=(10.0, 400.0),
        score_scale=2.0,
    )
    assert twin.attention.gaps is not None
    torch.nn.init.normal_(twin.attention.gaps.weight)
    return twin


def test_search_and_attention_see_the_time_since_a_behavior_alike(
    encode: Callable[..., Tensor], search_inputs: Callable[..., SearchInputs]
) -> None:
    inputs, twin = make_inputs(), timed_twin(100)
    gaps = twin.attention.gaps
    assert gaps is not None
    bias = torch.einsum("chr,jr->cjh", gaps.query(inputs.time), gaps.keys(inputs.behavior_time))
    scores = torch.einsum("chd,jd->cjh", twin.attention.absorb(inputs.query), inputs.behaviors)
    cross = twin.attention.bias(inputs.cross, None)
    assert cross is not None
    scores = scores + cross + 2.0 * bias
    values = torch.cat([inputs.behaviors, inputs.cross], dim=1)
    pooled = torch.einsum("jh,jv->hv", scores[0, :40].softmax(0), values[:40])
    heads = torch.einsum("hv,hve->he", pooled, twin.attention.value_weight)
    expected = twin.attention.output(heads.flatten())
    torch.testing.assert_close(encode(twin, inputs)[0], expected)

    single = timed_twin(7)
    found = single.search(search_inputs(inputs))
    assert torch.equal(found, single.exact_search(search_inputs(inputs)))
    # the best of every head are among them
    assert set(scores[0, :40].argmax(0).tolist()) <= set(found[0].tolist())
    later = dataclasses.replace(inputs, time=inputs.time + 150)
    assert not torch.equal(single.search(search_inputs(later)), found)


def test_scores_are_scaled_and_nothing_else(encode: Callable[..., Tensor]) -> None:
    inputs, twin = make_inputs(), make_twin(100)
    torch.manual_seed(3)
    scaled = TWIN(query_dim=8, cross_dim=3, output_dim=5, num_heads=3, head_dim=4, score_scale=4.0)
    scaled.load_state_dict(twin.state_dict())
    assert twin.attention.cross is not None
    with torch.no_grad():
        twin.attention.query_weight.mul_(4.0)
        twin.attention.cross.weight.mul_(4.0)
    torch.testing.assert_close(encode(scaled, inputs), encode(twin, inputs))


def test_in_training_the_search_reads_what_the_last_refresh_left(
    search_inputs: Callable[..., SearchInputs],
) -> None:
    torch.manual_seed(3)
    twin = TWIN(query_dim=8, cross_dim=3, output_dim=5, k=10, num_heads=3, refresh_steps=5)
    twin.hold({"item": 30})
    table = torch.randn(30, 8, generator=torch.Generator().manual_seed(1))
    ids = torch.randint(30, (NUM_BEHAVIORS,), generator=torch.Generator().manual_seed(2))
    seen = search_inputs(dataclasses.replace(make_inputs(), behaviors=table[ids]))
    seen = dataclasses.replace(seen, behavior_ids={"item": ids})
    exact = twin.exact_search(seen)
    projected = torch.einsum("vd,hde->vhe", table, twin.key_weight().detach()).flatten(1)
    # in two parts, as the refresh does
    twin.store("item", 0, projected[:20])
    twin.store("item", 20, projected[20:])
    assert torch.equal(twin.search(seen), exact)
    torch.nn.init.normal_(twin.attention.key_weight)
    assert torch.equal(twin.search(seen), exact)
    assert torch.equal(twin.eval().search(seen), twin.exact_search(seen))
    assert not torch.equal(twin.search(seen), exact)
    assert "cached_item" in twin.state_dict()


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="refresh_steps is -1"):
        TWIN(query_dim=8, cross_dim=0, output_dim=4, refresh_steps=-1)
    with pytest.raises(ValueError, match="score_scale is 0"):
        TWIN(query_dim=8, cross_dim=0, output_dim=4, score_scale=0)
    with pytest.raises(ValueError, match="k is 0"):
        make_twin(0)
    with pytest.raises(ValueError, match="score_precision is 'int4'; must be one of float32"):
        TWIN(query_dim=8, cross_dim=0, output_dim=4, score_precision="int4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_heads is 0"):
        TWIN(query_dim=8, cross_dim=0, output_dim=4, num_heads=0)
