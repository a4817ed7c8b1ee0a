"""Planned grids of `benchmarks/grids`, the most wanted first, as `hf-mixup compare` runs them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import AutoModel

from on_gpu.setting import Check, Number, Setting, Skip
from tests.launching import ROOT

# Those without a run yet, then one that was begun on a CPU.
GRIDS = ("more_tasks", "clinc150", "full_sizes", "batchmixup_fractions", "amplify_tables")
# Seconds for the runs that have begun to end, and for the table of the results.
MARGIN = 10


def checks(setting: Setting) -> dict[str, Check]:
    """A check a grid, what is left of which another call makes; on a CPU two runs of one."""
    return {f"grid {name}": partial(run, setting, name) for name in (GRIDS if setting.cuda else GRIDS[:1])}


def run(setting: Setting, name: str) -> dict[str, Any]:
    """What the file of results of a grid does not have yet, as far as the time goes."""
    if not (setting.model and setting.data):
        raise Skip("needs weights and data: give --model FOLDER and --data FOLDER")
    if missing := [package for package in ("datasets", "evaluate") if not find_spec(package)]:
        raise Skip(f"needs the package {missing[0]}: give a folder of wheels by --wheels")
    from hf_mixup.compare.grid import make_grid
    from hf_mixup.compare.results import Results
    from hf_mixup.compare.run import check_runs
    from hf_mixup.compare.runner import run_grid
    from hf_mixup.glue.settings import read_settings

    # Grids name their data by folders beside each other.
    os.chdir(setting.data)
    settings = read_settings(str(ROOT / "benchmarks" / "grids" / f"{name}.yaml"), "grid file")
    settings["models"] = f"{Path(setting.model).name}={weights(setting)}"
    grid = make_grid(settings if setting.cuda else smaller(settings))
    results = Results(setting.out / "evidence" / f"{name}.jsonl")
    results.check_grid(grid)
    check_runs(grid)
    before = len(results.runs())
    try:
        run_grid(grid, results, Console(file=sys.stderr), setting.jobs, until=setting.until - MARGIN)
    finally:
        put_away(results.path)
    keys = {cell.key for cell in grid.cells()}
    failed = sum(results.lines[key]["status"] == "failed" for key in keys & results.lines.keys())
    return {
        "failed runs": Number(failed, 0),
        "runs": len(keys & results.lines.keys()),
        "runs made now": len(results.runs()) - before,
        "of": len(keys),
        "at once": setting.jobs,
        "unfinished": bool(keys - results.lines.keys()),
    }


@cache
def weights(setting: Setting) -> Path:
    """The folder of the model with weights in float32: it trains in the type that it is saved in."""
    folder = setting.folder("weights")
    shutil.copytree(setting.model, folder, dirs_exist_ok=True)
    AutoModel.from_pretrained(setting.model, dtype=torch.float32).save_pretrained(folder)
    return folder


def smaller(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Two runs of a grid on some rows, for a CPU."""
    options = {**settings["options"], "num_train_epochs": 1, "max_seq_length": 16}
    task = settings["tasks"][0]
    folder = task if isinstance(task, str) else task["folder"]
    return {
        **settings,
        "tasks": [folder],
        "sizes": "2-shot",
        "methods": ["none", "amplify"],
        "seeds": 1,
        "options": options,
    }


def put_away(results: Path) -> None:
    """Leave the file of results alone in its folder; what the runs printed goes to this process's own log."""
    for path in (results.with_name(f"{results.name}.log"), results.with_name(f"{results.name}.lock")):
        if path.exists():
            sys.stderr.write(path.read_text(encoding="utf-8", errors="replace"))
            path.unlink()
