"""Looks after the checkpoints of a run: list, verify, export.

python scripts/checkpoint.py list runs/synthetic_din
python scripts/checkpoint.py verify runs/synthetic_din
python scripts/checkpoint.py export runs/synthetic_din --checkpoint best --out exported
"""

import argparse
import json
import sys
from pathlib import Path


def list_command(run: Path) -> None:
    """Prints the checkpoints of a run without reading their tensors."""
    from ranker.checkpoint_files import MANIFEST, list_checkpoints, read_state

    for path in _found(run):
        manifest = json.loads((path / MANIFEST).read_text())
        progress = read_state(path)["progress"]
        size = sum(entry["size"] for entry in manifest["files"].values())
        print(
            f"{path.name}  {size / 1e6:.1f} MB  {manifest['world_size']} ranks  "
            f"epoch {progress['epoch']} step {progress['epoch_step']}"
        )
    newest = read_state(list_checkpoints(run / "checkpoints")[-1])["progress"]
    if newest["best_step"] is not None:
        print(f"best: step {newest['best_step']}, score {newest['best_score']:.5f}")


def verify_command(run: Path) -> None:
    """Compares all files with the manifests.

    Raises:
        CheckpointError: one is damaged.
    """
    from ranker.checkpoint_files import CheckpointError, verify_checkpoint

    problems = []
    for path in _found(run):
        problem = verify_checkpoint(path)
        print(f"{path.name}  {'ok' if problem is None else 'DAMAGED'}")
        problems += [] if problem is None else [problem]
    if problems:
        raise CheckpointError("\n  ".join(problems))


def export_command(run: Path, checkpoint: str, out: Path, *, optimizer: bool) -> None:
    """Writes a checkpoint as safetensors and JSON."""
    from ranker.checkpoint_files import choose
    from ranker.export import export_checkpoint

    path = choose(run / "checkpoints", int(checkpoint) if checkpoint.isdigit() else checkpoint)
    for file in export_checkpoint(path, out, config=run / "config.yaml", optimizer=optimizer):
        print(f"{file}  {file.stat().st_size / 1e6:.1f} MB")


def _found(run: Path) -> list[Path]:
    from ranker.checkpoint_files import CheckpointError, list_checkpoints
    from ranker.run_dir import RunDir

    RunDir(run).read_config()
    found = list_checkpoints(run / "checkpoints")
    if not found:
        raise CheckpointError(f"{run} has no checkpoint; train the run first")
    return found


def main() -> None:
    """Parses the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("list", "what there is"),
        ("verify", "compare all files with the manifests"),
        ("export", "write safetensors and JSON"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("run", type=Path, help="directory of the run")
    command.add_argument("--checkpoint", default="best", help="best, last or a step")
    command.add_argument("--out", type=Path, required=True, help="folder to make")
    command.add_argument("--optimizer", action="store_true", help="the optimizers' state as well")
    options = parser.parse_args()
    # imported late, because torch takes seconds and --help should not wait for it
    from ranker.command import run_command

    def run() -> None:
        if options.command == "list":
            list_command(options.run)
        elif options.command == "verify":
            verify_command(options.run)
        else:
            export_command(
                options.run, options.checkpoint, options.out, optimizer=options.optimizer
            )

    sys.exit(run_command(run))


if __name__ == "__main__":
    main()
