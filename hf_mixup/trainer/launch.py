"""Which methods go with which way to launch: one process, DDP, FSDP2, DeepSpeed."""

from __future__ import annotations

from accelerate import Accelerator

from hf_mixup.methods import Method
from hf_mixup.mixing import AttentionProbe, Spans
from hf_mixup.trainer.arguments import MixupTrainingArguments
from hf_mixup.trainer.deepspeed import zero_stage


def check_launch(method: Method, args: MixupTrainingArguments, accelerator: Accelerator, fsdp: bool) -> None:
    """Check that the method can train the way the run was launched.

    Args:
        method: what the run mixes.
        args: the arguments of the run.
        accelerator: how it was launched.
        fsdp: whether FSDP shards the model.

    Raises:
        ValueError: it cannot, in one sentence that says what can.
    """
    stage = zero_stage(accelerator)
    sharding = "FSDP" if fsdp else None if stage is None else "DeepSpeed"
    if method.label_weight == "learned" and sharding is not None:
        raise ValueError(
            f"mixup_label_weight='learned' trains a gate beside the model, which {sharding} does not admit: train "
            f"without {sharding}, or choose another mixup_label_weight."
        )
    if stage is not None:
        _check_deepspeed(method, args, accelerator)
    elif not fsdp:
        _check_static_graph(method, args)
    if in_lockstep(method, args, stage, fsdp) and not args.accelerator_config.even_batches:
        raise ValueError(
            f"mixup_method={method.name!r} needs batches of the same size on all processes under {sharding}: leave "
            "even_batches in accelerator_config true."
        )


def in_lockstep(method: Method, args: MixupTrainingArguments, stage: int | None, fsdp: bool) -> bool:
    """Whether all processes must mix in the same batches, because the processes wait for each other inside a pass.

    Args:
        method: what the run mixes.
        args: the arguments of the run.
        stage: the stage of ZeRO, or None.
        fsdp: whether FSDP shards the model.
    """
    if args.world_size == 1 or method.site is None:
        return False
    if stage == 3:
        # DeepSpeed fetches weights ahead in the order of the last step.
        return True
    two_passes = isinstance(method.ratio, Spans)
    return (two_passes and stage == 2) or (fsdp and (two_passes or isinstance(method.ratio, AttentionProbe)))


def late_weights_error(method: Method) -> ValueError:
    """DeepSpeed updates before the weights of the rows of a step are known."""
    return ValueError(
        f"DeepSpeed adds up the gradients of accumulated batches before it is known how much each row of "
        f"mixup_method={method.name!r} counts (class_weights are set, rows have weights, or labels are missing or "
        "cannot be looked at before the training): set gradient_accumulation_steps=1, or train without DeepSpeed."
    )


def _check_deepspeed(method: Method, args: MixupTrainingArguments, accelerator: Accelerator) -> None:
    accumulates = args.gradient_accumulation_steps > 1
    if isinstance(method.ratio, AttentionProbe) and args.class_weights is not None and accumulates:
        raise late_weights_error(method)
    if method.updates > 1 and "scheduler" in accelerator.state.deepspeed_plugin.deepspeed_config:
        raise ValueError(
            f"mixup_updates={method.updates} would move the scheduler of the DeepSpeed config {method.updates} times "
            "a batch: leave 'scheduler' out of the config, and give lr_scheduler_type and warmup_steps instead."
        )


def _check_static_graph(method: Method, args: MixupTrainingArguments) -> None:
    accumulates = args.gradient_accumulation_steps > 1
    if args.ddp_static_graph and args.world_size > 1 and (accumulates or isinstance(method.ratio, Spans)):
        what = f"gradient_accumulation_steps={args.gradient_accumulation_steps}" if accumulates else method.name
        raise ValueError(
            f"ddp_static_graph=True needs one backward pass a step, and {what} makes several: leave ddp_static_graph "
            "out."
        )
