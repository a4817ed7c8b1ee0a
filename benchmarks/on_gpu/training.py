"""Whole small trainings: waits, precisions, faults, resuming, checkpointing."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer
from transformers.utils.import_utils import enable_tf32

from hf_mixup import MixupTrainer
from hf_mixup.glue.faults import fault_sentence
from on_gpu.setting import Check, Number, Setting, deterministic, error_of, weights_of
from tests.tiny import tiny_model, wordpiece_tokenizer
from tests.trainer import waits
from tests.trainer.distributed_worker import Recorder
from tests.trainer.runs import CHECKPOINTING, STRONG, logged, train

SGD = {"optim": "sgd", "learning_rate": 0.05, "lr_scheduler_type": "constant"}
METHODS = {
    "amplify": STRONG,
    "ssmix": {"mixup_method": "ssmix"},
    "attentionmix": {"mixup_method": "attentionmix", "mixup_attention_head": "1"},
}
STEPS = 6


def checks(setting: Setting) -> dict[str, Check]:
    """What a user's training meets."""
    found: dict[str, Check] = {}
    for method in waits.METHODS:
        found[f"waits of {method}, values that Python reads"] = partial(waited, setting, method, waits.Reads)
        found[f"waits of {method}, as CUDA reports them"] = partial(waited, setting, method, waits.Syncs)
    found["fp16: an overflow skips one step"] = partial(overflow, setting)
    found["bf16 autocast against float32"] = partial(precision, setting, 0.03, bf16=True)
    found["weights in bf16 against float32"] = partial(precision, setting, 0.06, dtype=torch.bfloat16)
    found["tf32 against float32"] = partial(tf32, setting)
    for method in METHODS:
        found[f"{method} trains by deterministic algorithms"] = partial(twice, setting, method)
        found[f"NaN stops {method} before the optimizer step"] = partial(not_a_number, setting, method)
        found[f"{method} resumes bit for bit"] = partial(resumed, setting, method)
    found["activation checkpointing"] = partial(checkpointed, setting)
    found["out of memory is one sentence"] = partial(out_of_memory, setting)
    return found


def run(
    setting: Setting, method: str, folder: str, model: Any = None, trainer_class: type = MixupTrainer, **options: Any
) -> MixupTrainer:
    """A run on the device; all of its model's dropout is that of the device."""
    return train(
        setting.folder(folder),
        tiny_model("bert") if model is None else model,
        trainer_class,
        trainer_options={"processing_class": wordpiece_tokenizer()},
        **{"max_steps": STEPS, **setting.training, **METHODS[method], **options},
    )


def eager(seed: int = 0) -> torch.nn.Module:
    """A model with eager attention, all of whose algorithms are deterministic."""
    return tiny_model("bert", seed=seed, attention="eager")


def waited(setting: Setting, method: str, counter: type) -> dict[str, Any]:
    """The waits of a mixed step less those of stock Trainer's, in the step that has most more."""
    if counter is waits.Syncs:
        setting.needs_cuda()

    def of(trainer_class: type, **options: Any) -> list[int]:
        return waits.waits_of_steps(setting.folder("waits"), trainer_class, counter, **setting.training, **options)

    stock, ours = of(Trainer), of(MixupTrainer, mixup_method=method, **waits.METHODS[method])
    more = max(one - two for one, two in zip(ours, stock, strict=True))
    return {"waits more than stock Trainer's": Number(more, 0), "stock": stock, "mixed": ours}


class Faulty(Recorder):
    """A recorder that also keeps the weights and the scale of the losses before each step."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.plans, self.rows, self.first, self.before, self.scales = [], [], [], [], []

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        self.before.append(weights_of(self.model))
        scaler = self.accelerator.scaler
        self.scales.append(None if scaler is None else scaler.get_scale())
        return super().get_batch_samples(*args, **kwargs)


def overflow(setting: Setting) -> dict[str, Any]:
    """A gradient that overflows at step 4 leaves the weights, halves the scale, and the training goes on."""
    setting.needs_cuda()
    # The scale has come down to what fits by then.
    at, steps = 4, 8
    faulty = type("Overflowing", (Faulty,), {"fault": ("gradient", at, 0)})
    trainer = run(setting, "amplify", "fp16", trainer_class=faulty, fp16=True, max_steps=steps, **SGD)
    before, scales = trainer.before, trainer.scales
    return {
        "the run was stopped": Number(trainer.message is not None, 0),
        "weights that the overflow changed": Number((before[at + 1] != before[at]).sum().item(), 0),
        "steps too few": Number(steps - trainer.state.global_step, 0),
        "steps after it that changed nothing": Number(torch.equal(before[at + 2], before[at + 1]), 0),
        "scale after it over scale before": Number(scales[at + 1] / scales[at], 0.5),
        "scales": scales,
    }


def precision(setting: Setting, most: float, dtype: torch.dtype = torch.float32, **options: Any) -> dict[str, Number]:
    """Losses and the logged lambda of a run against those of the same run in float32."""

    def of(name: str, dtype: torch.dtype, **options: Any) -> MixupTrainer:
        model = tiny_model("bert", dropout=0.0).to(dtype)
        return run(setting, "amplify", name, model, **SGD, **options)

    # Before the other run: what that sets for the process stays.
    enable_tf32(False)
    expected = of("float32", torch.float32)
    found = of("found", dtype, **options)
    losses, lambdas = (
        [torch.tensor(logged(trainer, name)) for trainer in (found, expected)] for name in ("loss", "mixup_lambda")
    )
    return {"losses": Number(error_of(*losses), most), "lambda": Number(error_of(*lambdas), 1e-6)}


def tf32(setting: Setting) -> dict[str, Number]:
    """As `precision`, with the matrix products of float32 in tf32."""
    setting.needs_cuda()
    try:
        return precision(setting, 0.01, tf32=True)
    finally:
        enable_tf32(False)


def twice(setting: Setting, method: str) -> dict[str, Number]:
    """Where every algorithm has to be deterministic, a run ends with the same weights the second time."""
    with deterministic():
        first, second = (weights_of(run(setting, method, "twice").model) for _ in range(2))
    return {"other weights": Number((first != second).sum().item(), 0)}


def not_a_number(setting: Setting, method: str) -> dict[str, Any]:
    """A loss that is NaN at step 3 ends the run with the weights that two steps give."""
    faulty = type("Broken", (Faulty,), {"fault": ("loss", 2, 0)})
    with deterministic(warn_only=True):
        good = run(setting, method, "good", eager(), max_steps=2, **SGD)
        stopped = run(setting, method, "stopped", eager(), faulty, **SGD)
    moved = (weights_of(good.model) != weights_of(tiny_model("bert"))).sum().item()
    return {
        "not stopped": Number("of step 3 is not a finite number" not in (stopped.message or ""), 0),
        "other weights than two steps give": Number(
            (weights_of(stopped.model) != weights_of(good.model)).sum().item(), 0
        ),
        "weights that two steps leave as they were": Number(moved == 0, 0),
        "message": stopped.message,
    }


def resumed(setting: Setting, method: str) -> dict[str, Number]:
    """A run that goes on from step 3 ends with the weights and losses of one that was not disturbed."""
    saving = {"save_strategy": "steps", "save_steps": 3}
    folder = f"resumed {method}"
    with deterministic(warn_only=True):
        straight = run(setting, method, folder, eager(), **saving)
        checkpoint = Path(straight.args.output_dir, "checkpoint-3")
        again = run(setting, method, folder, eager(seed=5), resume=str(checkpoint))
    differ = (weights_of(again.model) != weights_of(straight.model)).sum().item()
    losses = sum(one != two for one, two in zip(logged(again, "loss"), logged(straight, "loss"), strict=True))
    return {"other weights": Number(differ, 0), "other losses": Number(losses, 0)}


def checkpointed(setting: Setting) -> dict[str, Number]:
    """The same losses and weights with and without activation checkpointing, dropout included."""
    enable_tf32(False)
    plain = run(setting, "amplify", "whole", **SGD)
    found = run(setting, "amplify", "checkpointed", **SGD, **{CHECKPOINTING: True})
    losses = (torch.tensor(logged(trainer, "loss")) for trainer in (found, plain))
    weights = (weights_of(trainer.model) for trainer in (found, plain))
    return {"losses": Number(error_of(*losses), 1e-5), "weights": Number(error_of(*weights), 1e-5)}


class Greedy(MixupTrainer):
    """Asks in the backward pass of its second step for more memory than there is."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        if self.state.global_step == 1:
            loss.register_hook(lambda gradient: gradient + torch.empty(1 << 55, device=gradient.device)[0])
        return (loss, outputs) if return_outputs else loss


def out_of_memory(setting: Setting) -> dict[str, Any]:
    """What the allocator raises becomes the sentence with the flags that help, and the device can be used on."""
    try:
        run(setting, "amplify", "greedy", trainer_class=Greedy)
    except Exception as error:
        said, kind = fault_sentence(error) or "", type(error).__name__
    else:
        said, kind = "", "no error"
    told = said.startswith("the memory does not suffice: halve --per_device_train_batch_size")
    after = run(setting, "amplify", "after")
    finite = torch.tensor(logged(after, "loss")).isfinite().all().item()
    return {"another sentence": Number(not told, 0), "no training after it": Number(not finite, 0), "raised": kind}
