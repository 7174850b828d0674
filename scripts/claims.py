"""Measures what papers claim on simulated impressions, where the truth is known.

    python scripts/claims.py esmm --work-dir runs/claims
    python scripts/claims.py --help         lists the claims

Each claim compares methods (configs/experiment/claims/<method>.yaml) on worlds in which its premise
holds and on worlds in which it does not. For each seed a world is simulated, the methods are
trained on it, and the best checkpoint scores the test split. What <work-dir>/<claim>.json has
already is not measured again. Prints a table of means over seeds with 95 % intervals of the paired
differences to the first method (Student's t over seeds: worlds and trainings both vary).
"""

import argparse
import dataclasses
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranker.command import run_command
from ranker.metrics.auc import auc
from ranker.report.predictions import Predictions, TaskPredictions
from ranker_data.datasets.synthetic import SyntheticConverter
from ranker_data.frequencies import write_frequencies
from ranker_data.simulator.world import WorldConfig
from scripts.measured_runs import FloatArray, render_interval, train_and_predict


@dataclasses.dataclass(frozen=True)
class Claim:
    """Methods to compare, the worlds to compare them on, and what to look at.

    Attributes:
        methods: experiments under configs/experiment/claims; the first is the baseline.
        worlds: settings of the simulator by name.
        tasks: measured tasks; a method need not have all of them.
    """

    methods: Sequence[str]
    worlds: Mapping[str, Mapping[str, Any]]
    tasks: Sequence[str]


_SMALL = {
    "num_users": 1200,
    "num_items": 400,
    "num_categories": 20,
    "events_per_user": 60.0,
    "confounding": 0.0,
}
# few clicks on each user and item, and conversions that want what clicks want
_SPARSE = {
    **_SMALL,
    "num_users": 4000,
    "num_items": 4000,
    "num_categories": 40,
    "events_per_user": 30.0,
    "requests_per_user": 8.0,
    "conflict": 0.0,
}
CLAIMS = {
    "esmm": Claim(
        methods=("esmm_clicked", "esmm_masked", "esmm_entire"),
        worlds={
            "selection": {**_SPARSE, "click_shift": -2.6},
            # few clicks convert, as in the paper
            "rare": {**_SPARSE, "click_shift": -1.2, "conversion_shift": -3.0},
            "no_selection": {**_SPARSE, "click_shift": -3.1, "selection": 0.0},
        },
        tasks=("cvr",),
    ),
    "pepnet": Claim(
        methods=("pepnet_none", "pepnet_epnet", "pepnet_ppnet"),
        worlds={
            # what counts for a click in one domain hardly counts, or counts against it, in another
            "differ": {**_SMALL, "conflict": 0.6, "domain_contrast": 4.0},
            "alike": {**_SMALL, "num_users": 600, "conflict": 0.0, "num_domains": 1},
        },
        tasks=("ctr", "like"),
    ),
    "din": Claim(
        methods=("din_mean_pool", "din_prelu", "din_dice"),
        worlds={
            "diverse": _SMALL,
            "narrow": {**_SMALL, "num_interests": 1, "num_dormant": 0, "dormant_fraction": 0.0},
        },
        tasks=("ctr",),
    ),
    "mba": Claim(
        methods=("din_prelu", "din_mba"),
        # few impressions of each user and item: what overfits
        worlds={"sparse": {**_SPARSE, "num_users": 800, "num_items": 1500}},
        tasks=("ctr",),
    ),
    "interaction": Claim(
        methods=(
            "interaction_none",
            "interaction_fm",
            "interaction_dcnv2",
            "interaction_autoint",
        ),
        worlds={"default": {**_SMALL, "num_users": 600}},
        tasks=("ctr",),
    ),
}


def main() -> None:
    """Measures one claim."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("claim", choices=CLAIMS)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--worlds", nargs="+", help="all of the claim's by default")
    options = parser.parse_args()
    if unknown := sorted(set(options.worlds or ()) - set(CLAIMS[options.claim].worlds)):
        parser.error(
            f"--worlds: {unknown[0]!r} is none of {', '.join(CLAIMS[options.claim].worlds)}"
        )
    sys.exit(run_command(lambda: run_claim(options)))


def run_claim(options: argparse.Namespace) -> None:
    """Measures the claim that the arguments name, and prints its table."""
    claim = CLAIMS[options.claim]
    worlds = options.worlds or list(claim.worlds)
    results = measure_all(claim, options.claim, options.work_dir, options.seeds, worlds)
    print(render_table(results, claim, options.seeds, worlds))


def measure_all(
    claim: Claim, name: str, work_dir: Path, seeds: Sequence[int], worlds: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Measures every method on every world and seed that has no result yet."""
    work_dir.mkdir(parents=True, exist_ok=True)
    path = work_dir / f"{name}.json"
    results: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}
    for seed in seeds:
        for world in worlds:
            missing = [m for m in claim.methods if f"{m} {world} {seed}" not in results]
            if not missing:
                continue
            data = work_dir / f"data_{name}_{world}_{seed}"
            config = WorldConfig(seed=seed, **claim.worlds[world])
            schema = SyntheticConverter(world=config).prepare(None, data)
            write_frequencies(data, schema, max_length=30)
            for method in missing:
                key = f"{method} {world} {seed}"
                results[key] = measure(method, data, work_dir, seed, claim.tasks)
                path.write_text(json.dumps(results, indent=1))
                print(key, {k: round(v, 4) for k, v in results[key].items()}, flush=True)
            shutil.rmtree(data)
    return results


def measure(
    method: str, data: Path, work_dir: Path, seed: int, tasks: Sequence[str]
) -> dict[str, float]:
    """Trains one method on one world and measures its best checkpoint on the test split."""
    overrides = [
        f"experiment=claims/{method}",
        f"dataset.path={data}",
        f"run_root={work_dir}",
        f"name={method}_{data.name}",
        f"seed={seed}",
    ]
    return compute_metrics(train_and_predict(overrides), tasks)


def compute_metrics(predictions: Predictions, tasks: Sequence[str]) -> dict[str, float]:
    """Measures the tasks that a method has, by labels in their space and by the truth on all rows.

    `<task>.entire_auc` is the expected AUC if every impression were in the task's space (for cvr:
    if all were clicked): each row is a positive of weight p and a negative of weight 1 - p.
    `entire_bias` is the mean of prediction less truth.
    """
    values: dict[str, float] = {}
    for task in tasks:
        if task in predictions.tasks:
            found = _measure_task(predictions.tasks[task])
            values |= {f"{task}.{name}": value for name, value in found.items()}
    return values


def _measure_task(task: TaskPredictions) -> dict[str, float]:
    assert task.truth is not None
    truth, score = task.truth.astype(np.float64), task.probability.astype(np.float64)
    inside = ~np.isnan(task.label)
    bounded = np.clip(score, 1e-12, 1 - 1e-12)
    loss = -(truth * np.log(bounded) + (1 - truth) * np.log1p(-bounded)).mean()
    return {
        "auc": float(auc(task.logit[inside], task.label[inside])),
        "entire_auc": soft_auc(task.logit, truth),
        "best_auc": soft_auc(truth, truth),
        "entire_logloss": float(loss),
        "entire_bias": float((score - truth).mean()),
        "mean_truth": float(truth.mean()),
    }


def soft_auc(scores: FloatArray | NDArray[np.float32], truth: FloatArray) -> float:
    """Returns the AUC in which a row is a positive of weight p and a negative of weight 1 - p."""
    labels = np.repeat([1.0, 0.0], len(scores))
    weights = np.concatenate([truth, 1 - truth])
    return float(auc(np.tile(scores, 2), labels, weights))


def render_table(
    results: Mapping[str, Mapping[str, float]],
    claim: Claim,
    seeds: Sequence[int],
    worlds: Sequence[str],
) -> str:
    """Returns a Markdown table: means, and paired differences to the first method."""
    lines = [
        "| world | method | metric | mean | difference to the first |",
        "|---|---|---|---|---|",
    ]
    for world in worlds:
        rows = {
            method: [results[f"{method} {world} {seed}"] for seed in seeds]
            for method in claim.methods
        }
        base = rows[claim.methods[0]]
        for method, runs in rows.items():
            for metric in sorted(set(runs[0]) & set(base[0])):
                values = np.array([run[metric] for run in runs])
                paired = values - [run[metric] for run in base]
                shown = "" if runs is base else render_interval(paired)
                lines.append(f"| {world} | {method} | {metric} | {values.mean():.4f} | {shown} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
