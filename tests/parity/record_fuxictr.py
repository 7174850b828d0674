"""Records what FuxiCTR's layers compute, for tests/parity/test_fuxictr.py.

    pip install --no-deps --target site fuxictr==2.3.10 pandas h5py polars pydantic ...
    PYTHONPATH=site python tests/parity/record_fuxictr.py --zoo <FuxiCTR repository>/model_zoo

Writes fuxictr.npz beside itself: weights, inputs and outputs drawn here. AutoInt's attention and
MMoE are not in the package but in its repository (commits 2c89b9d and 47a9a59).
"""

import argparse
import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn


class Absent(types.ModuleType):
    """A module that the layers import but do not use: FuxiCTR reads data with ray."""

    def __getattr__(self, name: str) -> Any:
        return object


for _name in ("ray", "ray.data", "ray.data.datasource", "ray.data.datasource.filename_provider"):
    sys.modules[_name] = Absent(_name)

Arrays = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--zoo", type=Path, required=True)
    zoo = parser.parse_args().zoo
    torch.manual_seed(0)
    arrays: Arrays = {}
    record_din(arrays)
    record_cross(arrays)
    record_autoint(arrays, load(zoo / "AutoInt" / "src" / "AutoInt.py"))
    record_mmoe(arrays, load(zoo / "multitask" / "MMoE" / "src" / "MMoE.py"))
    kept: Arrays = {name: np.asarray(value, np.float32) for name, value in arrays.items()}
    np.savez_compressed(Path(__file__).with_name("fuxictr.npz"), **kept)


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def keep(arrays: Arrays, prefix: str, layer: nn.Module, **values: torch.Tensor) -> None:
    """Keeps a layer's weights and some values."""
    for name, value in {**layer.state_dict(), **values}.items():
        arrays[f"{prefix}/{name}"] = value.detach().numpy()


def randomize(layer: Any) -> Any:
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    for name, buffer in layer.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    return layer.eval()


def record_din(arrays: Arrays) -> None:
    layers: Any = importlib.import_module("fuxictr.pytorch.layers")
    # histories of 3, 5, 1 and no behaviours, the last places are padding
    mask = torch.arange(5) < torch.tensor([[3], [5], [1], [0]])
    target, history = torch.randn(4, 4), torch.randn(4, 5, 4)
    for name, activation, softmax in (
        ("din_dice", "Dice", False),
        ("din_sigmoid", "Sigmoid", False),
        ("din_softmax", "Sigmoid", True),
    ):
        layer = randomize(
            layers.DIN_Attention(
                embedding_dim=4,
                attention_units=[6, 3],
                hidden_activations=activation,
                use_softmax=softmax,
            )
        )
        output = layer(target, history, mask)
        keep(arrays, name, layer, target=target, history=history, mask=mask, output=output)


def record_cross(arrays: Arrays) -> None:
    layers: Any = importlib.import_module("fuxictr.pytorch.layers")
    inputs = torch.randn(5, 6)
    for name, layer in (
        ("dcnv2", layers.CrossNetV2(6, 2)),
        ("dcnv2_mixture", layers.CrossNetMix(6, layer_num=2, low_rank=3, num_experts=2)),
    ):
        randomize(layer)
        keep(arrays, name, layer, inputs=inputs, output=layer(inputs), one=layer(inputs[:1]))


def record_autoint(arrays: Arrays, module: Any) -> None:
    tokens = torch.randn(5, 3, 4)
    layers = nn.Sequential(
        module.MultiHeadSelfAttention(4, attention_dim=6, num_heads=2),
        # of equal widths: the residual is the input itself
        module.MultiHeadSelfAttention(6, attention_dim=6, num_heads=2),
    )
    randomize(layers)
    keep(arrays, "autoint", layers, tokens=tokens, output=layers(tokens))


def record_mmoe(arrays: Arrays, module: Any) -> None:
    features = torch.randn(5, 6)
    layer = randomize(
        module.MMoE_Layer(
            num_experts=3,
            num_tasks=2,
            input_dim=6,
            expert_hidden_units=[4],
            gate_hidden_units=[],
            hidden_activations="ReLU",
            net_dropout=0,
            batch_norm=False,
        )
    )
    # the paper's gate has no bias, and neither has ours
    for gate in layer.gate:
        nn.init.zeros_(gate.mlp[0].bias)
    keep(arrays, "mmoe", layer, features=features, output=torch.stack(layer(features)))


if __name__ == "__main__":
    main()
