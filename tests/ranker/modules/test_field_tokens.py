from typing import Any

import pytest
import torch

from ranker.modules.field_tokens import FieldTokens
from ranker.slots import FeatureLayout

LAYOUT = FeatureLayout(names=("user_id", "price", "item_id"), widths=(3, 1, 3))


def test_features_of_the_right_width_enter_as_they_are_others_projected() -> None:
    tokens: Any = FieldTokens(layout=LAYOUT, dim=3)
    embedded = torch.randn(4, 7)
    found = tokens(embedded)
    torch.testing.assert_close(found[:, 0], embedded[:, :3])
    torch.testing.assert_close(found[:, 2], embedded[:, 4:])
    vector = tokens.projections["1"].weight[:, 0]
    torch.testing.assert_close(found[:, 1], embedded[:, 3:4] * vector)


def test_the_width_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"interaction\.token_dim is 0"):
        FieldTokens(layout=LAYOUT, dim=0)
