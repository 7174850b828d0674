"""Gate NU's last step: gates between 0 and gamma, times what they gate (PEPNet, 2302.01115).

output = gamma * sigmoid(logits) * hidden

Gates are not kept for the backward, which computes them again.
"""

from torch import Tensor

from ranker_kernels.gated_scale.op import scale

__all__ = ["gated_scale"]


def gated_scale(logits: Tensor, hidden: Tensor, gamma: float) -> Tensor:
    """Scales each unit by its gate.

    Args:
        logits: of the gates, `[C, W]`; half precision is computed in float32.
        hidden: what they gate, `[C, W]`.
        gamma: largest gate.

    Returns:
        `[C, W]` in the wider dtype of the two.

    Raises:
        ValueError: the shapes differ.
    """
    if logits.ndim != 2 or logits.shape != hidden.shape:
        raise ValueError(
            f"logits is {list(logits.shape)} and hidden {list(hidden.shape)}; they must be "
            "[C, W] both"
        )
    return scale(logits, hidden, gamma)
