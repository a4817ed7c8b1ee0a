"""Starting real processes: Python, torchrun, and what `accelerate launch` makes of a launch file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

ROOT = Path(__file__).resolve().parents[1]
WORKER = ROOT / "tests" / "trainer" / "distributed_worker.py"


def python(
    *arguments: str | Path, timeout: int = 240, launcher: Sequence[str] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Python with these arguments and one thread, as a process of its own that must succeed.

    `launcher` is the command that starts it, if it is not started directly.
    """
    done = subprocess.run(
        [*launcher, sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, f"{done.stdout[-1000:]}\n{done.stderr[-4000:]}"
    return done


def torchrun(
    processes: int, *arguments: str | Path, timeout: int = 240, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A script and its arguments in that many processes, which talk by gloo on a machine without a GPU."""
    module = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes))
    return python(*module, *arguments, timeout=timeout, **environment)


def launch(
    folder: Path,
    runs: Mapping[str, Mapping[str, Any]],
    processes: int = 2,
    timeout: int = 240,
    worker: Path = WORKER,
    **environment: str,
) -> list[dict[str, Any]]:
    """The results of the runs of a worker, one dict for each process."""
    (folder / "runs.json").write_text(json.dumps(runs))
    torchrun(processes, worker, folder, folder / "runs.json", timeout=timeout, **environment)
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(processes)]


def launch_arguments(config: Path) -> Namespace:
    """The arguments of `accelerate launch` once it has read a launch file."""
    arguments = launch_command_parser().parse_args(["--config_file", str(config), "script.py"])
    arguments, _, _ = _validate_launch_command(arguments)
    return arguments


def launch_environment(config: Path) -> dict[str, str]:
    """What `accelerate launch` adds to the environment of each process for a launch file with several GPUs."""
    made = prepare_multi_gpu_env(launch_arguments(config))
    return {name: value for name, value in made.items() if name.startswith(("ACCELERATE_", "FSDP_"))}
