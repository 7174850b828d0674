"""The linear layer of everything that is built from one."""

from torch import Tensor, nn

from ranker_kernels.linear import linear


class Linear(nn.Linear):
    """`torch.nn.Linear`, with faster products on CPUs where PyTorch's are slow."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps [*, in_features] to [*, out_features]."""
        return linear(inputs, self.weight, self.bias)
