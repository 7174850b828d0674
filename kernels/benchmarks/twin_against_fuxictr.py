"""TWIN's long interest with its lookup, against FuxiCTR's module, forward and backward on a CPU.

    python kernels/benchmarks/twin_against_fuxictr.py <TWIN.py of FuxiCTR's model_zoo/LongCTR>

Every head selects for itself there; here its heads are candidates of their own, so that selections
are the same and outputs and gradients of the table can be compared before anything is timed. The
paper's round robin over the heads is timed as well. Neither side moves the table: FuxiCTR's
gradient of it is dense, as its embedding layer has it, and ours holds the rows that were found.
"""

import argparse
import ast
import runpy
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ranker_kernels.search_topk import DistinctRows, search_topk
from ranker_kernels.target_attention import target_attention

USERS, LENGTH, DIM, HEADS, HEAD_DIM, K = 32, 10_000, 64, 4, 16, 100


def load_peer(path: Path) -> Any:
    """Takes the class alone out of its file, whose imports need all of FuxiCTR."""
    text = path.read_text()
    (found,) = (
        node
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef) and node.name == "MultiHeadTopKAttention"
    )
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / path.name
        alone.write_text(
            f"import torch\nfrom torch import nn\n{ast.get_source_segment(text, found)}"
        )
        return runpy.run_path(str(alone))[found.name]


def _embedding(table: Tensor, *, sparse: bool) -> nn.Embedding:
    rows, width = table.shape
    return nn.Embedding(rows, width, sparse=sparse, _weight=table.clone())


class Ours:
    """The same function with the peer's weights: absorbed projections, a search without gradient.

    Args:
        peer: whose weights are taken.
        table: the embeddings `[V, D]`.
        per_head: every head selects for itself; else they select together.
    """

    def __init__(self, peer: Any, table: Tensor, *, per_head: bool) -> None:
        self.peer, self.per_head = peer, per_head
        self.table = _embedding(table, sparse=True)

    def __call__(self, targets: Tensor, ids: Tensor) -> Tensor:
        """Returns the interest `[B, D]` of targets `[B]` in histories `[B, L]`, all of them ids."""
        count, length = ids.shape
        key, value = (w.weight.view(HEADS, HEAD_DIM, DIM) for w in (self.peer.W_h, self.peer.W_v))
        projected = self.peer.W_q(self.table(targets)).view(count, HEADS, HEAD_DIM)
        query = torch.einsum("che,hed->chd", projected, key) / self.peer.scale
        ends = torch.arange(1, count + 1) * length
        windows = torch.stack([ends - length, ends], dim=1)
        if self.per_head:
            query, windows = query.reshape(-1, 1, DIM), windows.repeat_interleave(HEADS, 0)
        rows = ids.flatten()
        keys = DistinctRows((self.table.weight,), (rows,))
        index = search_topk(query.detach(), keys, None, windows, k=K)
        # only what was found is looked up with gradient
        found = self.table(rows[index.flatten()])
        places = torch.arange(index.numel()).view_as(index)
        pooled = target_attention(query, None, found, None, index=places)
        heads = torch.einsum("chd,hed->che", pooled.view(count, HEADS, DIM), value)
        interest: Tensor = self.peer.W_o(heads.flatten(1))
        return interest


def main() -> None:
    """Compares, then times both in turns, for two sizes of the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help="TWIN.py of FuxiCTR's model_zoo/LongCTR")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(2026)
    build = load_peer(arguments.path)
    print("| items | FuxiCTR (ms) | per head (ms) | times | round robin (ms) | times |")
    print("| --- " * 6 + "|")
    for items in (100_000, 1_000_000):
        print_row(items, build, arguments.rounds)


def print_row(items: int, build: Callable[..., Any], rounds: int) -> None:
    """Prints the medians for a table of so many items."""
    peer = build(input_dim=DIM, embedding_dim=HEAD_DIM, attention_dim=DIM, topk=K, num_heads=HEADS)
    table = torch.randn(items, DIM) * 0.1
    targets, ids = torch.randint(items, (USERS,)), torch.randint(items, (USERS, LENGTH))
    upstream = torch.randn(USERS, DIM)
    dense = _embedding(table, sparse=False)
    variants: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], nn.Embedding]] = {
        "peer": (lambda targets, ids: peer(dense(targets), dense(ids)), dense)
    }
    for name, per_head in (("per head", True), ("round robin", False)):
        ours = Ours(peer, table, per_head=per_head)
        variants[name] = (ours, ours.table)

    def run(name: str) -> tuple[Tensor, Tensor]:
        forward, embedding = variants[name]
        embedding.zero_grad()
        peer.zero_grad()
        output = forward(targets, ids)
        output.backward(upstream)  # type: ignore[no-untyped-call]
        assert embedding.weight.grad is not None
        return output.detach(), embedding.weight.grad

    errors = [
        float((mine.to_dense() - other).norm() / other.norm())
        for mine, other in zip(run("per head"), run("peer"), strict=True)
    ]
    if max(errors) > 1e-6:
        raise RuntimeError(f"output and gradient of the table differ by {errors}")
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, measured in seconds.items():
            start = time.process_time()
            run(name)
            measured.append(time.process_time() - start)
    median = {name: 1e3 * statistics.median(measured) for name, measured in seconds.items()}
    shown = f"| {items:,} | {median['peer']:.0f} "
    for name in ("per head", "round robin"):
        shown += f"| {median[name]:.1f} | {median['peer'] / median[name]:.1f} "
    print(f"{shown}|  (differ by {max(errors):.0e})", flush=True)


if __name__ == "__main__":
    main()
