"""Launched by `torchrun`, set up by Accelerate from the launch files: DDP, and FSDP2 against it."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import torch

from on_gpu.setting import Check, Number, Setting, error_of
from tests.launching import ROOT, launch, launch_environment
from tests.tiny import NUM_LAYERS
from tests.trainer import distributed_worker
from tests.trainer.runs import STRONG
from tests.trainer.waits import METHODS

SGD = {"optim": "sgd", "learning_rate": 0.05, "max_steps": 3}
BLOCK = "MixupBertLayer"
RUNS = {
    "amplify": {**STRONG, "gradient_accumulation_steps": 2},
    "embedmix": {"mixup_method": "embedmix"},
    "attentionmix": {"mixup_method": "attentionmix", "mixup_attention_layer": 2, **METHODS["attentionmix"]},
    "ssmix": {"mixup_method": "ssmix"},
}


def checks(setting: Setting) -> dict[str, Check]:
    """Each launch file, on one GPU by NCCL, on a CPU in two processes by gloo."""
    return {
        "ddp.yaml: what it sets up": partial(set_up, setting, "ddp"),
        "fsdp2.yaml: what it sets up": partial(set_up, setting, "fsdp2"),
        **{f"{run}: one process of DDP against none": partial(against_none, setting, run) for run in RUNS},
        **{f"{run}: FSDP2 against DDP": partial(against_ddp, setting, run) for run in RUNS},
    }


@cache
def results(setting: Setting, kind: str) -> dict[str, Any]:
    """What the runs of one launch came to in its first process."""
    shard = {"shard": BLOCK} if kind == "fsdp2" else {}
    # The worker itself stays off an accelerator where nothing else is asked for.
    device = {"use_cpu": False} if setting.cuda else {}
    runs = {name: {**SGD, **shard, **device, **options} for name, options in RUNS.items()}
    environment = launch_environment(ROOT / "configs" / "accelerate" / f"{kind}.yaml")
    timeout = 100 if setting.cuda else 240
    return launch(setting.folder(kind), runs, processes_of(setting), timeout, **environment)[0]


def processes_of(setting: Setting) -> int:
    return 1 if setting.cuda else 2


def set_up(setting: Setting, kind: str) -> dict[str, Any]:
    """The backend, the wrapper and the units are those that the launch file means."""
    run = results(setting, kind)["amplify"]
    wrapped = {"ddp": "MULTI_GPU" if setting.cuda else "MULTI_CPU", "fsdp2": "FSDP"}[kind]
    units = sum(unit == f"FSDP{BLOCK}" for unit in run["units"])
    return {
        "another backend": Number(run["backend"] != ("nccl" if setting.cuda else "gloo"), 0),
        "another wrapper": Number(run["distributed_type"] != wrapped, 0),
        "units more or less than blocks": Number(abs(units - (NUM_LAYERS if kind == "fsdp2" else 0)), 0),
        "processes": run["world_size"],
        "backend": run["backend"],
        "wrapper": run["distributed_type"],
    }


def against_none(setting: Setting, name: str) -> dict[str, Number]:
    """Of one process: the losses of the same run without a launcher."""
    setting.needs_cuda()
    expected = distributed_worker.run(setting.folder("none") / name, use_cpu=False, **SGD, **RUNS[name])
    return compared(results(setting, "ddp")[name], expected)


def against_ddp(setting: Setting, name: str) -> dict[str, Number]:
    """The losses and gradient norms of FSDP2 are those of DDP."""
    return compared(results(setting, "fsdp2")[name], results(setting, "ddp")[name])


def compared(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, Number]:
    """The errors of what was logged."""

    def logged(run: dict[str, Any], name: str) -> torch.Tensor:
        return torch.tensor([entry[name] for entry in run["log"] if name in entry], dtype=torch.float64)

    names = ("loss", "grad_norm", "mixup_lambda")
    return {name: Number(error_of(logged(found, name), logged(expected, name)), 1e-5) for name in names}
