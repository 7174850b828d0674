import pytest
import torch

from ranker.modules.precision import at_least_fp32


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_only_low_precision_is_widened(given: torch.dtype, expected: torch.dtype) -> None:
    assert at_least_fp32(torch.ones(2, dtype=given)).dtype == expected
