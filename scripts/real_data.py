"""Measures the main models on real data, over seeds.

    python scripts/prepare_data.py dataset=ebnerd source=<original files> out=datasets/ebnerd
    python scripts/real_data.py ebnerd --data datasets/ebnerd --work-dir runs/real
    python scripts/real_data.py --help         lists the data sets

Each method is trained with each seed, and its best checkpoint on the validation split scores the
test split. What <work-dir>/<data set>.json has already is not measured again. Prints a table of
means over seeds with 95 % intervals of the paired differences to the first method that has the
task (Student's t over seeds).
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ranker.command import run_command
from ranker.evaluate import compute_scores
from scripts.measured_runs import render_interval, train_and_predict


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Methods on one data set, and what to look at.

    Attributes:
        common: overrides of every method.
        methods: further overrides by name.
        metrics: shown; a method need not have all of them.
    """

    common: Sequence[str]
    methods: Mapping[str, Sequence[str]]
    metrics: Sequence[str]


_TWO_TASKS = ["head.towers.predict=[high_income,never_married]"]
_WIDE = "embedding.init_std=0.3"
# everything, beside DIN on the latest 50
_ALL = ["loader.max_length=5000", "sequence.din.max_length=50"]
_ESMM = [
    "objective=esmm",
    "head.towers.predict=[ctr,cvr]",
    "+head.towers.products.ctcvr=[ctr,cvr]",
    "trainer.monitor=ctcvr.auc",
]
COMPARISONS = {
    "census_income": Comparison(
        common=[
            "dataset=census_income",
            "sequence=[]",
            "trainer.epochs=3",
            "trainer.monitor=high_income.auc",
        ],
        methods={
            "single high_income": ["head.task=high_income", "trainer.monitor=high_income.auc"],
            "single never_married": [
                "head.task=never_married",
                "trainer.monitor=never_married.auc",
            ],
            "MMoE": ["head=mmoe", *_TWO_TASKS, "trainer.monitor=high_income.auc"],
            "PLE": ["head=ple", *_TWO_TASKS, "trainer.monitor=high_income.auc"],
        },
        metrics=("high_income.auc", "high_income.logloss", "never_married.auc"),
    ),
    "ebnerd": Comparison(
        common=["experiment=ebnerd_din", "sequence=[mean_pool]", "trainer.epochs=1"],
        methods={
            "CTR alone": [],
            "CVR on clicks": ["head.task=cvr", "trainer.monitor=cvr.auc"],
            "ESMM": ["head=esmm", "objective=esmm", "trainer.monitor=ctcvr.auc"],
            "MMoE + ESMM": ["head=mmoe", *_ESMM],
            "PLE + ESMM": ["head=ple", *_ESMM],
            "PEPNet + ESMM": ["head=ppnet", "gate=epnet", "gate.prior=[device]", *_ESMM],
        },
        metrics=("ctr.auc", "ctr.gauc", "cvr.auc", "ctcvr.auc"),
    ),
    "movielens": Comparison(
        common=["experiment=movielens_din", "trainer.epochs=1"],
        methods={
            "mean pool": ["sequence=[mean_pool]"],
            "DIN": [],
            "DCNv2": ["sequence=[mean_pool]", "interaction=dcnv2"],
            "AutoInt": [
                "sequence=[mean_pool]",
                "interaction=autoint",
                "interaction.keep_input=true",
            ],
        },
        metrics=("like.auc", "like.gauc", "like.logloss"),
    ),
    "complete_journey": Comparison(
        common=[
            "dataset=complete_journey",
            "head.task=purchase",
            "trainer.monitor=purchase.auc",
            "trainer.max_steps=1500",
            "loader.samples_per_user=16",
        ],
        methods={
            "DIN, last 50": ["sequence=[din]"],
            "and SIM hard": ["sequence=[din,sim_hard]", *_ALL],
            "and TWIN": ["sequence=[din,twin]", *_ALL],
            "DIN, last 50, wide start": ["sequence=[din]", _WIDE],
            "and SIM hard, wide start": ["sequence=[din,sim_hard]", *_ALL, _WIDE],
            "and TWIN, wide start": ["sequence=[din,twin]", *_ALL, _WIDE],
        },
        metrics=("purchase.auc", "purchase.gauc", "purchase.logloss"),
    ),
}

# k of TWIN by length of the history: fewer than there are, so that its search has to choose
_SEARCHED = {50: 20, 200: 50, 2_000: 100}


def _compare_lengths(data: str, metrics: Sequence[str]) -> dict[str, Comparison]:
    """Returns a comparison of DIN with TWIN for each length of the history."""
    return {
        f"{data}_{length}": Comparison(
            common=[
                f"experiment={data}_din",
                "trainer.epochs=1",
                f"loader.max_length={length}",
                "loader.samples_per_user=16",
            ],
            methods={"DIN": [], "TWIN": ["sequence=[twin]", f"sequence.twin.k={k}"]},
            metrics=metrics,
        )
        for length, k in _SEARCHED.items()
    }


COMPARISONS |= _compare_lengths("ebnerd", ("ctr.auc", "ctr.gauc", "ctr.logloss"))
COMPARISONS |= _compare_lengths("movielens", ("like.auc", "like.gauc", "like.logloss"))

Results = dict[str, dict[str, float | None]]


def main() -> None:
    """Measures the methods of one data set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("comparison", choices=COMPARISONS)
    parser.add_argument("--data", type=Path, required=True, help="prepared data set")
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args()
    sys.exit(run_command(lambda: run_comparison(options)))


def run_comparison(options: argparse.Namespace) -> None:
    """Measures what is missing, and prints the table."""
    comparison = COMPARISONS[options.comparison]
    options.work_dir.mkdir(parents=True, exist_ok=True)
    path = options.work_dir / f"{options.comparison}.json"
    results: Results = json.loads(path.read_text()) if path.exists() else {}
    for seed in options.seeds:
        for index, (method, overrides) in enumerate(comparison.methods.items()):
            key = f"{method} {seed}"
            if key in results:
                continue
            predictions = train_and_predict(
                [
                    *comparison.common,
                    *overrides,
                    f"dataset.path={options.data}",
                    f"run_root={options.work_dir}",
                    f"name={options.comparison}_{index}_{seed}",
                    f"seed={seed}",
                ]
            )
            results[key] = compute_scores(predictions)
            path.write_text(json.dumps(results, indent=1))
            print(key, {m: results[key].get(m) for m in comparison.metrics}, flush=True)
    print(render_table(results, comparison, options.seeds))


def render_table(
    results: Mapping[str, Mapping[str, float | None]], comparison: Comparison, seeds: Sequence[int]
) -> str:
    """Returns a Markdown table: means, and paired differences to the first method with the task."""
    lines = [
        f"| method | {' | '.join(comparison.metrics)} |",
        "|---" * (1 + len(comparison.metrics)) + "|",
    ]
    first: dict[str, list[float]] = {}
    for method in comparison.methods:
        runs = [results[f"{method} {seed}"] for seed in seeds]
        cells = []
        for metric in comparison.metrics:
            values = [value for run in runs if (value := run.get(metric)) is not None]
            if len(values) < len(runs):
                cells.append("")
                continue
            base = first.setdefault(metric, values)
            paired = np.subtract(values, base)
            more = "" if base is values else f" ({render_interval(paired)})"
            cells.append(f"{np.mean(values):.4f}{more}")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
