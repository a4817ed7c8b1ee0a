"""`torch.compile`: the frames that a CPU has too, and the values of eager steps."""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from typing import Any

import step_time
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from transformers.utils.import_utils import enable_tf32

from hf_mixup.mixing import StepKey
from hf_mixup.mixing.plan import SpanPlan
from on_gpu import numerics
from on_gpu.setting import Check, Number, Setting, error_of
from tests.tiny import tiny_batch

METHODS = ("amplify", "embedmix", "attentionmix", "ssmix", "tmix")
ON_CPU = ("amplify", "ssmix")


def checks(setting: Setting) -> dict[str, Check]:
    """The frames of whole steps, and the values of a forward and a backward pass."""
    methods, backend = (METHODS, "inductor") if setting.cuda else (ON_CPU, "aot_eager")
    return {f"frames of {method}": partial(frames, setting, method) for method in methods} | {
        f"values of {method} by {backend}": partial(values, setting, method, backend) for method in methods
    }


def frames(setting: Setting, method: str) -> dict[str, Any]:
    """The frames beyond those that are due, or that are missing, while lambda, partner and layer change."""
    torch.compiler.reset()
    flags = ["--mixup_method", method, "--scratch", str(setting.folder("frames"))]
    flags += [] if setting.cuda else ["--cpu"]
    compiled, due = step_time.compiled_frames(step_time.parser("Flags.").parse_args(flags))
    return {"frames more or less than due": Number(abs(compiled - due), 0), "frames": compiled}


def values(setting: Setting, method: str, backend: str) -> dict[str, Any]:
    """Logits, loss and gradient of three plans against the same model without a compiler.

    Inductor makes kernels of what `aot_eager` traces, which on a CPU takes minutes.
    """
    torch.compiler.reset()
    enable_tf32(False)
    batch = numerics.with_specials(tiny_batch("bert", len(numerics.LABELS), length=24))
    depth = 3 if setting.cuda else 1
    config = step_time.config_of(Namespace(model="small", depth=depth, family="bert"))
    eager, other = (numerics.random_model(config).to(setting.device) for _ in range(2))
    compiler = CompileCounterWithBackend(backend)
    compiled = torch.compile(other, backend=compiler)
    mixup = numerics.mixup_of(method, depth, config.hidden_size, config.num_attention_heads)
    errors: dict[str, list[float]] = {"logits": [], "loss": [], "gradient": []}
    for step in range(3):
        plan = mixup.plan(batch, torch.tensor(numerics.LABELS), StepKey(1, step=step))
        for model in (eager, compiled):
            model.zero_grad()
        expected = numerics.step(eager, batch, plan)
        found = numerics.step(compiled, batch, plan, expected)
        for name, each in errors.items():
            each.append(error_of(found[name], expected[name]))
    due = 1 + isinstance(plan, SpanPlan)
    numbers = {name: Number(max(each), 1e-4 if name == "gradient" else 2e-5) for name, each in errors.items()}
    return {**numbers, "frames more or less than due": Number(abs(compiler.frame_count - due), 0)}
