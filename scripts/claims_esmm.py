"""Measures ESMM's claims on simulated impressions, where the true conversion rates are known.

python scripts/claims_esmm.py --work-dir runs/claims_esmm --seeds 1 2 3

For each seed and each strength of confounding it simulates a world, trains the experiments
configs/experiment/claims/esmm_*.yaml on it and scores the test split. Prints a table and writes
results.json; what is there already is not measured again.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray

from ranker.checkpoint import load_checkpoint
from ranker.config import build_train_job, to_plain
from ranker.distributed import Process, process_group
from ranker.evaluate import predict
from ranker.job import TrainJob
from ranker.metrics.auc import auc
from ranker.report.predictions import Predictions
from ranker.run_dir import claim_run_dir
from ranker.trainer import Trainer
from ranker_data.datasets.synthetic import SyntheticConverter
from ranker_data.simulator.world import WorldConfig

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
METHODS = ("esmm_clicked", "esmm_masked", "esmm_entire", "esmm_ipw")
METRICS = ("clicked_auc", "entire_auc", "entire_logloss", "bias_unclicked", "bias_clicked")

FloatArray = NDArray[np.float64]


def main() -> None:
    """Measures every method on every world."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--confounding", type=float, nargs="+", default=[0.0, 1.0])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--num-users", type=int, default=1500)
    options = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    path = options.work_dir / "results.json"
    if path.exists():
        results = json.loads(path.read_text())
    for seed in options.seeds:
        for confounding in options.confounding:
            data = options.work_dir / f"data_{confounding}_{seed}"
            world = WorldConfig(seed=seed, num_users=options.num_users, confounding=confounding)
            SyntheticConverter(world=world).prepare(None, data)
            for method in options.methods:
                key = f"{method} {confounding} {seed}"
                if key not in results:
                    results[key] = measure(method, data, options.work_dir, seed)
                    path.write_text(json.dumps(results, indent=1))
                    print(key, results[key], flush=True)
    print_table(results, options.methods, options.confounding, options.seeds)


def measure(method: str, data: Path, work_dir: Path, seed: int) -> dict[str, float]:
    """Trains one method on one world and measures its best checkpoint on the test split."""
    name = f"{method}_{data.name}"
    overrides = [
        f"experiment=claims/{method}",
        f"dataset.path={data}",
        f"run_root={work_dir}",
        f"name={name}",
        f"seed={seed}",
    ]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        job = build_train_job(to_plain(compose("train", overrides)))
    with (
        process_group(job.trainer.device) as process,
        claim_run_dir(job.run_dir, job.config) as run,
    ):
        trainer = Trainer(job, process, run)
        best = trainer.fit().best_step
        load_checkpoint(run.checkpoints / f"step-{best:08d}", trainer.trainable)
        predictions = predict_test(job, trainer, process)
    return compute_metrics(predictions)


def predict_test(job: TrainJob, trainer: Trainer, process: Process) -> Predictions:
    """Scores the test split."""
    loader = job.build_loader("test", process, shuffle=False)
    predictions = predict(trainer.trainable.model, loader, job.schema, process.device)
    assert predictions is not None  # there is one process
    return predictions


def compute_metrics(predictions: Predictions) -> dict[str, float]:
    """Measures p_cvr on clicked rows by their labels, and on all rows by the truth.

    entire_auc is the expected AUC if every impression were clicked and converted by its true rate:
    each row counts as a positive of weight p and a negative of weight 1 - p.
    """
    cvr = predictions.tasks["cvr"]
    assert cvr.truth is not None
    truth, score = cvr.truth.astype(np.float64), cvr.probability.astype(np.float64)
    clicked = ~np.isnan(cvr.label)
    loss = -(truth * np.log(score) + (1 - truth) * np.log1p(-score)).mean()
    return {
        "clicked_auc": float(auc(cvr.logit[clicked], cvr.label[clicked])),
        "entire_auc": soft_auc(cvr.logit, truth),
        "best_auc": soft_auc(truth, truth),
        "entire_logloss": float(loss),
        "bias_unclicked": float((score - truth)[~clicked].mean()),
        "bias_clicked": float((score - truth)[clicked].mean()),
    }


def soft_auc(scores: FloatArray | NDArray[np.float32], truth: FloatArray) -> float:
    """Returns the AUC in which a row is a positive of weight p and a negative of weight 1 - p."""
    labels = np.repeat([1.0, 0.0], len(scores))
    weights = np.concatenate([truth, 1 - truth])
    return float(auc(np.tile(scores, 2), labels, weights))


def print_table(
    results: dict[str, dict[str, float]],
    methods: Sequence[str],
    confounding: Sequence[float],
    seeds: Sequence[int],
) -> None:
    """Prints means over seeds, and paired differences to the first method with their spread."""
    for strength in confounding:
        best = np.mean([results[f"{methods[0]} {strength} {seed}"]["best_auc"] for seed in seeds])
        print(f"confounding {strength}, best possible entire_auc {best:.4f}")
        for method in methods:
            cells = []
            for name in METRICS:
                runs = [f"{method} {strength} {seed}" for seed in seeds]
                base = [f"{methods[0]} {strength} {seed}" for seed in seeds]
                values = np.array([results[run][name] for run in runs])
                paired = values - [results[run][name] for run in base]
                gain = f"{paired.mean():+.4f} +- {spread(paired):.4f}"
                cells.append(f"{name} {values.mean():.4f} ({gain})")
            print(f"  {method:13s} " + "  ".join(cells))


def spread(values: FloatArray) -> float:
    """Returns the standard deviation over seeds; 0 for one seed."""
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
