"""One process of two that train, are stopped by a signal to one of them, and resume.

Usage: torchrun --nproc_per_node 2 stop_worker.py FOLDER
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch

from hf_mixup import MixupTrainer, save_on_sigterm
from hf_mixup.trainer.checksums import read_checksums
from tests.tiny import tiny_model
from tests.trainer.runs import STRONG, train

OPTIONS = {**STRONG, "save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 4, "max_steps": 5}


class Signalled(MixupTrainer):
    """The second process gets SIGTERM in the third step."""

    def train(self, *args, **kwargs):
        with save_on_sigterm(self):
            return super().train(*args, **kwargs)

    def compute_loss(self, *args, **kwargs):
        if self.args.process_index == 1 and self.state.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        self.steps.append(self.state.global_step + 1)
        return super().compute_loss(*args, **kwargs)

    def _save_rng_state(self, output_dir):
        if self.args.process_index == 1:
            # Slower than the first process, which marks the checkpoint as whole when everything is there.
            time.sleep(0.5)
            self.too_early.append(Path(output_dir, "trainer_state.json").exists())
        super()._save_rng_state(output_dir)

    steps = []
    too_early = []


def stopped(folder):
    try:
        train(folder, trainer_class=Signalled, **OPTIONS)
    except SystemExit as ended:
        return {"code": ended.code, "step": Signalled.steps[-1]}


def weights(trainer):
    return [parameter.detach().double().sum().item() for parameter in trainer.model.parameters()]


def main(folder):
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    result = {"straight": weights(train(folder / "straight", **OPTIONS)), "stopped": stopped(folder / "out")}
    assert rank == 0 or Signalled.too_early == [False, False]
    whole = sorted(path.name for path in (folder / "out" / "checkpoint-3").glob("rng_state_*.pth"))
    assert whole == ["rng_state_0.pth", "rng_state_1.pth"]
    sums = read_checksums(folder / "out" / "checkpoint-3" / "checksums.json")
    assert {*whole, "model.safetensors", "optimizer.pt", "trainer_state.json"} <= set(sums)
    torch.distributed.barrier()
    if rank == 0:
        (folder / "out" / "checkpoint-3" / "rng_state_0.pth").unlink()
    torch.distributed.barrier()
    model = tiny_model("bert", seed=5)
    result["resumed"] = weights(train(folder / "out", model, **{**OPTIONS, "save_strategy": "no"}, resume=True))
    (folder / f"rank{rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    # Taking gloo's threads apart at the end of a process now and then aborts it; the results are on disk.
    torch.distributed.barrier()
    sys.stdout.flush()
    os._exit(0)
