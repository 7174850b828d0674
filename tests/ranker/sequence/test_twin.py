import dataclasses

import pytest
import torch
from torch import Tensor

from ranker.sequence.full_attention import FullAttention
from ranker.sequence.twin import TWIN
from ranker.slots import SequenceInputs

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
    # the bias starts at zero; give it something to say
    if twin.attention.cross is not None:
        torch.nn.init.normal_(twin.attention.cross.weight)
    return twin


def full_attention_of(twin: TWIN) -> FullAttention:
    cross_dim = 0 if twin.attention.cross is None else twin.attention.cross.in_features
    full = FullAttention(query_dim=8, cross_dim=cross_dim, output_dim=5, num_heads=3, head_dim=4)
    full.load_state_dict(twin.state_dict())
    return full


def gradients(module: torch.nn.Module, inputs: SequenceInputs) -> list[Tensor]:
    leaves = [inputs.query, inputs.behaviors, inputs.cross, *module.parameters()]
    # an even upstream gradient would hide errors in the order of candidates
    output = module(inputs)
    upstream = torch.arange(output.numel()).view_as(output).cos()
    return list(torch.autograd.grad(output, leaves, upstream))


@pytest.mark.parametrize("cross_dim", [0, 3])
def test_with_k_of_the_length_twin_is_full_attention(cross_dim: int) -> None:
    inputs, twin = make_inputs(cross_dim), make_twin(43, cross_dim)
    full = full_attention_of(twin)
    torch.testing.assert_close(twin(inputs), full(inputs), atol=1e-6, rtol=1e-6)
    for actual, expected in zip(gradients(twin, inputs), gradients(full, inputs), strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_scores_and_values_follow_the_paper() -> None:
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
    torch.testing.assert_close(twin(inputs)[0], expected)


def test_only_selected_behaviors_learn() -> None:
    inputs, twin = make_inputs(), make_twin(4)
    index = twin.search(inputs, twin.attention.absorb(inputs.query))
    assert index.shape == (len(WINDOWS), 4)
    selected = set(index[index >= 0].tolist())
    assert len(selected) < NUM_BEHAVIORS / 2
    by_name = gradients(twin, inputs)
    for grad in by_name[1:3]:
        touched = set(grad.abs().sum(1).nonzero()[:, 0].tolist())
        assert touched == selected


def test_the_search_keeps_what_the_attention_weighs_most() -> None:
    inputs = make_inputs(windows=[[0, 90]])
    torch.manual_seed(3)
    twin = TWIN(query_dim=8, cross_dim=3, output_dim=5, k=10, num_heads=1, head_dim=4)
    query = twin.attention.absorb(inputs.query)
    bias = twin.attention.bias(inputs.cross, None)
    assert bias is not None
    scores = (inputs.behaviors @ query[0].T + bias)[:, 0]
    kept = twin.search(inputs, query)[0].tolist()
    assert kept == sorted(scores.topk(10).indices.tolist())


def test_a_candidate_does_not_depend_on_its_batch_mates() -> None:
    inputs, twin = make_inputs(), make_twin(6)
    together = twin(inputs)
    for c in range(len(WINDOWS)):
        alone = dataclasses.replace(
            inputs, query=inputs.query[c : c + 1], windows=inputs.windows[c : c + 1]
        )
        torch.testing.assert_close(twin(alone)[0], together[c])


def test_empty_windows_give_zeros_and_every_parameter_a_gradient() -> None:
    twin = make_twin(6)
    inputs = make_inputs()
    assert twin(inputs)[3].abs().max() == 0
    nothing = dataclasses.replace(
        inputs,
        behaviors=inputs.behaviors[:0],
        cross=inputs.cross[:0],
        windows=torch.zeros(len(WINDOWS), 2, dtype=torch.int64),
    )
    for encoder in (twin, full_attention_of(twin)):
        output = encoder(nothing)
        assert output.shape == (len(WINDOWS), 5)
        assert output.abs().max() == 0
        output.sum().backward()
        assert all(parameter.grad is not None for parameter in encoder.parameters())


@pytest.mark.parametrize("k", [6, 100])
def test_clusters_of_one_event_change_nothing(k: int) -> None:
    inputs, twin = make_inputs(), make_twin(k)
    ones = dataclasses.replace(inputs, log_size=torch.zeros(NUM_BEHAVIORS))
    torch.testing.assert_close(twin(ones), twin(inputs))


@pytest.mark.parametrize("cross_dim", [0, 3])
def test_a_cluster_of_n_identical_events_equals_n_copies(cross_dim: int) -> None:
    inputs, twin = make_inputs(cross_dim, [[0, NUM_BEHAVIORS]]), make_twin(1000, cross_dim)
    sizes = torch.randint(1, 6, (NUM_BEHAVIORS,), generator=torch.Generator().manual_seed(4))
    copies = dataclasses.replace(
        inputs,
        behaviors=inputs.behaviors.repeat_interleave(sizes, dim=0),
        cross=inputs.cross.repeat_interleave(sizes, dim=0),
        windows=torch.tensor([[0, int(sizes.sum())]]),
    )
    clustered = dataclasses.replace(inputs, log_size=sizes.float().log())
    expected = twin(copies)
    torch.testing.assert_close(twin(clustered), expected)
    torch.testing.assert_close(full_attention_of(twin)(clustered), expected)


def test_a_large_cluster_is_found_first() -> None:
    inputs, twin = make_inputs(windows=[[0, 90]]), make_twin(1)
    log_size = torch.zeros(NUM_BEHAVIORS)
    log_size[57] = 50.0
    query = twin.attention.absorb(inputs.query)
    found = twin.search(dataclasses.replace(inputs, log_size=log_size), query)
    assert found.tolist() == [[57]]


def test_bfloat16_search_attends_in_full_precision() -> None:
    inputs, twin = make_inputs(windows=[[0, 90]]), make_twin(20)
    query = twin.attention.absorb(inputs.query)
    exact = twin.search(inputs, query)
    twin.score_dtype = torch.bfloat16
    rounded = twin.search(inputs, query)
    assert len(set(exact[0].tolist()) & set(rounded[0].tolist())) >= 17
    expected = twin.attention.attend_selected(inputs, query, rounded)
    torch.testing.assert_close(twin(inputs), expected, atol=0, rtol=0)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="twin k is 0"):
        make_twin(0)
    with pytest.raises(ValueError, match="score_precision is 'int4'; must be one of float32"):
        TWIN(query_dim=8, cross_dim=0, output_dim=4, score_precision="int4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_heads is 0"):
        TWIN(query_dim=8, cross_dim=0, output_dim=4, num_heads=0)
