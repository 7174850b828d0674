"""What the benchmarks of the ops leave out, and what their goals are measured with."""

import dataclasses

import pytest
import torch

from benchmarks import din_attention, report, run, searches
from benchmarks.ceilings import Ceilings
from benchmarks.workload import Cost, Goal, Variant, Workload, draw_lengths, make_consecutive


@pytest.fixture(autouse=True)
def nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (din_attention, searches):
        monkeypatch.setattr(module, "compile_variant", lambda variant: variant)


def make_workload(**variants: Variant) -> Workload:
    cost = Cost(1.0, 1.0)
    return Workload(
        name="squares",
        leaves=(torch.randn(5, 3),),
        oracle=lambda leaves: leaves[0].square(),
        variants={"plain": lambda leaves: leaves[0] * leaves[0], **variants},
        forward=cost,
        both=cost,
    )


def test_what_is_wrong_or_fails_is_left_out_and_told() -> None:
    workload = make_workload(
        wrong=lambda leaves: leaves[0].square() * 1.1,
        nothing=lambda leaves: leaves[0].square() * torch.nan,
        broken=lambda leaves: leaves[0].view(7),
    )
    sound, wrong = run.check(workload)
    assert list(sound) == ["plain"]
    for failure, name in zip(wrong, ("wrong", "nothing", "broken"), strict=True):
        assert failure.startswith(f"squares, {name}: ")
    rows = run.measure(dataclasses.replace(workload, variants=sound), 1, "cpu", Ceilings(1.0, 1.0))
    assert [row["variant"] for row in rows] == ["plain"]


def test_goals_are_those_of_their_variant(capsys: pytest.CaptureFixture[str]) -> None:
    goal = Goal(name="G0", variant="fast", forward=0.2, expected_forward=0.15, ratios={"slow": 5})
    rows = [
        {"workload": "w", "variant": name, "forward_ms": time, "forward_backward_ms": ""}
        for name, time in (("slow", "0.9"), ("fast", "0.1"), ("fast, torch.compile", "0.3"))
    ]
    report.print_goals(goal, rows, {"forward": 0.002})
    assert capsys.readouterr().out.splitlines() == [
        "G0, w, forward: 0.1 ms; goal 0.2, predicted 0.15: reached; the host is busy for 2.000 ms",
        "G0, w, forward, slow: 9.0 times; goal 5: reached",
    ]


def test_variants_of_the_goals_pass_the_check_in_low_precision() -> None:
    """Else a GPU's time would be spent on nothing."""
    lengths = draw_lengths(4096, mean_log=4.2, longest=500)[:40]
    windows = make_consecutive(lengths)
    attention = din_attention._build("d", windows, "cpu", dim=64, dtype=torch.bfloat16)
    assert run.check(attention)[1] == []
    for dtype in (torch.bfloat16, torch.int8):
        search = searches.build_search("s", 2, 3, 500, "cpu", dtype)
        assert run.check(search)[1] == []
