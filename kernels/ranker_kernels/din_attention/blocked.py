"""DIN's attention in PyTorch, block by block, with a backward that recomputes.

A block of pairs fits the cache: its activations live from one matrix product to the next and are
never kept. What the forward leaves is the output and two numbers for each candidate.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from ranker_kernels.din_attention.activations import build_activations
from ranker_kernels.din_attention.first_layer import (
    Collapsed,
    choose_pair_terms,
    collapse,
    uncollapse_gradient,
)
from ranker_kernels.din_attention.unit import (
    ActivationUnit,
    Gradients,
    Layers,
    Moments,
    Normalize,
)
from ranker_kernels.din_attention.windows import (
    Pairs,
    expand_windows,
    line_of_moments,
    softmax_terms,
)

# pairs; on CPU the activations of a block stay in a cache of 2 MB, elsewhere launches must be few
CPU_BLOCK, DEVICE_BLOCK = 2048, 1 << 18


def forward(
    query: Tensor, behaviors: Tensor, windows: Tensor, unit: ActivationUnit, normalize: Normalize
) -> tuple[Tensor, Tensor]:
    """Pools the behaviours of every window.

    Returns:
        The output `[C, D]`, and the terms of the softmax `[2, C]`: the maximum of the scaled scores
        and the sum of exp(score - maximum). Without softmax the terms are zeros.
    """
    pairs = expand_windows(windows)
    net = _Net(query, behaviors, pairs, unit)
    scores = query.new_empty(pairs.candidate.shape)
    for block in net.blocks():
        scores[block.span] = net.forward(block)[:, 0]
    terms = query.new_zeros(2, query.shape[0])
    if normalize == "softmax":
        scores *= query.shape[1] ** -0.5
        terms = torch.stack(softmax_terms(scores, pairs))
        scores = _softmax(scores, terms, pairs.candidate)
    # sum of weighted rows; the arguments are scale_grad_by_freq, mode "sum", sparse, and weights
    pooled, *_ = torch.embedding_bag(
        behaviors, pairs.behavior, pairs.offsets, False, 0, False, scores
    )
    return pooled, terms


def backward(
    gradient: Tensor,
    output: Tensor,
    terms: Tensor,
    query: Tensor,
    behaviors: Tensor,
    windows: Tensor,
    unit: ActivationUnit,
    normalize: Normalize,
) -> Gradients:
    """Recomputes every block and sends `gradient` `[C, D]` back through it."""
    pairs = expand_windows(windows)
    net = _Net(query, behaviors, pairs, unit)
    # sum over a window of weight * its gradient, which softmax subtracts
    mean_gradient = (gradient * output).sum(1)
    for block in net.blocks():
        weight = net.forward(block)[:, 0]
        pooled_gradient = gradient.index_select(0, block.candidate)
        weight_gradient = (pooled_gradient * block.key).sum(1)
        if normalize == "softmax":
            scale = query.shape[1] ** -0.5
            weight = _softmax(weight.mul_(scale), terms, block.candidate)
            weight_gradient -= mean_gradient[block.candidate]
            weight_gradient *= weight * scale
        net.backward(block, weight_gradient[:, None], pooled_gradient.mul_(weight[:, None]))
    return net.finish()


def forward_moments(query: Tensor, behaviors: Tensor, windows: Tensor, layers: Layers) -> Moments:
    """Returns mean and biased variance `[H]` of what the last layer gives for all pairs.

    Zeros if there is no pair.
    """
    pairs = expand_windows(windows)
    net = _Net(query, behaviors, pairs, layers)
    count, mean, squares = (
        0,
        torch.zeros_like(layers.biases[-1]),
        torch.zeros_like(layers.biases[-1]),
    )
    for block in net.blocks():
        z = net.forward(block)
        # a block's own mean first: the difference of two large sums would lose small variances
        own = z.mean(0)
        share = len(z) / (count + len(z))
        squares += z.sub_(own).square_().sum(0) + (own - mean).square() * (count * share)
        mean.lerp_(own, share)
        count += len(z)
    return Moments(mean, squares / max(count, 1))


def backward_moments(
    gradient: Moments,
    mean: Tensor,
    query: Tensor,
    behaviors: Tensor,
    windows: Tensor,
    layers: Layers,
) -> Gradients:
    """Recomputes every block and sends the gradient of the moments back through it."""
    net = _Net(query, behaviors, expand_windows(windows), layers)
    offset, slope = line_of_moments(gradient, mean, windows)
    for block in net.blocks():
        z = net.forward(block)
        net.backward(block, torch.addcmul(offset, z, slope), torch.zeros_like(block.key))
    return net.finish()


def _softmax(scores: Tensor, terms: Tensor, candidate: Tensor) -> Tensor:
    maximum, total = terms[:, candidate]
    return scores.sub_(maximum).exp_().div_(total)


class _Block:
    """Some consecutive pairs, and what the layers compute on the way."""

    def __init__(self, span: slice, pairs: Pairs, query: Tensor, behaviors: Tensor) -> None:
        self.span = span
        self.candidate = pairs.candidate[span]
        self.behavior = pairs.behavior[span]
        self.key = behaviors.index_select(0, self.behavior)
        self.query = query.index_select(0, self.candidate)
        self.product = self.query * self.key
        self.z: list[Tensor] = []
        self.h: list[Tensor] = []


class _Net:
    """The layers over blocks of pairs; adds up gradients until `finish`."""

    def __init__(self, query: Tensor, behaviors: Tensor, pairs: Pairs, layers: Layers) -> None:
        self.query, self.behaviors, self.pairs, self.layers = query, behaviors, pairs, layers
        self.first = collapse(layers.weights[0])
        self.of_candidate = torch.addmm(layers.biases[0], query, self.first.candidate.T)
        self.pair_terms = choose_pair_terms(self.first, behaviors, pairs.candidate.shape[0])
        self.activations = build_activations(layers)
        self.query_gradient = torch.zeros_like(query)
        self.behaviors_gradient = torch.zeros_like(behaviors)
        self.of_candidate_gradient = torch.zeros_like(self.of_candidate)
        self.weight_gradients = [torch.zeros_like(weight) for weight in layers.weights[1:]]
        self.bias_gradients = [torch.zeros_like(bias) for bias in layers.biases[1:]]

    def blocks(self) -> Iterator[_Block]:
        num_pairs = self.pairs.candidate.shape[0]
        size = CPU_BLOCK if self.query.device.type == "cpu" else DEVICE_BLOCK
        for start in range(0, num_pairs, size):
            span = slice(start, min(start + size, num_pairs))
            yield _Block(span, self.pairs, self.query, self.behaviors)

    def forward(self, block: _Block) -> Tensor:
        """Returns what the last layer gives, `[P, H]`."""
        z = self.of_candidate.index_select(0, block.candidate)
        self.pair_terms.add_forward(z, block.key, block.product, block.behavior)
        for activation, weight, bias in zip(
            self.activations, self.layers.weights[1:], self.layers.biases[1:], strict=True
        ):
            block.z.append(z)
            block.h.append(activation.forward(z))
            z = torch.addmm(bias, block.h[-1], weight.T)
        return z

    def backward(self, block: _Block, gradient: Tensor, pooled_gradient: Tensor) -> None:
        """Adds the gradients through the last layer `[P, H]` and the pooled rows `[P, D]`."""
        for layer in reversed(range(len(self.activations))):
            z, h = block.z[layer], block.h[layer]
            self.bias_gradients[layer] += gradient.sum(0)
            self.weight_gradients[layer].addmm_(gradient.T, h)
            gradient = gradient @ self.layers.weights[layer + 1]
            gradient = self.activations[layer].backward(gradient, z, h)
        key_gradient, product_gradient = self.pair_terms.backward(
            gradient, block.key, block.product, block.behavior
        )
        pooled_gradient.addcmul_(block.query, product_gradient)
        if key_gradient is not None:
            pooled_gradient += key_gradient
        self.behaviors_gradient.index_add_(0, block.behavior, pooled_gradient)
        self.query_gradient.index_add_(0, block.candidate, product_gradient * block.key)
        self.of_candidate_gradient.index_add_(0, block.candidate, gradient)

    def finish(self) -> Gradients:
        behavior, product = self.pair_terms.finish(self.behaviors_gradient)
        of_candidate = self.of_candidate_gradient
        self.query_gradient.addmm_(of_candidate, self.first.candidate)
        first = Collapsed(of_candidate.T @ self.query, behavior, product)
        return Gradients(
            self.query_gradient,
            self.behaviors_gradient,
            [uncollapse_gradient(first), *self.weight_gradients],
            [of_candidate.sum(0), *self.bias_gradients],
            [act.alpha_gradient for act in self.activations if act.alpha_gradient is not None],
            [act.moments_gradient for act in self.activations if act.moments_gradient is not None],
        )
