"""DeepSpeed on a CPU (gloo), ZeRO 0 to 3, in one real process and in two, against DDP and the stock Trainer.

`.ci/run` installs DeepSpeed in an environment of its own; elsewhere these tests are skipped.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

from hf_mixup import MixupTrainingArguments
from hf_mixup.trainer.checkpoints import fault_of
from tests.launching import launch
from tests.trainer.test_distributed import STRONG, logged, saved

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs DeepSpeed: pip install '.[deepspeed]'"),
    pytest.mark.timeout(600),
]

WORKER = Path(__file__).with_name("deepspeed_worker.py")
STAGES = (0, 1, 2, 3)
# SGD and a constant rate, so that a run that stops early has the weights of a run of that length.
SGD = {"optim": "sgd", "learning_rate": 0.05, "lr_scheduler_type": "constant"}
ACCUMULATED = {"gradient_accumulation_steps": 2, "max_steps": 3}
HALF = {"mixup_prob": 0.5, "mixup_stop": 1.0, "max_steps": 6}
ATTENTION = {"mixup_method": "attentionmix", "mixup_attention_layer": 2, "mixup_attention_head": "1"}
# What ends where DDP ends.
METHODS = {
    "none": {**SGD, **ACCUMULATED},
    "amplify": {**SGD, **STRONG, **ACCUMULATED},
    "ssmix": {**SGD, "mixup_method": "ssmix", "class_weights": "0.5,4,1", **ACCUMULATED},
    "updates": {**SGD, "mixup_method": "tmix", "mixup_ratio": "beta", "mixup_updates": 3, "max_steps": 2},
    # Only some batches are mixed, and the processes draw which.
    "ssmix half": {**SGD, "mixup_method": "ssmix", **HALF},
}
# At the stages that differ most; AttentionMix reads the weights of a block outside of the block's forward pass,
# BatchMixup those of the classifier outside of its.
MORE = {
    "roberta": {**SGD, "family": "roberta", "mixup_method": "embedmix", **ACCUMULATED},
    "clean": {**SGD, "mixup_method": "tmix", "mixup_clean": "average", "max_steps": 3},
    "attentionmix": {**SGD, **ATTENTION, **ACCUMULATED},
    "attentionmix weighted": {**SGD, **ATTENTION, "class_weights": "0.5,4,1", "max_steps": 3},
    "batchmixup": {**SGD, "mixup_method": "batchmixup", **ACCUMULATED},
    "amplify half": {**SGD, **STRONG, **HALF},
    "attentionmix half": {**SGD, **ATTENTION, **HALF},
    "batchmixup half": {**SGD, "mixup_method": "batchmixup", **HALF},
}
CASES = [(name, stage) for stage in STAGES for name in {**METHODS, **(MORE if stage in (0, 3) else {})}]
PARTLY = [(name, stage) for name, stage in CASES if name.endswith("half")]
CHECKPOINTS = {
    "optim": "adamw_torch",
    "learning_rate": 1e-3,
    "max_steps": 4,
    "save_strategy": "steps",
    "save_steps": 2,
}
TWO_KINDS = {"amplify": STRONG, "ssmix": {"mixup_method": "ssmix"}}
LATE = "DeepSpeed adds up the gradients of accumulated batches before it is known how much each row"
REFUSED = {
    "learned": (
        {"mixup_method": "nonlinear", "mixup_label_weight": "learned"},
        "trains a gate beside the model, which DeepSpeed does not admit",
    ),
    "class weights": ({**ATTENTION, "class_weights": "0.5,4,1", "gradient_accumulation_steps": 2}, LATE),
    "missing labels": ({**ATTENTION, "missing": True, "gradient_accumulation_steps": 2}, LATE),
    "scheduler": (
        {"mixup_method": "tmix", "mixup_updates": 3, "config": {"scheduler": {"type": "WarmupLR", "params": {}}}},
        "mixup_updates=3 would move the scheduler of the DeepSpeed config 3 times a batch",
    ),
    # By transformers.
    "accumulation": (
        {"gradient_accumulation_steps": 2, "config": {"gradient_accumulation_steps": 4}},
        "ds gradient_accumulation_steps=4 vs hf gradient_accumulation_steps=2",
    ),
}
FAULTS = ("loss", "gradient")


def options_of(name):
    return {**METHODS, **MORE}[name]


def drawn_together(name, stage):
    """Whether two processes must mix the same batches, as docs/distributed.md says."""
    return stage == 3 or (stage == 2 and name.startswith("ssmix"))


def runs_of(processes):
    """The runs of one launch; those without DeepSpeed come first."""
    runs = {
        **METHODS,
        **MORE,
        **{f"good {name}": {**SGD, **options, "max_steps": 2} for name, options in TWO_KINDS.items()},
    }
    runs |= {f"{name} together": {**options_of(name), "lockstep": True} for name in runs if name.endswith("half")}
    for stage in STAGES:
        zero = {f"{name} {stage}": options_of(name) for name, at in CASES if at == stage}
        for name, options in TWO_KINDS.items():
            straight = f"{name} straight {stage}"
            zero[straight] = {**options, **CHECKPOINTS}
            zero[f"{name} resumed {stage}"] = {**options, **CHECKPOINTS, "resume": f"{straight}/checkpoint-2"}
            for kind in FAULTS:
                zero[f"{name} {kind} {stage}"] = {**SGD, **options, "max_steps": 3, "fault": [kind, 2, processes - 1]}
        for name, (options, _) in REFUSED.items():
            zero[f"{name} refused {stage}"] = {**options, "max_steps": 1, "error": True}
        for name in ("stock", "plain") if processes == 1 else ():
            zero[f"{name} {stage}"] = {**SGD, "max_steps": 4, "stock": name == "stock"}
        uneven = {**STRONG, "accelerator_config": {"even_batches": False}, "max_steps": 1, "error": True}
        zero[f"uneven {stage}"] = uneven
        runs |= {name: {**options, "zero": stage} for name, options in zero.items()}
    loaded = {**options_of("attentionmix"), "save_strategy": "steps", "save_steps": 2, "zero": 3, "pretrained": True}
    return {**runs, "loaded": loaded, "loaded resumed": {**loaded, "resume": "loaded/checkpoint-2"}}


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two processes"])
def launched(request, tmp_path_factory):
    """The folder of the models, and what each process reports."""
    folder, processes = tmp_path_factory.mktemp("zero"), request.param
    cpu = {"DS_ACCELERATOR": "cpu", "PYTHONWARNINGS": "ignore"}
    return folder, launch(folder, runs_of(processes), processes, timeout=500, worker=WORKER, **cpu)


def same(folder, name, other, atol):
    weights, expected = saved(folder, name), saved(folder, other)
    assert set(weights) == set(expected)
    for parameter in expected:
        np.testing.assert_allclose(
            weights[parameter], expected[parameter], rtol=0, atol=atol, err_msg=f"{name}: {parameter}"
        )


@pytest.mark.parametrize(("name", "stage"), CASES)
def test_it_ends_where_ddp_ends(launched, name, stage):
    folder, results = launched
    options, two = options_of(name), len(results) == 2
    expected = f"{name} together" if two and name.endswith("half") and drawn_together(name, stage) else name
    for result in results:
        ours, theirs = result[f"{name} {stage}"], result[expected]
        assert ours["distributed_type"] == "DEEPSPEED" and theirs["distributed_type"] == "MULTI_CPU"
        assert ours["plans"] == theirs["plans"] and (name == "none" or any(ours["plans"]))
        for value in ("loss", "mixup_loss", "mixup_lambda", "mixup_applied"):
            np.testing.assert_allclose(logged(ours, value), logged(theirs, value), atol=2e-6, err_msg=value)
        # At stage 0 DeepSpeed does not know the norm, and nothing is logged.
        norms = [] if stage == 0 else logged(theirs, "grad_norm")
        np.testing.assert_allclose(logged(ours, "grad_norm"), norms, rtol=1e-5)
        assert ours["eval_loss"] == pytest.approx(theirs["eval_loss"], abs=2e-6)
        # One update for each step, or as many as the method makes.
        assert ours["updates"] == options["max_steps"] * options.get("mixup_updates", 1)
    same(folder, f"{name} {stage}", expected, atol=1e-6)


@pytest.mark.parametrize(("name", "stage"), PARTLY)
def test_sharded_processes_mix_the_same_batches(launched, name, stage):
    _, results = launched
    plain = [[plan is None for plan in result[f"{name} {stage}"]["plans"]] for result in results]
    assert set(plain[0]) == {True, False}
    if len(results) == 2:
        assert (plain[0] == plain[1]) == drawn_together(name, stage)


@pytest.mark.parametrize("stage", STAGES)
def test_none_is_the_stock_trainer_to_the_last_bit(launched, stage):
    folder, results = launched
    if len(results) == 1:
        assert logged(results[0][f"plain {stage}"]) == logged(results[0][f"stock {stage}"])
        same(folder, f"plain {stage}", f"stock {stage}", atol=0)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", TWO_KINDS)
def test_resumed_it_ends_where_it_ends_undisturbed(launched, name, stage):
    folder, results = launched
    for result in results:
        straight, resumed = result[f"{name} straight {stage}"], result[f"{name} resumed {stage}"]
        assert resumed["weights"] == straight["weights"] and logged(resumed) == logged(straight)
    same(folder, f"{name} resumed {stage}", f"{name} straight {stage}", atol=0)
    model = AutoModelForSequenceClassification.from_pretrained(folder / f"{name} resumed {stage}" / "checkpoint-4")
    assert type(model) is BertForSequenceClassification


def test_a_model_that_is_divided_while_it_is_loaded(launched):
    folder, results = launched
    for result in results:
        for value in ("loss", "grad_norm"):
            expected = logged(result["attentionmix"], value)
            np.testing.assert_allclose(logged(result["loaded"], value), expected, rtol=1e-5)
        assert logged(result["loaded resumed"]) == logged(result["loaded"])
    same(folder, "loaded resumed", "loaded", atol=0)
    first, second = (
        AutoModelForSequenceClassification.from_pretrained(folder / name) for name in ("loaded", "attentionmix")
    )
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        np.testing.assert_allclose(ours.detach(), theirs.detach(), atol=1e-6)


@pytest.mark.parametrize("stage", STAGES)
def test_its_checkpoints_are_looked_at(launched, stage):
    folder, results = launched
    run = folder / f"amplify straight {stage}"
    checkpoint, processes = run / "checkpoint-4", len(results)
    arguments = MixupTrainingArguments(output_dir=str(run), use_cpu=True)
    other = fault_of(checkpoint, arguments)
    # Without ZeRO one process can go on from what two saved; Trainer then warns of it.
    assert (other is None) == (processes == 1 or stage == 0), other
    states = min((checkpoint / "global_step4").glob("*model_states.pt"))
    whole = states.read_bytes()
    states.write_bytes(whole[: len(whole) // 2])
    fault = fault_of(checkpoint, arguments)
    states.write_bytes(whole)
    assert fault == (other or f"{states.name} is damaged, or holds something else")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("name", TWO_KINDS)
def test_not_a_number_leaves_the_weights_of_the_step_before(launched, name, kind, stage):
    folder, results = launched
    for result in results:
        message = result[f"{name} {kind} {stage}"]["message"]
        assert " of step 3 is not a finite number" in message
        assert "training stopped before the weights were changed" in message
    # The process where it happened; the others see the gradient that they share.
    assert results[-1][f"{name} {kind} {stage}"]["message"].startswith(f"The {kind} of step 3")
    same(folder, f"{name} {kind} {stage}", f"good {name}", atol=1e-6)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(launched, name, stage):
    _, results = launched
    for result in results:
        assert REFUSED[name][1] in result[f"{name} refused {stage}"]


@pytest.mark.parametrize("stage", STAGES)
def test_batches_of_other_sizes_are_refused_where_processes_wait_for_each_other(launched, stage):
    _, results = launched
    for result in results:
        refused = "leave even_batches in accelerator_config true" in result[f"uneven {stage}"]
        assert refused == (len(results) == 2 and stage == 3)
        assert refused or result[f"uneven {stage}"] == "no error"
