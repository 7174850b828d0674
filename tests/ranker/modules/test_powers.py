"""Powers of two in whole numbers."""

import torch

from ranker.modules.powers import ceil_log2, floor_log2


def test_powers_of_two_are_exact_and_so_are_their_neighbours() -> None:
    for exponent in range(2, 53):
        power = 1 << exponent
        numbers = torch.tensor([power - 1, power, power + 1])
        assert floor_log2(numbers).tolist() == [exponent - 1, exponent, exponent]
        assert ceil_log2(numbers).tolist() == [exponent, exponent, exponent + 1]


def test_the_smallest_numbers() -> None:
    assert floor_log2(torch.tensor([1, 2, 3])).tolist() == [0, 1, 1]
    assert ceil_log2(torch.tensor([1, 2, 3])).tolist() == [0, 1, 2]
