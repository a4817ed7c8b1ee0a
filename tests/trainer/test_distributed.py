"""Two real processes (torchrun, gloo)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("distributed_worker.py")
STRONG = ("mixup_method=amplify", "mixup_ratio=beta", "mixup_alpha=1.0")


def run(folder, processes, rows, batch, *options):
    folder.mkdir()
    launcher = [sys.executable, str(WORKER)]
    if processes > 1:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        launcher += [str(WORKER)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, str(folder), str(rows), str(batch), *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(processes)]


def losses(result):
    return [entry["loss"] for entry in result["log"] if "loss" in entry]


def test_two_processes_reach_the_loss_and_weights_of_one(tmp_path):
    # SGD, because Adam turns the rounding noise of a gradient that is 0 (the key biases) into full steps.
    options = ("class_weights=balanced", "gradient_accumulation_steps=2", "optim=sgd", "learning_rate=0.05")
    one = run(tmp_path / "one", 1, 32, 4, *options, "per_device_eval_batch_size=8")[0]
    two = run(tmp_path / "two", 2, 32, 2, *options, "per_device_eval_batch_size=4")
    assert [result["world_size"] for result in two] == [2, 2]
    np.testing.assert_allclose(losses(two[0]), losses(one), rtol=1e-5)
    for result in two:
        np.testing.assert_allclose(result["weights"], one["weights"], atol=1e-5)
        assert result["eval_loss"] == pytest.approx(one["eval_loss"], rel=1e-5)


def test_processes_draw_their_own_plans_and_survive_uneven_last_batches(tmp_path):
    one, two = run(tmp_path / "mixed", 2, 13, 4, *STRONG)
    assert one["weights"] == two["weights"]
    assert len(one["plans"]) == len(two["plans"]) == 5
    both = [(a, b) for a, b in zip(one["plans"], two["plans"], strict=True) if a and b]
    assert len(both) >= 3 and all(a[0] != b[0] for a, b in both)
    mean = np.mean([plan[0] if plan else 1.0 for plan in one["plans"][:1] + two["plans"][:1]])
    assert one["log"][0]["mixup_lambda"] == pytest.approx(mean, abs=1e-6)


@pytest.mark.parametrize("method", ["nonlinear", "batchmixup"])
def test_processes_of_which_one_mixes_and_one_does_not_stay_together(tmp_path, method):
    options = [f"mixup_method={method}", "mixup_prob=0.5", "mixup_stop=1.0", "max_steps=8"]
    if method == "nonlinear":
        options.append("mixup_label_weight=learned")
    one, two = run(tmp_path / "mixed", 2, 32, 4, *options)
    assert one["weights"] == two["weights"]
    assert any((a is None) != (b is None) for a, b in zip(one["plans"], two["plans"], strict=True))
