"""One process of a launch that trains tiny models, run after run, and writes what it saw and where each run ended.

Usage: torchrun --nproc_per_node 2 distributed_worker.py FOLDER RUNS.json

RUNS.json maps the name of each run to training arguments, and beside them `family`, `rows`, `batch`, `shard`,
`resume`, `weights`, `error` and `others`. The results of rank r are in FOLDER/rank{r}.json under the same names, and
the model of a run is in FOLDER/NAME.
"""

import gc
import json
import os
import sys
import threading
from pathlib import Path

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from hf_mixup import MixupTrainer, MixupTrainingArguments, NonFiniteLossError
from hf_mixup.files import LOCK, alone
from hf_mixup.mixing import BatchPlan, SpanPlan
from tests.tiny import tiny_dataset, tiny_model, wordpiece_tokenizer


class Recorder(MixupTrainer):
    """Keeps the batches of the first step, and of every batch the mean weight of its plan and its rows.

    With a `fault`, (kind, step, rank), its loss or the gradient of that becomes NaN there.
    """

    fault = message = None

    def train(self, *args, **kwargs):
        try:
            return super().train(*args, **kwargs)
        except NonFiniteLossError as error:
            self.message = str(error)

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        kind, step, rank = self.fault or (None, None, None)
        if kind is not None and model.training and (self.state.global_step, self.args.process_index) == (step, rank):
            # The root of 0 is 0, and its slope is infinite.
            loss = loss * float("nan") if kind == "loss" else loss + (0 * outputs.logits).abs().sqrt().sum()
        return (loss, outputs) if return_outputs else loss

    def get_batch_samples(self, *args, **kwargs):
        batches, num_items = super().get_batch_samples(*args, **kwargs)
        for batch in batches:
            self.plans.append(described(batch.get("mixup")))
            self.rows.append(len(batch["labels"]))
        if self.state.global_step == 0:
            self.first = [{name: batch[name].tolist() for name in ("input_ids", "labels")} for batch in batches]
        return batches, num_items


def described(plan):
    """The mean weight of a plan, or None for a plain batch."""
    if plan is None or isinstance(plan, SpanPlan) or plan.probe is not None:
        return None if plan is None else "found in the model"
    return (plan.weights if isinstance(plan, BatchPlan) else plan.weight).mean().item()


def run(
    folder,
    family="bert",
    rows=32,
    batch=4,
    shard=None,
    resume=None,
    missing=False,
    weights=None,
    fault=None,
    content=0,
    eval_rows=None,
    names=None,
    locked=False,
    **options,
):
    """Train, evaluate and save; `shard` names the class that is sharded by FSDP2, the environment says how.

    `resume` is a checkpoint of an earlier run, such as NAME/checkpoint-2; with `missing` half of the rows have no
    label; `weights` are those of the rows, repeated; `fault` as in `Recorder`; `content` is the seed of the rows;
    `eval_rows` is the number of those to evaluate, where they are not the same ones; `names` are those of the
    labels; with `locked` another run holds the folder.
    """
    if locked and not int(os.environ["RANK"]):
        hold(folder)
    settings = {"max_steps": 5, "learning_rate": 1e-3, "logging_steps": 1, "save_strategy": "no", "disable_tqdm": True}
    arguments = MixupTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=batch,
        dataloader_pin_memory=False,
        # Without a GPU the arguments themselves make one run of the processes.
        **{"use_cpu": torch.accelerator.is_available(), **settings, **options},
    )
    if shard is not None:
        os.environ["FSDP_TRANSFORMER_CLS_TO_WRAP"] = shard
        # Accelerate shards on accelerators alone: on a CPU it runs DDP, whatever the launch file says.
        PartialState().distributed_type = DistributedType.MULTI_GPU
    columns = {"label": [0, -100] * (rows // 2)} if missing else {}
    if weights is not None:
        columns["weight"] = (weights * rows)[:rows]
    dataset = tiny_dataset(rows=rows, seed=content, **columns)
    model = tiny_model(family, dropout=0.0)
    if names is not None:
        model.config.id2label = dict(enumerate(names))
    trainer = Recorder(
        model,
        arguments,
        train_dataset=dataset,
        eval_dataset=dataset if eval_rows is None else tiny_dataset(rows=eval_rows),
        processing_class=wordpiece_tokenizer(),
    )
    trainer.plans, trainer.rows, trainer.first, trainer.fault = [], [], [], fault
    trainer.train(resume_from_checkpoint=None if resume is None else str(folder.parent / resume))
    result = {
        "distributed_type": trainer.accelerator.distributed_type,
        "backend": torch.distributed.get_backend() if torch.distributed.is_initialized() else None,
        "world_size": arguments.world_size,
        "plans": trainer.plans,
        "rows": trainer.rows,
        "first": trainer.first,
        "message": trainer.message,
        "updates": getattr(trainer.model_wrapped, "global_steps", None),  # of DeepSpeed's engine
        "log": trainer.state.log_history,
        "eval_loss": trainer.evaluate()["eval_loss"],
        "units": [type(module).__name__ for module in trainer.model.modules() if isinstance(module, FSDPModule)],
        "weights": [parameter.detach().double().sum().item() for parameter in local_parameters(trainer.model)],
    }
    trainer.save_model(str(folder))
    return result


def local_parameters(model):
    """The parameters, or of sharded ones the shards of this process."""
    for parameter in model.parameters():
        yield parameter.to_local() if isinstance(parameter, DTensor) else parameter


def hold(folder):
    """Let another thread, which is to the lock as another process, hold the folder to the end."""
    held = threading.Event()

    def holder():
        with alone(folder / LOCK, "unused"):
            held.set()
            threading.Event().wait()

    threading.Thread(target=holder, daemon=True).start()
    held.wait()


def outcome(folder, error=False, others=None, **options):
    """What `run` returns, or the message of the ValueError that it must raise.

    `others` are options of the processes after the first.
    """
    if others is not None and int(os.environ["RANK"]):
        options |= others
    if not error:
        return run(folder, **options)
    try:
        run(folder, **options)
    except ValueError as raised:
        return str(raised)
    return "no error"


def main(folder, runs, run=outcome):
    torch.set_num_threads(1)
    # Each training ends with a collection, which need not look through all that was imported.
    gc.freeze()
    folder = Path(folder)
    results = {name: run(folder / name, **options) for name, options in json.loads(Path(runs).read_text()).items()}
    Path(folder, f"rank{os.environ.get('RANK', 0)}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
    # Taking gloo's threads apart at the end of a process now and then aborts it; the results are on disk.
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    sys.stdout.flush()
    os._exit(0)
