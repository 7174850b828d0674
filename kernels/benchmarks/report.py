"""How results are shown."""

import os
import platform

import torch

from benchmarks.workload import Goal


def print_table(rows: list[dict[str, str]]) -> None:
    """Prints the rows as a Markdown table."""
    device = torch.cuda.get_device_name() if rows[0]["device"] == "cuda" else platform.machine()
    load = os.getloadavg()[0]
    print(
        f"\n{rows[0]['op']}: torch {torch.__version__}, {device}, {rows[0]['threads']} thread(s), "
        f"load average {load:.1f}\n"
    )
    lines = [
        [
            "workload",
            "variant",
            "forward (ms)",
            "with backward (ms)",
            "times faster",
            "of the limit",
        ]
    ]
    lines.append(["---"] * len(lines[0]))
    for row in rows:
        kinds = [kind for kind in ("forward", "forward_backward") if row[f"{kind}_ms"]]
        pairs = [
            ", ".join(row[f"{kind}_{what}"] for kind in kinds) for what in ("ratio", "of_limit")
        ]
        cells = [row["workload"], row["variant"], row["forward_ms"], row["forward_backward_ms"]]
        lines.append([*cells, *pairs])
    for line in lines:
        print(f"| {' | '.join(line)} |")


def print_goals(goal: Goal, rows: list[dict[str, str]], host: dict[str, float]) -> None:
    """Prints what was measured beside what was to be reached, and what was predicted.

    Args:
        goal: of a workload.
        rows: of its variants.
        host: seconds until a call of the goal's variant returns, by kind.
    """
    found = {row["variant"]: row for row in rows}
    row = found[goal.variant]
    for kind, wanted, expected in (
        ("forward", goal.forward, goal.expected_forward),
        ("forward_backward", goal.both, goal.expected_both),
    ):
        if wanted is None:
            continue
        name, reached = f"{goal.name}, {row['workload']}, {kind}", float(row[f"{kind}_ms"])
        print(
            f"{name}: {reached} ms; goal {wanted}, predicted {expected}: "
            f"{_verdict(reached <= wanted)}; the host is busy for {1e3 * host[kind]:.3f} ms"
        )
        for other, times in goal.ratios.items():
            if other in found:
                ratio = float(found[other][f"{kind}_ms"]) / reached
                print(
                    f"{name}, {other}: {ratio:.1f} times; goal {times}: {_verdict(ratio >= times)}"
                )


def _verdict(reached: bool) -> str:
    return "reached" if reached else "missed"
