"""Measures two-stage search against full attention, on histories of 10^4 simulated behaviours.

    python scripts/claims_lifelong.py --work-dir runs/lifelong --seeds 1 2 3 4 5

In the world most of what decides a click lies in a burst of events long ago, among thousands of
others. Every method but the first two is DIN on the latest 50 behaviours and one more encoder that
sees all of them; TWIN-V2, from the weights of TWIN's run or from scratch, trains on the log that is
clustered with the vectors of that run, which has to be measured before. For each seed a world is
simulated, the methods are trained on it, and the best checkpoint scores the test split by the true
probabilities. "Searched" are the weights of full attention with TWIN's search in front. Prints a
Markdown table and writes results.json; what that has already is not measured again.
"""

import argparse
import dataclasses
import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ranker.command import run_command
from ranker.report.predictions import Predictions
from ranker.search_quality import watch_searches
from ranker.sequence.full_attention import FullAttention
from ranker.sequence.twin import TWIN
from ranker.train_module import ranking_model
from ranker_data.clustering.events import ClusteringOptions
from ranker_data.clustering.prepare import cluster_histories
from ranker_data.datasets.synthetic import SyntheticConverter
from ranker_data.simulator.world import WorldConfig
from scripts.claims import soft_auc
from scripts.cluster_histories import read_run_table
from scripts.measured_runs import FloatArray, render_interval, train_best

# few requests and few clicks: a click on an old interest is an event of late, and tells it to all
WORLD: dict[str, Any] = {
    "num_users": 450,
    "num_items": 54,
    "num_categories": 6,
    "topics_per_category": 3,
    "events_per_user": 10_000.0,
    "requests_per_user": 10.0,
    "click_shift": -1.0,
    "num_interests": 3,
    "dormant_fraction": 0.4,
    "confounding": 0.0,
    "valid_fraction": 0.05,
    "test_fraction": 0.2,
}
_ATTENTION = {"num_heads": 2, "head_dim": 8, "output_dim": 16, "score_scale": 2.0}

_LATEST = ["sequence.din.hidden_units=[36]", "sequence.din.max_length=50"]


def beside_din(name: str, options: Mapping[str, float]) -> list[str]:
    """Returns the overrides of an encoder of everything beside DIN on the latest behaviours."""
    values = [f"sequence.{name}.{option}={value}" for option, value in options.items()]
    return [f"sequence=[din,{name}]", *_LATEST, *values]


_TWIN = beside_din("twin", _ATTENTION)
METHODS = {
    "mean_pool": ["sequence=[mean_pool]"],
    "din_last_50": [*_LATEST, "loader.max_length=50"],
    "twin": _TWIN,
    # a softmax over 10^4 scores that differ by little is a mean: larger scores learn in fewer steps
    "full_attention": beside_din("full_attention", {**_ATTENTION, "score_scale": 5.0}),
    "eta": beside_din("eta", _ATTENTION),
    "sim_soft": beside_din("sim_soft", _ATTENTION),
    "sim_hard": beside_din("sim_hard", _ATTENTION),
    "sdim": beside_din("sdim", {}),
    "twin_v2": [*_TWIN, "trainer.epochs=2", "+warm_start.run={twin}"],
    "twin_v2_scratch": _TWIN,
}
# events whose stays differ are not joined, as the paper keeps shares of a video played apart
_BANDS = ClusteringOptions(
    field="item_id", group_field="log_dwell", group_edges=(1.5, 2.5, 3.25, 4.0)
)
_CLUSTERED = ("twin_v2", "twin_v2_scratch")

Results = dict[str, dict[str, float]]


def main() -> None:
    """Measures the methods on the worlds of all seeds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--methods", nargs="+", help="some of the methods; all by default")
    parser.add_argument("--world", nargs="+", default=[], help="changes of it, as key=number")
    parser.add_argument("--overrides", nargs="+", default=[], help="of every run, as key=value")
    options = parser.parse_args()
    if unknown := sorted(set(options.methods or ()) - set(METHODS)):
        parser.error(f"--methods: {unknown[0]!r} is none of {', '.join(METHODS)}")
    try:
        options.world = read_world(options.world)
    except ValueError as error:
        parser.error(f"--world: {error}")
    sys.exit(run_command(lambda: run_claims(options)))


def read_world(changes: Sequence[str]) -> dict[str, Any]:
    """Returns the settings of the worlds, with changes given as key=number.

    Raises:
        ValueError: a change is none, or not possible.
    """
    world = dict(WORLD)
    known = [field.name for field in dataclasses.fields(WorldConfig) if field.name != "seed"]
    for change in changes:
        key, _, value = change.partition("=")
        if key not in known or re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", value) is None:
            raise ValueError(f"{change!r} must be key=number, with a key of {', '.join(known)}")
        world[key] = json.loads(value)
    WorldConfig(**world)
    return world


def run_claims(options: argparse.Namespace) -> None:
    """Measures what is missing, and prints the table of what was asked for."""
    work_dir, methods = options.work_dir, options.methods or list(METHODS)
    work_dir.mkdir(parents=True, exist_ok=True)
    path = work_dir / "results.json"
    results: Results = json.loads(path.read_text()) if path.exists() else {}
    for seed in options.seeds:
        for name in methods:
            if f"{name}|{seed}" in results:
                continue
            data = simulate(work_dir / f"data_{seed}", seed, options.world)
            twin = work_dir / f"twin_{seed}"
            overrides = [value.format(twin=twin) for value in METHODS[name]]
            arguments = [*overrides, f"seed={seed}", *options.overrides]
            folder = work_dir / f"{name}_{seed}"
            results[f"{name}|{seed}"] = measure(name, data, folder, arguments, twin)
            path.write_text(json.dumps(results, indent=1))
            print(name, seed, results[f"{name}|{seed}"], flush=True)
    print(render_table(results, methods, options.seeds))


def simulate(data: Path, seed: int, world: Mapping[str, Any]) -> Path:
    """Simulates a world, if it is not there yet."""
    if not data.exists():
        SyntheticConverter(world=WorldConfig(seed=seed, **world)).prepare(None, data)
    return data


def measure(
    name: str, data: Path, folder: Path, overrides: Sequence[str], twin: Path
) -> dict[str, float]:
    """Trains one method, and measures its best checkpoint on the test split.

    Args:
        name: of the method.
        data: simulated world.
        folder: of the run; TWIN's stays, for TWIN-V2.
        overrides: of the run.
        twin: run of TWIN on the same world, whose vectors make clusters.
    """
    found: dict[str, float] = {}
    if name in _CLUSTERED:
        vectors = read_run_table(twin, data, "item_id")
        source, data = data, folder.parent / f"{data.name}_{name}"
        shutil.rmtree(data, ignore_errors=True)
        summary = cluster_histories(source, data, vectors, _BANDS)
        rows = summary.num_clusters + summary.num_recent_events
        found["clusters per event"] = summary.num_clusters / summary.num_events
        found["rows per event"] = rows / (summary.num_events + summary.num_recent_events)
        found["unexplained"] = summary.unexplained_fraction
    arguments = ["experiment=claims/lifelong", f"dataset.path={data}"]
    arguments += [f"run_root={folder.parent}", f"name={folder.name}", *overrides]
    with train_best(arguments) as best:
        model = ranking_model(best.model)
        qualities = watch_searches(model)
        found |= score(best.predict())
        if name == "full_attention":
            model.body.encoders[name] = searched(model.body.encoders[name])
            again = score(best.predict())
            found |= {f"searched {metric}": value for metric, value in again.items()}
        for quality in qualities:
            rate = (quality.finish() or {})["hit_rate"]
            if rate is not None:
                found["hit rate"] = rate
    if name in _CLUSTERED:
        shutil.rmtree(data)
    if name != "twin":
        shutil.rmtree(folder)
    return found


def searched(full: nn.Module) -> TWIN:
    """Returns TWIN with the weights of full attention: what its search alone loses."""
    assert isinstance(full, FullAttention)
    attention = full.attention
    twin = TWIN(
        query_dim=attention.key_weight.shape[1],
        cross_dim=0 if attention.cross is None else attention.cross.in_features,
        output_dim=full.output_dim,
        num_heads=attention.num_heads,
        head_dim=attention.head_dim,
        score_scale=attention.score_scale,
    )
    twin.load_state_dict(full.state_dict())
    return twin.eval()


def score(predictions: Predictions) -> dict[str, float]:
    """Measures AUC and GAUC by user as the true probabilities let expect them.

    A row is a positive of weight p and a negative of weight 1 - p; a user counts by its rows.
    """
    task = predictions.tasks["ctr"]
    assert task.truth is not None
    truth = task.truth.astype(np.float64)
    order = np.argsort(predictions.user, kind="stable")
    _, begins = np.unique(predictions.user[order], return_index=True)
    users = [rows for rows in np.split(order, begins[1:]) if len(rows) > 1]
    values = [soft_auc(task.logit[rows], truth[rows]) for rows in users]
    return {
        "auc": soft_auc(task.logit, truth),
        "gauc": float(np.average(values, weights=[len(rows) for rows in users])),
    }


def render_table(results: Results, methods: Sequence[str], seeds: Sequence[int]) -> str:
    """Returns a Markdown table: means over seeds, paired differences to TWIN, recovered gains.

    A gain is that over DIN on the latest 50 behaviours; a method recovers its share of the gain of
    full attention, or of TWIN.
    """
    lines = [
        f"{len(seeds)} seeds",
        "| method | GAUC | AUC | GAUC less TWIN | share of full attention's gain "
        "| share of TWIN's gain | hit rate |",
        "|---|---|---|---|---|---|---|",
    ]

    def read(name: str, key: str) -> FloatArray | None:
        runs = [results.get(f"{name}|{seed}", {}).get(key) for seed in seeds]
        return None if None in runs else np.array(runs, np.float64)

    def compare(row: str, gauc: FloatArray) -> list[str]:
        twin, din = read("twin", "gauc"), read("din_last_50", "gauc")
        cells = ["" if twin is None or row == "twin" else render_interval(gauc - twin)]
        for name in ("full_attention", "twin"):
            whole = read(name, "gauc")
            if din is None or whole is None or row in ("din_last_50", name):
                cells.append("")
            else:
                cells.append(render_interval((gauc - din) / (whole - din)))
        return cells

    for name in methods:
        rate = read(name, "hit rate")
        hits = "" if rate is None else f"{rate.mean():.1%}"
        for prefix in ("", "searched "):
            gauc, auc = read(name, f"{prefix}gauc"), read(name, f"{prefix}auc")
            if gauc is not None and auc is not None:
                row = f"{prefix}{name}"
                cells = [row, f"{gauc.mean():.4f}", f"{auc.mean():.4f}", *compare(row, gauc), hits]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
