import torch

from ranker.modules.dice import Dice


def test_dice_is_a_gate_of_batch_norm_without_affine() -> None:
    torch.manual_seed(0)
    dice = Dice(5).double()
    torch.nn.init.normal_(dice.alpha)
    norm = torch.nn.BatchNorm1d(5, affine=False, eps=1e-8, momentum=0.01).double()
    for _ in range(3):
        inputs = torch.randn(40, 5, dtype=torch.float64) * 3 + 1
        gate = torch.sigmoid(norm(inputs))
        expected = gate * inputs + (1 - gate) * dice.alpha * inputs
        torch.testing.assert_close(dice(inputs), expected)
    dice.eval()
    gate = torch.sigmoid((inputs - dice.mean) / torch.sqrt(dice.var + 1e-8))
    torch.testing.assert_close(dice(inputs), gate * inputs + (1 - gate) * dice.alpha * inputs)


def test_dice_in_evaluation_scores_each_row_alone() -> None:
    dice = Dice(3)
    dice(torch.randn(64, 3))
    dice.eval()
    inputs = torch.randn(10, 3)
    torch.testing.assert_close(dice(inputs)[4:5], dice(inputs[4:5]))


def test_low_precision_has_the_statistics_of_full_precision() -> None:
    torch.manual_seed(0)
    inputs = (3 + torch.randn(1000, 3)).bfloat16()
    low, full = Dice(3), Dice(3)
    found, expected = low(inputs), full(inputs.float())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected.bfloat16())
    torch.testing.assert_close(low.mean, full.mean)
    torch.testing.assert_close(low.var, full.var)
