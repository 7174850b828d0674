from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ranker.sequence.pyramid_mixer import PyramidMixer
from ranker.slots import SequenceInputs


def mlp(module: Any, x: Any) -> Any:
    with torch.no_grad():
        return module(torch.from_numpy(x)).numpy()


def test_it_mixes_level_by_level(make_inputs: Callable[..., SequenceInputs]) -> None:
    inputs = make_inputs([[0, 5], [2, 3], [4, 14]])
    torch.manual_seed(1)
    encoder = PyramidMixer(
        query_dim=4, cross_dim=3, max_length=7, num_levels=2, cross="none"
    ).double()
    with torch.no_grad():
        found = encoder(inputs).numpy()
    for row, (begin, end) in enumerate(inputs.windows.tolist()):
        x = inputs.behaviors[max(begin, end - 7) : end].detach().numpy()[::-1]
        outputs = []
        levels: Any = encoder.levels
        for index, level in enumerate(levels):
            if index:
                x = np.array([x[i : i + 2].mean(0) for i in range(0, len(x), 2)])
            length = 7 if index == 0 else 4
            padded = np.zeros((length, 4))
            padded[: len(x)] = mlp(level.norms[0], x.copy())
            x = x + mlp(level.time, padded.T.copy()).T[: len(x)]
            x = x + mlp(level.feature, mlp(level.norms[1], x))
            outputs.append(x.mean(0))
        np.testing.assert_allclose(found[row], np.concatenate(outputs), atol=1e-10)


def test_levels_need_places() -> None:
    with pytest.raises(ValueError, match="num_levels is 4; must be at least 1, and each level"):
        PyramidMixer(query_dim=4, cross_dim=0, max_length=7, num_levels=4)
