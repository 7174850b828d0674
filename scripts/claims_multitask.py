r"""Measures prioritised training against weighted sums, on tasks in conflict and not.

    python scripts/claims_multitask.py --work-dir runs/claims --seeds 1 2 3 4 5
    python scripts/claims_multitask.py --work-dir runs/census --data datasets/census --tasks a b \
        --overrides 'sequence=[]' '~optimizer.tables.user'

For each seed it trains single tasks on as many batches as a stage has, and a sweep of static
weights, the other ways of weighing tasks and the prioritised ones on as many as all stages have,
and scores the test split: on worlds that are simulated for each seed and conflict by their true
probabilities, on --data by its labels. Prints Markdown tables and writes results.json and a figure
for each conflict; what results.json has already is not measured again.
"""

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ranker.metrics.auc import auc
from ranker.report.pareto import pareto_front
from ranker.report.predictions import Predictions
from ranker_data.datasets.synthetic import SyntheticConverter
from ranker_data.simulator.world import WorldConfig
from scripts.claims import soft_auc
from scripts.measured_runs import render_interval, train_and_predict
from scripts.pareto_svg import draw_pareto

# weights of the first of two tasks in the sweep; the second has the rest
SHARES = (0.2, 0.5, 0.7, 0.8, 0.9, 0.95)
ALTERNATIVES = {
    "uncertainty": [],
    "dwa": ["objective.window_steps=50"],
    "gradnorm": [],
    "pareto_efficient": [],
    "pcgrad": [],
    "cagrad": [],
    "mgda": [],
    "nash_mtl": [],
    "aligned_mtl": [],
}
# of the objective gramian_weights
TORCHJD = ("pcgrad", "cagrad", "mgda", "nash_mtl", "aligned_mtl")

Results = dict[str, dict[str, float]]


def main() -> None:
    """Measures every method on every world."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--conflict", type=float, nargs="+", default=[0.9, 0.0])
    parser.add_argument("--num-users", type=int, default=2500)
    parser.add_argument("--data", type=Path, help="a prepared data set instead of the simulator")
    parser.add_argument("--tasks", nargs="+", default=["ctr", "like", "long_view"])
    parser.add_argument("--epochs", type=int, default=1, help="of each stage")
    parser.add_argument("--methods", nargs="+", help="some of the methods; all by default")
    parser.add_argument("--overrides", nargs="+", default=[], help="of every run, as key=value")
    options = parser.parse_args()
    options.work_dir.mkdir(parents=True, exist_ok=True)
    path = options.work_dir / "results.json"
    results: Results = json.loads(path.read_text()) if path.exists() else {}
    todo = build_methods(options.tasks, options.epochs)
    if unknown := sorted(set(options.methods or []) - set(todo)):
        parser.error(f"--methods: {unknown[0]!r} is none of {', '.join(todo)}")
    chosen = {name: todo[name] for name in options.methods or todo}
    worlds = ["data"] if options.data else [str(conflict) for conflict in options.conflict]
    for seed in options.seeds:
        for world in worlds:
            missing = [name for name in chosen if f"{name}|{world}|{seed}" not in results]
            if not missing:
                continue
            data = options.data or simulate(
                options.work_dir / f"data_{world}_{seed}", seed, float(world), options.num_users
            )
            for name in missing:
                arguments = [f"dataset.path={data}", f"seed={seed}", *options.overrides]
                arguments += chosen[name]
                results[f"{name}|{world}|{seed}"] = measure(options.work_dir / "run", arguments)
                path.write_text(json.dumps(results, indent=1))
                print(name, world, seed, results[f"{name}|{world}|{seed}"], flush=True)
            if not options.data:
                shutil.rmtree(data)
    for world in worlds:
        means = mean_over_seeds(results, list(chosen), world, options.seeds, options.tasks)
        print(render_table(results, list(chosen), world, options.seeds, options.tasks))
        print(render_heights(results, list(chosen), world, options.seeds, options.tasks[:2]))
        figure = draw_pareto(means, options.tasks[:2])
        (options.work_dir / f"pareto_{world}.svg").write_text(figure)


def simulate(data: Path, seed: int, conflict: float, num_users: int) -> Path:
    """Simulates a world, without confounding, which is no matter here."""
    world = WorldConfig(seed=seed, num_users=num_users, conflict=conflict, confounding=0.0)
    SyntheticConverter(world=world).prepare(None, data)
    return data


def build_methods(tasks: Sequence[str], epochs: int) -> dict[str, list[str]]:
    """Returns the overrides of each method, of two tasks and, where there are more, of all."""
    two = tasks[:2]
    found = {f"single {task}": single(task, epochs) for task in tasks}
    for task in tasks:
        found[f"single {task}, all steps"] = single(task, epochs * len(tasks))
    for share in SHARES:
        weights = dict(zip(two, (share, round(1 - share, 3)), strict=True))
        found[f"static {share}"] = static(weights, epochs * 2)
    for name, more in ALTERNATIVES.items():
        found[name] = alternative(name, two, epochs * 2) + more
    for order in (two, two[::-1]):
        found[" > ".join(order)] = prioritized(order, epochs)
    # as the paper has it: nothing of a task before its stage
    alone = [*prioritized(two, epochs), "objective.lower_weight=0"]
    found[f"{' > '.join(two)}, lower_weight 0"] = alone
    if len(tasks) > len(two):
        found["all equal"] = static(dict.fromkeys(tasks, 1.0), epochs * len(tasks))
        for order in (tasks, tasks[::-1]):
            found[" > ".join(order)] = prioritized(order, epochs)
    return found


def single(task: str, epochs: int) -> list[str]:
    """Trains one task alone."""
    return [
        f"head.towers.predict=[{task}]",
        "objective=bce",
        "~objective.priority",
        f"trainer.monitor={task}.auc",
        f"trainer.epochs={epochs}",
    ]


def static(weights: Mapping[str, float], epochs: int) -> list[str]:
    """Trains a weighted sum; the best checkpoint is that of the task with the largest weight."""
    names = ",".join(weights)
    return [
        f"head.towers.predict=[{names}]",
        f"objective.priority=[{names}]",
        "objective.mode=weighted_sum",
        f"trainer.monitor={max(weights, key=lambda task: weights[task])}.auc",
        f"trainer.epochs={epochs}",
        *(f"+objective.weights.{task}={weight}" for task, weight in weights.items()),
    ]


def alternative(name: str, tasks: Sequence[str], epochs: int) -> list[str]:
    """Trains with another way of weighing tasks."""
    objective = "gramian_weights" if name in TORCHJD else name
    return [
        f"head.towers.predict=[{','.join(tasks)}]",
        f"objective={objective}",
        "~objective.priority",
        f"objective.tasks=[{','.join(tasks)}]",
        f"trainer.monitor={tasks[0]}.auc",
        f"trainer.epochs={epochs}",
        *([f"objective.method={name}"] if name in TORCHJD else []),
    ]


def prioritized(order: Sequence[str], epochs: int) -> list[str]:
    """Trains task after task, each held when the next one follows."""
    names = ",".join(order)
    return [
        f"head.towers.predict=[{names}]",
        f"objective.priority=[{names}]",
        f"trainer.monitor={order[0]}.auc",
        f"trainer.epochs={epochs}",
    ]


def mean_over_seeds(
    results: Results, methods: Sequence[str], world: str, seeds: Sequence[int], tasks: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Returns the mean AUCs of the first two tasks for the methods that predict both."""
    means = {}
    for name in methods:
        runs = [results[f"{name}|{world}|{seed}"] for seed in seeds]
        if all(f"{task} auc" in runs[0] for task in tasks[:2]):
            first, second = (float(np.mean([run[f"{t} auc"] for run in runs])) for t in tasks[:2])
            means[name] = (first, second)
    return means


def render_table(
    results: Results, methods: Sequence[str], world: str, seeds: Sequence[int], tasks: Sequence[str]
) -> str:
    """Returns a Markdown table: mean AUCs, and paired differences to the single tasks."""
    lines = [
        f"world {world}, {len(seeds)} seeds",
        "| method | " + " | ".join(f"{task} AUC (less single)" for task in tasks) + " |",
        "|---" * (len(tasks) + 1) + "|",
    ]
    for name in methods:
        cells = []
        for task in tasks:
            key = f"{task} auc"
            runs = [results[f"{name}|{world}|{seed}"] for seed in seeds]
            base = [results.get(f"single {task}|{world}|{seed}") for seed in seeds]
            if key not in runs[0]:
                cells.append("")
                continue
            values = np.array([run[key] for run in runs])
            cell = f"{values.mean():.4f}"
            if all(base) and name != f"single {task}":
                paired = values - [run[key] for run in base if run is not None]
                cell += f" ({render_interval(paired)})"
            cells.append(cell)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def render_heights(
    results: Results, methods: Sequence[str], world: str, seeds: Sequence[int], two: Sequence[str]
) -> str:
    """Returns a line per method: its second AUC less that of the static weights at equal first."""
    lines = []
    for name in methods:
        heights = []
        for seed in seeds:
            runs = {other: results[f"{other}|{world}|{seed}"] for other in methods}
            points = {
                other: (run[f"{two[0]} auc"], run[f"{two[1]} auc"])
                for other, run in runs.items()
                if all(f"{task} auc" in run for task in two)
            }
            sweep = [point for other, point in points.items() if other.startswith("static")]
            if name in points and not name.startswith("static") and len(sweep) > 1:
                heights.append(height_over(sweep, points[name]))
        if heights:
            lines.append(
                f"{name}: {two[1]} AUC over the front of static weights at equal {two[0]} AUC "
                f"{render_interval(np.array(heights))}"
            )
    return "\n".join(lines)


def height_over(sweep: Sequence[tuple[float, float]], point: tuple[float, float]) -> float:
    """Returns how far a point lies above the front of a sweep, joined by lines, level at its ends.

    Where the sweep does not reach the point's first AUC, that is its distance to the point of the
    sweep that comes closest.
    """
    front = sorted(sweep[i] for i in pareto_front(sweep, (True, True)))
    xs, ys = zip(*front, strict=True)
    return point[1] - float(np.interp(point[0], xs, ys))


def measure(folder: Path, overrides: Sequence[str]) -> dict[str, float]:
    """Trains one method, and measures its best checkpoint on the test split."""
    arguments = [
        "experiment=claims/multitask",
        f"run_root={folder.parent}",
        f"name={folder.name}",
        *overrides,
    ]
    return score(train_and_predict(arguments))


def score(predictions: Predictions) -> dict[str, float]:
    """Measures the AUC of each task: expected under the true probabilities where they are known."""
    found = {}
    for name, task in predictions.tasks.items():
        if task.truth is None:
            known = ~np.isnan(task.label)
            value = float(auc(task.logit[known], task.label[known]))
        else:
            value = soft_auc(task.logit, task.truth.astype(np.float64))
        found[f"{name} auc"] = value
    return found


if __name__ == "__main__":
    main()
