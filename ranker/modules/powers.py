"""Powers of two in whole numbers, exact on every device.

A logarithm may be off by its last digit, and then 8 is 2^2.999...
"""

from torch import Tensor


def floor_log2(numbers: Tensor) -> Tensor:
    """Returns floor(log2(n)), int64, of whole numbers from 1 to 2^53."""
    # n = m * 2^e with m in [1/2, 1)
    return numbers.double().frexp().exponent.long() - 1


def ceil_log2(numbers: Tensor) -> Tensor:
    """Returns ceil(log2(n)), int64, of whole numbers from 1 to 2^53."""
    # of 0, for n = 1, it is 0
    return (numbers - 1).double().frexp().exponent.long()
