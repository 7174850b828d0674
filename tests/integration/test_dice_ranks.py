"""Dice's statistics where the rows are dealt to two ranks, one of which may have none."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import torch
import torch.distributed as dist
from ranker.distributed import process_group
from ranker.modules.dice import global_moments

with process_group("cpu") as process:
    rows = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 5
    upstream = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    whole = rows.clone().requires_grad_()
    mean, variance = whole.mean(0), whole.var(0, correction=0)
    torch.autograd.backward((mean * upstream + variance * upstream).sum())
    for share in (7, 5, 0):
        begin, end = ((0, share), (share, 7))[process.rank]
        own = rows[begin:end].clone().requires_grad_()
        found = global_moments(own)
        torch.testing.assert_close(found, (mean.detach(), variance.detach()))
        # every rank adds the same term to the loss, so a gradient comes once from each
        loss = (found[0] * upstream + found[1] * upstream).sum()
        torch.autograd.backward(loss / process.world_size)
        torch.testing.assert_close(own.grad, whole.grad[begin:end])
    dist.barrier()
    print("equal on", process.rank, flush=True)
"""


def test_moments_and_their_gradients_do_not_depend_on_who_has_which_rows(tmp_path: Path) -> None:
    script = tmp_path / "dice_ranks.py"
    script.write_text(SCRIPT)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *launcher, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("equal on") == 2
