import pytest
import torch

from ranker.slots import FeatureLayout

LAYOUT = FeatureLayout(names=("user_id", "price", "sequence.din"), widths=(3, 1, 2))


def test_features_are_found_by_name() -> None:
    embedded = torch.arange(12.0).reshape(2, 6)
    assert LAYOUT.dim == 6
    torch.testing.assert_close(embedded[:, LAYOUT.columns("price")], embedded[:, 3:4])
    found = LAYOUT.take(embedded, ["sequence.din", "user_id"])
    torch.testing.assert_close(found, embedded[:, [4, 5, 0, 1, 2]])
    assert LAYOUT.width_of(["sequence.din", "user_id"], "x") == 5


def test_unknown_features_are_named() -> None:
    with pytest.raises(ValueError, match=r"gate\.prior names 'prise', .* did you mean 'price'\?"):
        LAYOUT.width_of(["prise"], "gate.prior")
    with pytest.raises(ValueError, match=r"does not have; it has user_id, price, sequence\.din"):
        LAYOUT.width_of(["zzz"], "gate.prior")
    with pytest.raises(ValueError, match="x is empty; name at least one of user_id"):
        LAYOUT.width_of([], "x")
