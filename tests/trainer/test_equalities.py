"""Runs that must end at the same weights: however the batches are cut, the graph is computed, the run interrupted."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import Trainer

from hf_mixup import MixupTrainer
from hf_mixup.mixing import PairPlan
from tests.tiny import same_weights, tiny_batch, tiny_dataset, tiny_model, wordpiece_tokenizer
from tests.trainer.runs import CHECKPOINTING, STRONG, logged, train

# Adam turns the rounding noise of a gradient that is 0, such as the key biases', into full steps; SGD does not.
SGD = {"optim": "sgd", "learning_rate": 0.05, "lr_scheduler_type": "constant"}
CONSTANT = {"mixup_ratio": "constant", "mixup_lambda": 0.7}

# Every way in which a method reaches into the graph or the step.
MIXES = {
    "amplify": STRONG,
    "amplify-code": {**STRONG, "mixup_method": "amplify-code"},
    "clean rows along": {**STRONG, "mixup_clean": "average"},
    "embedmix": {"mixup_method": "embedmix", "mixup_alpha": 1.0},
    "tmix": {"mixup_method": "tmix"},
    "attentionmix": {"mixup_method": "attentionmix", "mixup_attention_head": "1"},
    "ssmix": {"mixup_method": "ssmix"},
}


# One family in the quick tests; in the slow ones what the others have code of their own for.
QUICK = [("bert", mix) for mix in MIXES]
SLOW = [
    pytest.param(family, mix, marks=pytest.mark.slow)
    for family in ("roberta", "distilbert")
    for mix in ("amplify", "amplify-code", "attentionmix", "ssmix")
]


def run(folder, mix, family="bert", dataset=None, dropout=0.1, attention="sdpa", resume=None, seed=0, **options):
    """A run of one of `MIXES` on padded rows of different lengths."""
    return train(
        folder,
        tiny_model(family, seed=seed, dropout=dropout, attention=attention),
        dataset=padded(family) if dataset is None else dataset,
        trainer_options={"processing_class": wordpiece_tokenizer()} if mix == "ssmix" else None,
        resume=resume,
        **{**(MIXES[mix] if isinstance(mix, str) else mix), **options},
    )


def padded(family, rows=29, **columns):
    """Rows of different lengths, padded; their number is odd, so that the last batch of an epoch is uneven."""
    batch = tiny_batch(family, rows=rows)
    return tiny_dataset(rows=rows, **{name: value.tolist() for name, value in batch.items()}, **columns)


def assert_same_run(found, expected, atol):
    """Equal losses, gradient norms and weights within a tolerance."""
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(
            logged(found, name), logged(expected, name), atol=10 * atol, rtol=1e-4, err_msg=name
        )
    for (name, one), two in zip(found.model.named_parameters(), expected.model.parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=atol, rtol=1e-4, msg=name)


def assert_trained(trainer, family="bert"):
    """The weights moved much further than the comparisons forgive."""
    pairs = zip(trainer.model.parameters(), tiny_model(family).parameters(), strict=True)
    assert max((one - two).abs().max().item() for one, two in pairs) > 1e-3


# ---- How the batches are cut ----


CUTS = [(8, 1), (4, 2), (2, 4)]
LABELS = {
    "plain": {},
    "weighted": {"class_weights": "0.5,2,1", "label_smoothing_factor": 0.1},
    "balanced": {"class_weights": "balanced", "label_smoothing_factor": 0.1},
}


def cut_runs(folder, mix, family="bert", rows=29, **options):
    """The same updates of eight rows at once, and accumulated; two epochs, each with an uneven last group."""
    # Rows 5, 17 and 23 have no label: whatever the order, they meet labelled partners and share batches with them.
    labels = [-100 if row in (5, 17, 23) else (row * 7 // 3) % 3 for row in range(rows)]
    return [
        run(
            folder,
            mix,
            family,
            dataset=padded(family, rows, label=labels),
            dropout=0.0,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            max_steps=8,
            **SGD,
            **options,
        )
        for batch, accumulation in CUTS
    ]


@pytest.mark.parametrize(
    ("family", "mix", "labels"),
    [
        ("bert", {"mixup_method": "amplify", **CONSTANT}, "plain"),
        ("bert", {"mixup_method": "amplify-code", "mixup_clean": "average", **CONSTANT}, "balanced"),
        ("bert", {"mixup_method": "tmix", "mixup_layers": "2", **CONSTANT}, "weighted"),
        ("roberta", {"mixup_method": "embedmix", **CONSTANT}, "weighted"),
        ("distilbert", {"mixup_method": "amplify", **CONSTANT}, "weighted"),
        ("bert", "attentionmix", "weighted"),
        ("bert", "ssmix", "weighted"),
    ],
    ids=str,
)
def test_accumulated_mixed_batches_are_one_large_batch(tmp_path, family, mix, labels):
    # In a batch of one row SSMix has nothing to swap; a row that is its own partner swaps within itself.
    rows = 30 if mix == "ssmix" else 29
    # Of pairs of neighbours no even micro-batch cuts one apart.
    large, *small = cut_runs(tmp_path, mix, family, rows, mixup_partner="neighbour", **LABELS[labels])
    assert set(logged(large, "mixup_applied")) == {1.0}
    assert_trained(large, family)
    for accumulated in small:
        assert_same_run(accumulated, large, atol=2e-6)


@pytest.mark.parametrize("labels", LABELS)
def test_accumulated_plain_batches_are_one_large_batch_of_torchs_loss(tmp_path, labels):
    small = cut_runs(tmp_path, {}, **LABELS[labels])
    dataset = small[0].train_dataset
    counts = np.bincount([label for label in dataset["label"] if label != -100])
    weights = {"plain": None, "weighted": [0.5, 2.0, 1.0], "balanced": (26 / 3 / counts).tolist()}[labels]
    smoothing = 0.0 if labels == "plain" else 0.1

    def loss(outputs, labels, num_items_in_batch=None):
        criterion = nn.CrossEntropyLoss(None if weights is None else torch.tensor(weights), label_smoothing=smoothing)
        return criterion(outputs.logits, labels)

    stock = train(
        tmp_path,
        tiny_model("bert", mixup=False, dropout=0.0),
        Trainer,
        dataset=dataset,
        trainer_options={"compute_loss_func": loss},
        max_steps=8,
        **SGD,
    )
    assert_trained(stock)
    for ours in small:
        assert_same_run(ours, stock, atol=2e-6)


# ---- How the graph is computed ----


@pytest.mark.parametrize("mix", MIXES)
def test_eager_attention_is_sdpa(tmp_path, mix):
    sdpa, eager = (run(tmp_path, mix, dropout=0.0, attention=attention, **SGD) for attention in ("sdpa", "eager"))
    assert_trained(sdpa)
    assert_same_run(eager, sdpa, atol=1e-5)


@pytest.mark.parametrize(("family", "mix"), QUICK + SLOW)
def test_checkpointing_changes_no_bit(tmp_path, family, mix):
    # Dropout is on: what is computed again must drop the same units.
    plain, plain_calls = counted(tmp_path, mix, family)
    for reentrant in (True, False):
        options = {CHECKPOINTING: True, f"{CHECKPOINTING}_kwargs": {"use_reentrant": reentrant}}
        again, calls = counted(tmp_path, mix, family, **options)
        assert calls == 2 * plain_calls
        assert same_weights(again.model, plain.model)
        for name in ("loss", "grad_norm"):
            assert logged(again, name) == logged(plain, name), name


def counted(folder, mix, family, **options):
    """A run with dropout, and how often a projection of its first block was computed."""
    calls = []
    hook = torch.nn.modules.module.register_module_forward_pre_hook(lambda module, args: calls.append(module))
    try:
        trainer = run(folder, mix, family, max_steps=3, **options)
    finally:
        hook.remove()
    query = next(part for name, part in trainer.model.named_modules() if name.endswith(("query", "q_lin")))
    return trainer, sum(module is query for module in calls)


# What torch.compile uses of torch, torch itself has deprecated.
TORCH_ITSELF = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")


def check_compiled(folder, mix, backend, family="bert"):
    options = {"dropout": 0.0, "dataset": padded(family, rows=32), **SGD}
    eager = run(folder, mix, family, **options)
    torch.compiler.reset()
    compiled = run(folder, mix, family, torch_compile=True, torch_compile_backend=backend, **options)
    assert isinstance(compiled.model_wrapped, torch._dynamo.OptimizedModule)
    assert_same_run(compiled, eager, atol=1e-5)
    assert logged(compiled, "mixup_lambda") == pytest.approx(logged(eager, "mixup_lambda"), abs=1e-6)


@TORCH_ITSELF
@pytest.mark.parametrize("mix", ["amplify", "tmix"])
def test_a_compiled_model_is_the_eager_one(tmp_path, mix):
    check_compiled(tmp_path, mix, "eager")


@TORCH_ITSELF
@pytest.mark.slow
@pytest.mark.parametrize(("family", "mix"), [("bert", "amplify"), ("distilbert", "clean rows along")])
def test_a_model_compiled_to_machine_code_is_the_eager_one(tmp_path, family, mix):
    check_compiled(tmp_path, mix, "inductor", family)


@pytest.mark.parametrize(("family", "mix"), QUICK + SLOW)
def test_bfloat16_stays_near_float32(tmp_path, family, mix):
    options = {"dropout": 0.0, "optim": "sgd", "learning_rate": 1e-3, "max_steps": 4}
    float32, bfloat16 = (run(tmp_path, mix, family, bf16=bf16, **options) for bf16 in (False, True))
    # AttentionMix reads its label weights off the model, the others draw them.
    assert logged(bfloat16, "mixup_lambda") == pytest.approx(logged(float32, "mixup_lambda"), abs=1e-2)
    np.testing.assert_allclose(logged(bfloat16, "loss"), logged(float32, "loss"), atol=1e-2)
    for one, two in zip(bfloat16.model.parameters(), float32.model.parameters(), strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, two, atol=1e-2, rtol=0)


class HandComputed(MixupTrainer):
    """Keeps each step's loss beside the two terms of its formula, in double precision."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        logits, labels, partner = outputs.logits.double(), inputs["labels"], inputs["mixup"].partner
        own, theirs = (nn.functional.cross_entropy(logits, target).item() for target in (labels, labels[partner]))
        was_half = torch.equal(outputs.logits.bfloat16().float(), outputs.logits)
        self.seen.append((was_half, loss.item(), own, theirs))
        return (loss, outputs) if return_outputs else loss


def test_lambda_stays_float32_under_bfloat16(tmp_path):
    trainer_class = type("Recorder", (HandComputed,), {"seen": []})
    options = {"mixup_method": "amplify", "mixup_ratio": "constant", "mixup_lambda": 0.999, "mixup_partner": "roll"}
    train(tmp_path, trainer_class=trainer_class, bf16=True, dataset=tiny_dataset(rows=32), **options)
    # In bfloat16 0.999 is 1, and the partners' term would be lost.
    assert torch.tensor(0.999).bfloat16() == 1
    differing = [seen for seen in trainer_class.seen if abs(seen[2] - seen[3]) > 0.05]
    assert len(differing) >= 3
    for was_half, loss, own, theirs in differing:
        assert was_half
        assert loss == pytest.approx(0.999 * own + 0.001 * theirs, abs=2e-6)
        assert abs(loss - own) > 2e-5


# ---- Where the run is interrupted ----


def numbers(trainer):
    """The log without what the clock says, and without the summary of the last line."""
    clock = ("runtime", "per_second")
    return [
        {name: value for name, value in entry.items() if not any(word in name for word in clock)}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]


RESUMED = {
    "plain": {},
    "amplify": STRONG,
    "pairs of alike length": {
        **STRONG,
        "mixup_partner": "neighbour",
        "train_sampling_strategy": "group_by_length",
    },
    "learned": {"mixup_method": "nonlinear", "mixup_label_weight": "learned", "learning_rate": 1e-2},
    "ssmix": {"mixup_method": "ssmix"},
    "several updates": {
        "mixup_method": "mixup-pairs",
        "mixup_points": 1,
        "mixup_updates": 3,
        "gradient_accumulation_steps": 1,
        "per_device_train_batch_size": 8,
    },
}


@pytest.mark.parametrize("mix", RESUMED)
def test_a_run_resumed_at_any_step_is_the_undisturbed_one(tmp_path, mix):
    # 29 rows are eight batches of four, the last with one row: four steps an epoch, the third ends in its middle.
    options = {"max_steps": 7, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, **RESUMED[mix]}
    tokenizer = {"processing_class": wordpiece_tokenizer()} if mix == "ssmix" else None
    settings = {"dataset": padded("bert"), "trainer_options": tokenizer, **options}
    straight = train(tmp_path / "straight", **settings)
    train(tmp_path / "cut", **settings, save_strategy="steps", save_steps=1)
    # In the middle of an epoch and at its end; for the commonest method also after one step, and in the next epoch.
    others = ((1, 0), (6, 0)) if mix in ("amplify", "pairs of alike length") else ()
    for step, workers in ((3, 2), (4, 0), *others):
        resumed = train(
            tmp_path / "resumed",
            tiny_model("bert", seed=5),
            **settings,
            resume=str(tmp_path / "cut" / f"checkpoint-{step}"),
            dataloader_num_workers=workers,
        )
        assert same_weights(resumed.model, straight.model), step
        assert numbers(resumed) == numbers(straight), step


# ---- With weight 1 ----


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_without_mixing_it_is_the_stock_trainer_to_the_last_bit(family, tmp_path, smoothing):
    options = {"label_smoothing_factor": smoothing, "num_train_epochs": 2, "max_steps": -1, "eval_strategy": "epoch"}
    evaluation = {"trainer_options": {"eval_dataset": tiny_dataset(seed=1)}}
    stock = train(tmp_path, tiny_model(family, mixup=False), Trainer, **options, **evaluation)
    unmixed = {
        0.0: (
            {"mixup_method": "amplify", "mixup_ratio": "constant", "mixup_lambda": 1.0},
            {"mixup_method": "embedmix", "mixup_start": 0.999},
        ),
        0.1: ({}, {"mixup_method": "amplify-code", "mixup_prob": 0.0}),
    }
    for mixup in unmixed[smoothing]:
        ours = train(tmp_path, tiny_model(family), **options, **mixup, **evaluation)
        assert same_weights(stock.model, ours.model)
        for name in ("loss", "grad_norm", "eval_loss", "train_loss"):
            assert logged(ours, name) == logged(stock, name), name


class WeightOne(MixupTrainer):
    """Sends every batch through the graph of mixing, with a weight of 1."""

    site, layers, per_sample = "attention", (1, 2, 3), False

    def _with_plan(self, batch, micro):
        rows = len(batch["labels"])
        weight = torch.ones(rows, 1, 1) if self.per_sample else torch.tensor(1.0)
        return {**batch, "mixup": PairPlan(torch.arange(rows).roll(1), weight, self.site, self.layers)}


def test_a_weight_of_one_in_the_graph_changes_no_weight_and_no_gradient(family, tmp_path):
    stock = train(tmp_path, tiny_model(family, mixup=False), Trainer, max_steps=4)
    for site, layers, per_sample in (
        ("word_embeddings", (), False),
        ("embeddings", (), True),
        ("hidden", (0, 2, 3), False),
        ("attention", (1, 2, 3), False),
        ("attention", (1, 3), True),
        ("attention_block", (1, 2, 3), False),
        ("pooled", (), False),
        ("logits", (), True),
    ):
        attributes = {"site": site, "layers": layers, "per_sample": per_sample}
        trainer_class = type("Forced", (WeightOne,), attributes)
        ours = train(tmp_path, tiny_model(family), trainer_class, max_steps=4, **STRONG)
        assert logged(ours, "mixup_applied") == [1.0] * 4
        assert same_weights(ours.model, stock.model), attributes
        assert logged(ours, "grad_norm") == logged(stock, "grad_norm"), attributes
        # The mean of the rows' losses rounds its last bit otherwise than the loss of the mean.
        np.testing.assert_allclose(logged(ours, "loss"), logged(stock, "loss"), rtol=1e-6)
