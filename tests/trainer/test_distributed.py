"""Two real processes (torchrun, gloo); one launch makes all runs, because it takes longer to start than they do."""

from importlib.metadata import version

import numpy as np
import pytest
import torch
from packaging.version import Version
from safetensors.numpy import load_file

from hf_mixup.methods import METHODS, Mixup
from hf_mixup.mixing import StepKey
from hf_mixup.trainer import LengthGroupedPairSampler
from tests.launching import launch
from tests.modeling import reference
from tests.tiny import tiny_dataset, tiny_model
from tests.trainer import distributed_worker

STRONG = {"mixup_method": "amplify", "mixup_ratio": "beta", "mixup_alpha": 1.0}
# SGD, because Adam turns the rounding noise of a gradient that is 0 (the key biases) into full steps.
SGD = {"optim": "sgd", "learning_rate": 0.05}
SHORT = {"rows": 13, "accelerator_config": {"even_batches": False}, "max_steps": 4}
CLEAN = {**SGD, "class_weights": "balanced", "gradient_accumulation_steps": 2}
# Batches whose rows have other sums of weights, so that a mean of means is another number.
WEIGHTED = {**SGD, "weights": [0.0, 2.5, 0.1, 7.0, 0.3], "gradient_accumulation_steps": 2}
SOME = {"mixup_prob": 0.5, "mixup_stop": 1.0, "max_steps": 8}
CHECKPOINTS = {**STRONG, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}

# transformers 5.17 loads the state of an optimizer to the device cpu:0, which torch does not know.
RESUMES_ON_CPU = Version(version("transformers")) >= Version("5.18")

RUNS = {
    "clean": {**CLEAN, "batch": 2, "per_device_eval_batch_size": 4},
    "weighted": {**WEIGHTED, "batch": 2, "per_device_eval_batch_size": 4},
    "dispatched": {**WEIGHTED, "batch": 2, "accelerator_config": {"dispatch_batches": True}},
    "short": {**SGD, **SHORT},
    "short mixed": {**STRONG, **SHORT},
    "uneven": {**STRONG, "rows": 13, "mixup_prob": 0.8},
    "nonlinear": {**SOME, "mixup_method": "nonlinear", "mixup_label_weight": "learned"},
    "batchmixup": {**SOME, "mixup_method": "batchmixup"},
    "attentionmix": {**SGD, "mixup_method": "attentionmix", "mixup_attention_head": "0", "class_weights": "0.5,4,1"},
    "straight": CHECKPOINTS,
    "ssmix": {"mixup_method": "ssmix", "class_weights": "0.5,4,1", "gradient_accumulation_steps": 2},
}
# What a static graph cannot be: more than one backward pass a step.
STATIC = {"ddp_static_graph": True, "max_steps": 1}
RUNS |= {
    "static": {**STATIC, **STRONG},
    "static ssmix": {**STATIC, "mixup_method": "ssmix", "error": True},
    "static accumulation": {**STATIC, "gradient_accumulation_steps": 2, "error": True},
}
REFUSED = {"static ssmix": "ssmix makes several", "static accumulation": "gradient_accumulation_steps=2 makes several"}
# Processes that were started apart: what the second one has, and the words for it.
APART = {
    "other seed": ({"seed": 1}, "the option seed (process 0 has 42, process 1 has 1)"),
    "other rate": ({"learning_rate": 1.0}, "the option learning_rate (process 0 has 0.001, process 1 has 1.0)"),
    "other method": ({"mixup_method": "tmix"}, "the option mixup_method (process 0 has 'amplify', process 1 has 't"),
    "other batch": ({"batch": 2}, "the option per_device_train_batch_size (process 0 has 4, process 1 has 2)"),
    "other rows": ({"rows": 30}, "the training data: number of rows (process 0 has 32, process 1 has 30)"),
    "other content": ({"content": 1}, "the training data: their checksum (process 0 has '"),
    "other evaluation": ({"eval_rows": 9}, "the evaluation data: number of rows (process 0 has 8, process 1 has 9)"),
    "other labels": (
        {"names": ["a", "c", "b"]},
        "the model's id2label (process 0 has {0: 'a', 1: 'b', 2: 'c'}, proce",
    ),
}
for name, (others, _) in APART.items():
    RUNS[name] = {**STRONG, "eval_rows": 8, "names": ["a", "b", "c"], "error": True, "others": others}
# What may differ: where and how a machine reads and shows.
RUNS["alike"] = {**STRONG, "max_steps": 1, "others": {"disable_tqdm": False, "dataloader_num_workers": 1}}
RUNS["held"] = {**STRONG, "locked": True, "error": True}
KINDS = {
    "one pass": STRONG,
    "two passes": {"mixup_method": "ssmix"},
    "learned": {"mixup_method": "nonlinear", "mixup_label_weight": "learned"},
}
for kind, method in KINDS.items():
    constant = {**method, **SGD, "lr_scheduler_type": "constant"}
    RUNS[f"good {kind}"] = {**constant, "max_steps": 2}
    RUNS[f"NaN {kind}"] = {**constant, "fault": ["loss", 2, 1]}
    saving = {**method, **SGD, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    if RESUMES_ON_CPU:
        RUNS[f"saved {kind}"] = {**saving, "gradient_accumulation_steps": 2}
        RUNS[f"resumed {kind}"] = {**RUNS[f"saved {kind}"], "resume": f"saved {kind}/checkpoint-2"}
# Four steps an epoch; resumed in the middle of the second.
for order in ("random", "group_by_length"):
    later = {**CHECKPOINTS, "mixup_partner": "neighbour", "train_sampling_strategy": order, "max_steps": 8}
    RUNS[order] = later
    if RESUMES_ON_CPU:
        RUNS[f"{order} resumed"] = {**later, "resume": f"{order}/checkpoint-6"}
if RESUMES_ON_CPU:
    RUNS["resumed"] = {**CHECKPOINTS, "resume": "straight/checkpoint-2"}


def logged(result, name="loss"):
    return [entry[name] for entry in result["log"] if name in entry]


def saved(folder, name):
    return load_file(folder / name / "model.safetensors")


def test_two_processes(tmp_path):
    first, second = launch(tmp_path, RUNS)
    for name in REFUSED:
        for result in (first, second):
            assert result[name].startswith("ddp_static_graph=True needs one backward pass a step, and ")
            assert REFUSED[name] in result[name]
    for name, (_, words) in APART.items():
        sentence = first[name]
        assert sentence == second[name] and sentence.startswith(f"the processes of the run differ in {words}"), name
        assert sentence.endswith("; start all of them with the same options, data and model")
    assert first["held"] == second["held"] and "another run writes into" in first["held"]
    for name in RUNS.keys() - REFUSED.keys() - APART.keys() - {"held"}:
        assert [first[name]["world_size"], second[name]["world_size"]] == [2, 2]
        assert first[name]["weights"] == second[name]["weights"], f"{name}: the processes went apart"
        assert np.isfinite(logged(first[name])).all() and len(logged(first[name])) == len(logged(second[name]))
    for kind in KINDS:
        for result in (first, second):
            assert "of step 3 is not a finite number" in result[f"NaN {kind}"]["message"]
            assert result[f"NaN {kind}"]["weights"] == result[f"good {kind}"]["weights"], kind
            if RESUMES_ON_CPU:
                assert result[f"resumed {kind}"]["weights"] == result[f"saved {kind}"]["weights"], kind
    they_reach_what_one_process_reaches(tmp_path, first)
    they_draw_their_own_plans_and_share_one_loss(first["uneven"], second["uneven"])
    if RESUMES_ON_CPU:
        for name in ("random", "group_by_length"):
            assert second[f"{name} resumed"]["weights"] == second[name]["weights"], name
        assert second["resumed"]["weights"] == second["straight"]["weights"]
    they_divide_by_the_weights_of_all_their_rows(first["attentionmix"], second["attentionmix"])
    they_share_the_pairs_of_one_order(first["group_by_length"], second["group_by_length"])
    a_last_batch_of_one_row_stays_plain_beside_one_that_mixes(first["short mixed"], second["short mixed"])
    for name in ("nonlinear", "batchmixup"):
        plans = zip(first[name]["plans"], second[name]["plans"], strict=True)
        assert any((one is None) != (two is None) for one, two in plans), f"{name}: no step of which one process mixes"


def they_reach_what_one_process_reaches(folder, two):
    """Also where the last batch is short, and one of the processes has a single row of it."""
    alone = {
        "clean": distributed_worker.run(folder / "one clean", **CLEAN, batch=4, per_device_eval_batch_size=8),
        "short": distributed_worker.run(folder / "one short", **SGD, **SHORT, batch=8),
        "weighted": distributed_worker.run(folder / "one weighted", **WEIGHTED, batch=4, per_device_eval_batch_size=8),
    }
    for name, one in alone.items():
        assert one["world_size"] == 1
        np.testing.assert_allclose(logged(two[name]), logged(one), rtol=1e-5, err_msg=name)
        assert two[name]["eval_loss"] == pytest.approx(one["eval_loss"], rel=1e-5)
        weights, expected = saved(folder, name), saved(folder, f"one {name}")
        for parameter in expected:
            np.testing.assert_allclose(weights[parameter], expected[parameter], atol=1e-5, err_msg=parameter)
    # One process reads the rows, and gives the others their part of a batch with its weights.
    np.testing.assert_allclose(logged(two["dispatched"]), logged(alone["weighted"]), rtol=1e-5)


def they_share_the_pairs_of_one_order(first, second):
    """A batch goes to the first process and the next to the second, with whole pairs each."""
    ids = tiny_dataset(rows=32)["input_ids"][:]
    order = list(LengthGroupedPairSampler([len(row) for row in ids], batch_size=4, seed=42, num_processes=2))
    for result, rows in ((first, order[:4]), (second, order[4:8])):
        (batch,) = result["first"]
        assert batch["input_ids"] == [ids[row] for row in rows]


def they_draw_their_own_plans_and_share_one_loss(first, second):
    both = [(one, two) for one, two in zip(first["plans"], second["plans"], strict=True) if one and two]
    assert len(both) >= 2 and all(one != two for one, two in both)
    # 13 rows in batches of 4: Accelerate fills the last batches up with rows from the beginning.
    assert first["rows"] == second["rows"] == [4] * 5

    model = tiny_model("bert", mixup=False, dropout=0.0)
    mixup = Mixup(METHODS["amplify"].with_options(ratio="beta", alpha=1.0, prob=0.8), num_layers=3)
    losses, shares = [], []
    for rank, result in enumerate((first, second)):
        (batch,) = result["first"]
        ids, labels = torch.tensor(batch["input_ids"]), torch.tensor(batch["labels"])
        plan = mixup.plan({}, labels, StepKey(seed=42, rank=rank))
        partner, share = (list(range(4)), 1.0) if plan is None else (plan.partner.tolist(), plan.weight.item())
        tokens = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        logits = reference.forward("bert", model, tokens, partner, share, "attention", (1, 2, 3))
        losses.append(reference.pairwise_loss(logits, labels.tolist(), partner, [share] * 4).item())
        shares.append(share)
    assert min(shares) < 1
    for result in (first, second):
        assert logged(result)[0] == pytest.approx(np.mean(losses), abs=1e-5)
        assert logged(result, "mixup_lambda")[0] == pytest.approx(np.mean(shares), abs=1e-6)


def they_divide_by_the_weights_of_all_their_rows(first, second):
    """Also where only the model finds the label weights, and with them how much each row counts."""
    model = tiny_model("bert", dropout=0.0)
    mixup = Mixup(METHODS["attentionmix"].with_options(attention_head=0), num_layers=3, num_heads=4)
    sums = []
    for rank, result in enumerate((first, second)):
        (batch,) = result["first"]
        ids, labels = torch.tensor(batch["input_ids"]), torch.tensor(batch["labels"])
        plan = mixup.plan({}, labels, StepKey(seed=42, rank=rank))
        outputs = model(input_ids=ids, attention_mask=torch.ones_like(ids), mixup=plan)
        partner, share = plan.partner.tolist(), outputs.label_weight.tolist()
        sums.append(reference.weighted_terms(outputs.logits, labels.tolist(), partner, share, (0.5, 4.0, 1.0)))
    loss, weight = (sum(parts) for parts in zip(*sums, strict=True))
    (loss / weight).backward()
    norm = sum(parameter.grad.square().sum() for parameter in model.parameters() if parameter.grad is not None).sqrt()
    for result in (first, second):
        assert logged(result)[0] == pytest.approx((loss / weight).item(), abs=1e-5)
        assert logged(result, "grad_norm")[0] == pytest.approx(norm.item(), rel=1e-4)


def a_last_batch_of_one_row_stays_plain_beside_one_that_mixes(first, second):
    assert (first["rows"], second["rows"]) == ([4, 4, 4, 4], [4, 1, 4, 1])
    assert [plan is None for plan in first["plans"]] == [False] * 4
    assert [plan is None for plan in second["plans"]] == [False, True, False, True]
    assert logged(first, "mixup_applied") == [1.0, 0.5, 1.0, 0.5]
