"""One process of a distributed run: trains on the rows of `tiny_dataset` and writes what it saw and where it ended.

Usage: torchrun --nproc_per_node 2 distributed_worker.py OUTPUT_FOLDER ROWS BATCH OPTION=VALUE...
"""

import json
import os
import sys
from pathlib import Path

import torch
import yaml

from hf_mixup import MixupTrainer, MixupTrainingArguments
from hf_mixup.mixing import BatchPlan
from tests.tiny import tiny_dataset, tiny_model


class Recorder(MixupTrainer):
    """Keeps the plans of its process."""

    def get_batch_samples(self, *args, **kwargs):
        batches, num_items = super().get_batch_samples(*args, **kwargs)
        for batch in batches:
            plan = batch["mixup"]
            weights = None if plan is None else plan.weights if isinstance(plan, BatchPlan) else plan.weight
            self.seen.append(None if plan is None else [weights.mean().item(), plan.rows])
        return batches, num_items


def main(folder: str, rows: str, batch: str, *options: str) -> None:
    torch.set_num_threads(1)
    settings = {"max_steps": 5, "learning_rate": 1e-3, "logging_steps": 1, "save_strategy": "no", "disable_tqdm": True}
    settings |= {name: yaml.safe_load(value) for name, value in (option.split("=") for option in options)}
    arguments = MixupTrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=int(batch),
        use_cpu=True,
        dataloader_pin_memory=False,
        **settings,
    )
    dataset = tiny_dataset(rows=int(rows))
    trainer = Recorder(tiny_model("bert", dropout=0.0), arguments, train_dataset=dataset, eval_dataset=dataset)
    trainer.seen = []
    trainer.train()
    result = {
        "world_size": arguments.world_size,
        "plans": trainer.seen,
        "log": trainer.state.log_history,
        "eval_loss": trainer.evaluate()["eval_loss"],
        "weights": [parameter.detach().double().sum().item() for parameter in trainer.model.parameters()],
    }
    Path(folder, f"rank{arguments.process_index}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
    # Taking gloo's threads apart at the end of a process now and then aborts it; the results are on disk.
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    sys.stdout.flush()
    os._exit(0)
