"""The kernels under a mixed step: the mix itself, its plan's way to the device, and those of attention."""

from __future__ import annotations

from argparse import Namespace
from functools import partial

import step_time
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from transformers.utils.import_utils import enable_tf32

from hf_mixup.mixing.plan import PairPlan, Plan, mix
from on_gpu import numerics
from on_gpu.setting import Check, Number, Setting, Skip, deterministic, error_of
from tests.tiny import tiny_batch

# By kernel, those that CUDA alone has. Flash attention takes no mask.
BACKENDS = {
    SDPBackend.MATH: False,
    SDPBackend.FLASH_ATTENTION: False,
    SDPBackend.EFFICIENT_ATTENTION: True,
    SDPBackend.CUDNN_ATTENTION: True,
}
MOVED = ("amplify", "nonlinear", "tmix", "batchmixup", "ssmix")


def checks(setting: Setting) -> dict[str, Check]:
    """The mix with every kind of weight, a plan's way to the device, and each kernel of attention."""
    found: dict[str, Check] = {}
    for dtype, most in ((torch.float32, 1e-6), (torch.bfloat16, 1e-2)):
        for kind in ("batch", "row", "token", "feature"):
            name = f"the mix, one weight a {kind}, {str(dtype).removeprefix('torch.')}"
            found[name] = partial(mixed, setting, kind, dtype, most)
    for method in MOVED:
        found[f"the plan of {method} moves in one pinned copy"] = partial(moved, setting, method)
    for backend in BACKENDS:
        for padded in (False, True):
            if backend != SDPBackend.FLASH_ATTENTION or not padded:
                name = f"attention by {backend.name}, {'padded' if padded else 'no padding'}"
                found[name] = partial(attention, setting, backend, padded)
    return found


def mixed(setting: Setting, kind: str, dtype: torch.dtype, most: float) -> dict[str, Number]:
    """Values and gradients of the mix against a loop in float64, and twice the same bits."""
    rows, length, hidden = 6, 7, 32
    shape = {"batch": (), "row": (rows, 1, 1), "token": (rows, length, 1), "feature": (rows, 1, hidden)}[kind]
    generator = torch.Generator().manual_seed(0)
    states, slope = torch.randn(2, rows, length, hidden, generator=generator).to(dtype).unbind()
    weight, partner = torch.rand(shape, generator=generator), torch.randperm(rows, generator=generator)

    def on_device() -> tuple[Tensor, Tensor]:
        given = states.to(setting.device).requires_grad_()
        made = mix(given, partner.to(setting.device), weight.to(setting.device))
        return made, torch.autograd.grad(made, given, slope.to(setting.device))[0]

    with deterministic():
        (values, gradient), again = on_device(), on_device()
    given = states.double().requires_grad_()
    shares = weight.double().expand(rows, length, hidden)
    expected = torch.stack([shares[i] * given[i] + (1 - shares[i]) * given[partner[i]] for i in range(rows)])
    (slopes,) = torch.autograd.grad(expected, given, slope.double())
    same = torch.equal(values, again[0]) and torch.equal(gradient, again[1])
    return {
        "values": Number(error_of(values, expected), most),
        "gradient": Number(error_of(gradient, slopes), most),
        "other bits the second time": Number(not same, 0),
    }


def moved(setting: Setting, method: str) -> dict[str, Number]:
    """A plan arrives whole, by one copy from pinned memory that the host does not wait for."""
    setting.needs_cuda()
    mixup = numerics.mixup_of(method, 3, 32, 4)
    plan = numerics.first_plan(mixup, tiny_batch("bert", len(numerics.LABELS)))
    plan.to(setting.device)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as watch:
        torch.cuda.set_sync_debug_mode("error")
        try:
            there = plan.to(setting.device)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
    # Kineto names them "Memcpy HtoD (Pinned -> Device)".
    copies = {event.key: event.count for event in watch.key_averages() if event.key.startswith("Memcpy ")}
    pinned = sum(count for name, count in copies.items() if name.startswith("Memcpy HtoD (Pinned"))
    return {
        "values that changed": Number(sum(not torch.equal(*pair) for pair in tensors_of(plan, there)), 0),
        "copies beyond one": Number(abs(sum(copies.values()) - 1), 0),
        "copies not from pinned memory": Number(sum(copies.values()) - pinned, 0),
    }


def tensors_of(plan: Plan, there: Plan) -> list[tuple[Tensor, Tensor]]:
    """The tensors of a plan on the host and of its copy on the device, back on the host."""
    names = [name for name, value in vars(plan).items() if isinstance(value, Tensor)]
    return [(getattr(plan, name), getattr(there, name).cpu()) for name in names]


def attention(setting: Setting, backend: SDPBackend, padded: bool) -> dict[str, Number]:
    """A mixed step whose attention one kernel computes, against eager attention in float64."""
    if BACKENDS[backend]:
        setting.needs_cuda()
    enable_tf32(False)
    batch = tiny_batch("bert", len(numerics.LABELS), length=16)
    if not padded:
        batch = {"input_ids": batch["input_ids"].clamp(min=5)}
    plan = PairPlan(torch.tensor([2, 0, 1, 4, 3]), torch.tensor(0.7), "attention", (1, 2))
    # Heads of 32, which every kernel takes.
    config = step_time.config_of(Namespace(model="small", depth=None, family="bert"))
    eager, model = (numerics.random_model(config, attention) for attention in ("eager", "sdpa"))
    expected = numerics.step(eager.double(), batch, plan)
    try:
        with sdpa_kernel(backend):
            found = numerics.step(model.to(setting.device, torch.bfloat16), batch, plan)
    except RuntimeError as error:
        if "No available kernel" not in str(error):
            raise
        raise Skip(f"torch has no kernel of {backend.name} for it") from error
    most = numerics.MOST[torch.bfloat16]
    return {name: Number(error_of(found[name], expected[name]), most[name]) for name in most}
