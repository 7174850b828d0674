import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ranker.sweep.run as run_module
from ranker.sweep.options import SweepOptions
from ranker.sweep.run import SweepJob, run_sweep
from ranker.sweep.search import Grid
from ranker.sweep.space import Parameter, Point
from ranker.sweep.state import SweepDir

MakeLauncher = Callable[[SweepOptions], Any]


def make_none(**of: object) -> Any:
    raise AssertionError(of)


def job(options: SweepOptions, noises: Sequence[str], seeds: Sequence[str] = "01") -> SweepJob:
    return SweepJob(
        options=options,
        parameters=[
            Parameter(key="noise", choices=list(noises)),
            Parameter(key="seed", choices=list(seeds)),
        ],
        fixed=["a=1"],
        search=Grid(),
        launcher=make_none,
    )


def test_a_sweep_reports_every_point(options: SweepOptions, make_launcher: MakeLauncher) -> None:
    said: list[str] = []
    page = run_sweep(
        job(options, ["0.1", "6", "broken"], "0123"), make_launcher(options), say=said.append
    )
    assert page == options.directory / "sweep.html"
    report = json.loads((options.directory / "sweep.json").read_text())
    assert "noise=0.1 has" in report["summary"][0]
    assert "noise=6 is worse" in report["summary"][0]
    states = [(p["values"]["noise"], p["state"], p["reason"]) for p in report["sweep"]["points"]]
    assert sorted(states) == [
        *[("0.1", "finished", "")] * 4,
        *[("6", "finished", "")] * 4,
        *[("broken", "failed", "exit code 2: broken noise")] * 4,
    ]
    assert any(
        line.startswith("12 of 12: noise=broken, seed=3: failed exit code 2") for line in said
    )
    assert report["groups"].keys() == {"noise=0.1", "noise=6"}


def test_launched_again_only_new_points_run(
    options: SweepOptions, make_launcher: MakeLauncher
) -> None:
    first = make_launcher(options)
    run_sweep(job(options, ["0.1", "broken"]), first, say=lambda _: None)
    assert len(first.launched) == 4
    second = make_launcher(options)
    run_sweep(job(options, ["0.1", "broken"], "012"), second, say=lambda _: None)
    assert [point.values["seed"] for point in second.launched] == ["2", "2"]
    third = make_launcher(options)
    again = replace(options, retry_failed=True)
    run_sweep(job(again, ["0.1", "broken"]), third, say=lambda _: None)
    assert [point.values["noise"] for point in third.launched] == ["broken", "broken"]


def test_no_more_points_run_at_once_than_workers(
    options: SweepOptions, make_launcher: MakeLauncher
) -> None:
    options = replace(options, workers=3)
    launcher = make_launcher(options)
    active: list[int] = []

    class Counting:
        def launch(self, point: Point) -> Any:
            active.append(len(scheduler.running) + 1)
            return launcher.launch(point)

    scheduler = run_module._Scheduler(
        job(options, ["0.1", "1", "2"]), SweepDir(options.directory), Counting(), lambda _: None
    )
    scheduler.job.search.start(scheduler.job.parameters, Path(), more_is_better=True)
    scheduler.run()
    assert max(active) == 3
    assert len(active) == 6


class GiveUp(Grid):
    """Thinks every score hopeless."""

    def should_stop(self, point: Point, scores: Sequence[tuple[int, float]]) -> bool:
        self.seen = scores
        return bool(scores)


def test_hopeless_points_are_given_up(
    options: SweepOptions, make_launcher: MakeLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "WATCH_SECONDS", 0.0)
    search = GiveUp()
    point = Point(values={"noise": "slow", "seed": "0"})
    directory = SweepDir(options.directory)
    directory.run(point).mkdir(parents=True)
    records = [{"kind": "train", "step": 3}, {"kind": "valid", "step": 4, "ctr.auc": 0.6}]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (directory.run(point) / "metrics.jsonl").write_text(lines)
    sweep = replace(job(options, ["slow"], "0"), search=search)
    run_sweep(sweep, make_launcher(options), say=lambda _: None)
    assert search.seen == [(4, 0.6)]
    state = directory.read_state(point)
    assert state is not None
    assert (state.state, state.reason) == ("pruned", "below the median at step 4")
