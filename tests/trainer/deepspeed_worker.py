"""One process of a launch that trains tiny models under DeepSpeed; as distributed_worker.py, with more options.

Usage: torchrun --nproc_per_node 2 deepspeed_worker.py FOLDER RUNS.json

Besides what distributed_worker.py knows, RUNS.json may give a run `zero`, the stage of ZeRO, and `config`, more of
DeepSpeed's configuration; `stock`, for the stock `Trainer` on the stock model; `lockstep`, to draw plans as sharded
runs do; `pretrained`, to load the model by `from_pretrained`. Once a run used DeepSpeed, Accelerate uses it in every
later run of the process: runs without it come first.
"""

import os
import sys

import deepspeed
import torch
from transformers import Trainer, TrainingArguments

from hf_mixup import AutoMixupModelForSequenceClassification
from hf_mixup.trainer import trainer as trainer_module
from tests.tiny import tiny_dataset, tiny_model
from tests.trainer import distributed_worker

# DeepSpeed would compile the exchange through shared memory first, which takes a minute; gloo does it.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def configuration(stage, **more):
    """DeepSpeed's for a CPU; at stage 3 even the smallest parameter is divided."""
    return {
        "zero_optimization": {
            "stage": stage,
            "stage3_gather_16bit_weights_on_model_save": True,
            "stage3_param_persistence_threshold": 0,
        },
        "train_micro_batch_size_per_gpu": "auto",
        "train_batch_size": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "communication_data_type": "fp32",
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        **more,
    }


def run(folder, zero=None, config=None, stock=False, lockstep=False, pretrained=False, error=False, **options):
    options |= {"ddp_backend": "gloo", "use_cpu": True}
    if pretrained:
        return run_pretrained(folder, zero, **options)
    if zero is not None:
        options["deepspeed"] = configuration(zero, **(config or {}))
    if stock:
        return run_stock(folder, **options)
    drawn_together = trainer_module.in_lockstep
    if lockstep:
        trainer_module.in_lockstep = lambda *args: True
    try:
        return distributed_worker.outcome(folder, error, **options)
    finally:
        trainer_module.in_lockstep = drawn_together


def run_pretrained(folder, zero, **options):
    """As `run`, with the model divided while it is loaded, as in every script on GPUs at stage 3."""
    # On a CPU Accelerate leaves this out.
    deepspeed.init_distributed(dist_backend="gloo")
    start = f"{folder}-start"
    tiny_model("bert", dropout=0.0).save_pretrained(start)
    torch.distributed.barrier()
    made = distributed_worker.tiny_model
    distributed_worker.tiny_model = lambda *args, **kwargs: AutoMixupModelForSequenceClassification.from_pretrained(
        start
    )
    try:
        return distributed_worker.run(folder, deepspeed=configuration(zero), **options)
    finally:
        distributed_worker.tiny_model = made


def run_stock(folder, max_steps, **options):
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=max_steps,
        per_device_train_batch_size=4,
        dataloader_pin_memory=False,
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
        **options,
    )
    trainer = Trainer(tiny_model("bert", mixup=False, dropout=0.0), arguments, train_dataset=tiny_dataset(rows=32))
    trainer.train()
    trainer.save_model(str(folder))
    return {"log": trainer.state.log_history}


if __name__ == "__main__":
    distributed_worker.main(*sys.argv[1:], run=run)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    sys.stdout.flush()
    os._exit(0)
