"""The ops that `run.py` knows."""

from collections.abc import Callable, Iterator

from benchmarks.din_attention import build_workloads as build_din_attention_workloads
from benchmarks.target_attention import build_workloads as build_target_attention_workloads
from benchmarks.workload import Workload

OPS: dict[str, Callable[[], Iterator[Workload]]] = {
    "din_attention": build_din_attention_workloads,
    "target_attention": build_target_attention_workloads,
}
