"""Measures two-stage search against full attention, on histories of 10^4 simulated behaviours.

    python scripts/claims_lifelong.py --work-dir runs/lifelong --seeds 1 2 3 4 5

In the world most of what decides a click lies in a burst of events long ago, among thousands of
others. Every method but the first two is DIN on the latest 50 behaviours and one more encoder that
sees all of them; TWIN-V2 goes on with TWIN's run, which has to be measured before, on the log that
is clustered with its vectors. For each seed a world is simulated, the methods are trained on it,
and the best checkpoint scores the test split by the true probabilities. Prints a Markdown table and
writes results.json; what that has already is not measured again.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from torch import nn

from ranker.checkpoint import choose_checkpoint, load_checkpoint
from ranker.command import run_command
from ranker.config import build_train_job, to_plain
from ranker.distributed import process_group
from ranker.evaluate import predict
from ranker.report.predictions import Predictions
from ranker.run_dir import RunDir
from ranker.search_quality import watch_searches
from ranker.sequence.full_attention import FullAttention
from ranker.sequence.twin import TWIN
from ranker.train_module import ranking_model
from ranker.trainer import train
from ranker_data.clustering.events import ClusteringOptions
from ranker_data.clustering.prepare import cluster_histories
from ranker_data.datasets.synthetic import SyntheticConverter
from ranker_data.simulator.world import WorldConfig
from scripts.claims import soft_auc
from scripts.cluster_histories import read_run_table
from scripts.measured_runs import CONFIGS, FloatArray, render_interval

# few requests and few clicks: a click on an old interest is an event of late, and tells it to all
WORLD: dict[str, Any] = {
    "num_users": 450,
    "num_items": 54,
    "num_categories": 6,
    "topics_per_category": 3,
    "events_per_user": 8_000.0,
    "requests_per_user": 10.0,
    "click_shift": -1.0,
    "num_interests": 3,
    "dormant_fraction": 0.4,
    "confounding": 0.0,
    "valid_fraction": 0.05,
    "test_fraction": 0.2,
}
_ATTENTION = {"num_heads": 2, "head_dim": 8, "output_dim": 16}


_LATEST = ["sequence.din.hidden_units=[36]", "sequence.din.max_length=50"]


def beside_din(name: str, options: Mapping[str, float]) -> list[str]:
    """Returns the overrides of an encoder of everything beside DIN on the latest behaviours."""
    values = [f"sequence.{name}.{option}={value}" for option, value in options.items()]
    return [f"sequence=[din,{name}]", *_LATEST, *values]


METHODS = {
    "mean_pool": ["sequence=[mean_pool]"],
    "din_last_50": [*_LATEST, "loader.max_length=50"],
    "twin": beside_din("twin", _ATTENTION),
    # a softmax over 10^4 scores that differ by little is a mean: larger scores learn in fewer steps
    "full_attention": beside_din("full_attention", {**_ATTENTION, "score_scale": 5.0}),
    "twin_v2": [*beside_din("twin", _ATTENTION), "trainer.epochs=2"],
    "sim_soft": beside_din("sim_soft", _ATTENTION),
    "eta": beside_din("eta", _ATTENTION),
    "sdim": beside_din("sdim", {}),
    "sim_hard": beside_din("sim_hard", _ATTENTION),
    "twin_v2_one_band": [*beside_din("twin", _ATTENTION), "trainer.epochs=2"],
}
# events whose stays differ are not joined, as the paper keeps shares of a video played apart
_BANDS = ClusteringOptions(
    field="item_id", group_field="log_dwell", group_edges=(1.5, 2.5, 3.25, 4.0)
)
_CLUSTERINGS = {"twin_v2": _BANDS, "twin_v2_one_band": ClusteringOptions(field="item_id")}

Results = dict[str, dict[str, float]]


def main() -> None:
    """Measures the methods on the worlds of all seeds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--methods", nargs="+", help="some of the methods; all by default")
    parser.add_argument("--num-users", type=int, default=WORLD["num_users"])
    parser.add_argument("--overrides", nargs="+", default=[], help="of every run, as key=value")
    options = parser.parse_args()
    if unknown := sorted(set(options.methods or ()) - set(METHODS)):
        parser.error(f"--methods: {unknown[0]!r} is none of {', '.join(METHODS)}")
    sys.exit(run_command(lambda: run_claims(options)))


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
            data = simulate(work_dir / f"data_{seed}", seed, options.num_users)
            arguments = [*METHODS[name], f"seed={seed}", *options.overrides]
            if name in _CLUSTERINGS:
                # goes on from the run whose vectors made the clusters
                arguments.append(f"+warm_start.run={work_dir / f'twin_{seed}'}")
            results[f"{name}|{seed}"] = measure(name, data, work_dir / f"{name}_{seed}", arguments)
            path.write_text(json.dumps(results, indent=1))
            print(name, seed, results[f"{name}|{seed}"], flush=True)
    print(render_table(results, methods, options.seeds))


def simulate(data: Path, seed: int, num_users: int) -> Path:
    """Simulates a world, if it is not there yet."""
    if not data.exists():
        world = WorldConfig(seed=seed, **{**WORLD, "num_users": num_users})
        SyntheticConverter(world=world).prepare(None, data)
    return data


def measure(name: str, data: Path, folder: Path, overrides: Sequence[str]) -> dict[str, float]:
    """Trains one method, and measures its best checkpoint on the test split."""
    found: dict[str, float] = {}
    if name in _CLUSTERINGS:
        twin = folder.with_name(f"twin_{folder.name.rsplit('_', 1)[1]}")
        vectors = read_run_table(twin, data, "item_id")
        source, data = data, folder.parent / f"{data.name}_{name}"
        shutil.rmtree(data, ignore_errors=True)
        summary = cluster_histories(source, data, vectors, _CLUSTERINGS[name])
        found["clusters per event"] = summary.num_clusters / summary.num_events
        found["unexplained"] = summary.unexplained_fraction
    arguments = ["experiment=claims/lifelong", f"dataset.path={data}"]
    arguments += [f"run_root={folder.parent}", f"name={folder.name}", *overrides]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        job = build_train_job(to_plain(compose("train", arguments)))
    train(job)
    with process_group(job.trainer.device) as process:
        trainable = job.build_trainable(process.device)
        load_checkpoint(choose_checkpoint(RunDir(folder).checkpoints, "best"), trainable)
        qualities = watch_searches(ranking_model(trainable.model))
        loader = job.build_loader("test", process, shuffle=False)
        predictions = predict(trainable.model, loader, job.schema, process.device)
        assert predictions is not None  # there is one process
        found |= score(predictions)
        if name == "full_attention":
            model = ranking_model(trainable.model)
            model.body.encoders[name] = searched(model.body.encoders[name])
            again = predict(trainable.model, loader, job.schema, process.device)
            assert again is not None
            found["gauc, searched"] = score(again)["gauc"]
        for quality in qualities:
            rate = (quality.finish() or {})["hit_rate"]
            if rate is not None:
                found["hit rate"] = rate
    if name in _CLUSTERINGS:
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
    full attention.
    """
    lines = [
        f"{len(seeds)} seeds",
        "| method | GAUC | AUC | GAUC less TWIN | share of full attention's gain | hit rate |",
        "|---|---|---|---|---|---|",
    ]

    def read(name: str, key: str) -> FloatArray | None:
        runs = [results.get(f"{name}|{seed}", {}).get(key) for seed in seeds]
        return None if None in runs else np.array(runs, np.float64)

    twin, din, full = (read(name, "gauc") for name in ("twin", "din_last_50", "full_attention"))
    for name in methods:
        gauc, auc, rate = (read(name, key) for key in ("gauc", "auc", "hit rate"))
        if gauc is None or auc is None:
            continue
        less = "" if twin is None or name == "twin" else render_interval(gauc - twin)
        share = ""
        if din is not None and full is not None and name not in ("din_last_50", "full_attention"):
            share = render_interval((gauc - din) / (full - din))
        hits = "" if rate is None else f"{rate.mean():.1%}"
        cells = [name, f"{gauc.mean():.4f}", f"{auc.mean():.4f}", less, share, hits]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
