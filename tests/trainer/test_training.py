"""Whole small runs of MixupTrainer, against stock Trainer and against each other."""

import json
from itertools import cycle

import numpy as np
import optuna
import pytest
import torch
from datasets import Dataset
from safetensors.torch import save_file
from torch import nn
from transformers import Trainer, TrainingArguments

from hf_mixup import METHODS, MixupTrainer, MixupTrainerMixin, MixupTrainingArguments, NonFiniteLossError
from hf_mixup.methods import Mixup
from hf_mixup.mixing import StepKey
from hf_mixup.trainer import CheckpointError
from hf_mixup.trainer.checksums import CHECKSUMS
from tests.modeling import reference
from tests.tiny import (
    FAMILIES,
    MIXUP_CLASSES,
    PARENTS,
    same_weights,
    tiny_config,
    tiny_dataset,
    tiny_model,
    wordpiece_tokenizer,
)
from tests.trainer.runs import STRONG, logged, train


def test_without_mixing_only_the_config_of_a_mixing_run_names_mixup(tmp_path):
    stock = train(tmp_path, tiny_model("bert", mixup=False), Trainer)
    plain = train(tmp_path)
    assert plain.model.config.to_dict() == stock.model.config.to_dict()
    mixed = train(tmp_path, **STRONG, mixup_prob=0.9)
    assert mixed.model.config.mixup == {
        "method": "amplify",
        "site": "attention",
        "layers": [1, 2, 3],
        "ratio": {"kind": "beta", "alpha": 1.0},
        "prob": 0.9,
    }
    mixed.save_model(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["mixup"]["method"] == "amplify" and config["architectures"] == ["BertForSequenceClassification"]


@pytest.mark.parametrize("site", ["attention", "attention_block"])
def test_the_loss_and_the_update_of_a_mixed_step_are_the_references(family, tmp_path, site):
    dataset = tiny_dataset(rows=8)
    options = {**STRONG, "mixup_site": site, "max_steps": 1, "optim": "sgd", "max_grad_norm": 0.0}
    options["lr_scheduler_type"] = "constant"
    trainer = train(tmp_path, tiny_model(family, dropout=0.0), dataset=dataset, **options)

    model = tiny_model(family, mixup=False, dropout=0.0)
    order = torch.tensor([row["label"] for row in dataset])
    plan = Mixup(METHODS["amplify"].with_options(site=site, ratio="beta", alpha=1.0), 3).plan({}, order, StepKey(42))
    # The rows come in the order of Trainer's sampler: take it from a stock run over the same rows.
    rows = _batch_order(tmp_path, dataset, family)
    batch = {name: torch.tensor([dataset[i][name] for i in rows]) for name in ("input_ids", "attention_mask")}
    labels = [dataset[i]["label"] for i in rows]
    partner, lam = plan.partner.tolist(), plan.weight.item()
    logits = reference.forward(family, model, batch, partner, lam, site, (1, 2, 3))
    loss = reference.pairwise_loss(logits, labels, partner, [lam] * 8)
    assert logged(trainer, "loss")[0] == pytest.approx(loss.item(), abs=1e-5)
    loss.backward()
    for (name, parameter), ours in zip(model.named_parameters(), trainer.model.parameters(), strict=True):
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(ours, parameter - 1e-3 * gradient, atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("checkpointing", [{}, {"gradient_checkpointing": True}], ids=["", "checkpointing"])
def test_ssmix_swaps_by_the_gradient_of_the_clean_rows(family, tmp_path, checkpointing):
    dataset = tiny_dataset(rows=4, length=14)
    options = {"mixup_method": "ssmix", "max_steps": 1, "optim": "sgd", "max_grad_norm": 0.0}
    tokenizer = wordpiece_tokenizer()
    trainer = train(
        tmp_path,
        tiny_model(family, dropout=0.0),
        dataset=dataset,
        trainer_options={"processing_class": tokenizer},
        per_device_train_batch_size=4,
        lr_scheduler_type="constant",
        **checkpointing,
        **options,
    )
    rows = _batch_order(tmp_path, dataset, family)
    ids = torch.tensor([dataset[i]["input_ids"] for i in rows])
    mask = torch.ones_like(ids)
    labels = torch.tensor([dataset[i]["label"] for i in rows])

    model = tiny_model(family, mixup=False, dropout=0.0)
    embedded = []
    handle = getattr(model, family).embeddings.register_forward_hook(
        lambda *a: embedded.append(a[-1].retain_grad() or a[-1])
    )
    clean = nn.functional.cross_entropy(model(input_ids=ids, attention_mask=mask).logits, labels) / 2
    clean.backward()
    handle.remove()
    saliency = embedded[0].grad.square().mean(dim=-1).sqrt()
    mixed, partner = ids.clone(), [3, 2, 1, 0]
    for i, j in enumerate(partner):
        # Fourteen tokens, none of them special: spans of one token.
        mixed[i, saliency[i].argmin()] = ids[j, saliency[j].argmax()]
    logits = model(input_ids=mixed, attention_mask=mask).logits
    loss = reference.pairwise_loss(logits, labels.tolist(), partner, [13 / 14] * 4) / 2
    loss.backward()
    assert logged(trainer, "loss")[0] == pytest.approx((clean + loss).item(), abs=1e-5)
    assert logged(trainer, "mixup_loss") == pytest.approx(logged(trainer, "loss"))
    assert logged(trainer, "mixup_lambda")[0] == pytest.approx(13 / 14)
    for (name, parameter), ours in zip(model.named_parameters(), trainer.model.parameters(), strict=True):
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(ours, parameter - 1e-3 * gradient, atol=1e-6, rtol=1e-5, msg=name)


def test_several_updates_of_a_batch_are_that_many_steps_with_their_own_draws(tmp_path):
    dataset = tiny_dataset(rows=8)
    options = {"mixup_method": "mixup-pairs", "mixup_points": 1, "mixup_updates": 3, "max_steps": 1, "optim": "sgd"}
    options |= {"lr_scheduler_type": "constant", "max_grad_norm": 0.0, "learning_rate": 0.1}
    trainer = train(tmp_path, tiny_model("bert", dropout=0.0), dataset=dataset, **options)
    assert trainer.state.global_step == 1

    model = tiny_model("bert", mixup=False, dropout=0.0)
    rows = _batch_order(tmp_path, dataset, "bert")
    batch = {name: torch.tensor([dataset[i][name] for i in rows]) for name in ("input_ids", "attention_mask")}
    labels = [dataset[i]["label"] for i in rows]
    for update in range(3):
        generator = np.random.default_rng([42, 0, 0, update])
        generator.random()
        lam = generator.beta(0.4, 0.4)
        logits = model(**batch).logits
        loss = 0.0
        for i in range(8):
            for j in range(8):
                mixed = torch.log_softmax(lam * logits[i] + (1 - lam) * logits[j], dim=0)
                loss = loss - (lam * mixed[labels[i]] + (1 - lam) * mixed[labels[j]]) / 64
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * (parameter.grad if parameter.grad is not None else 0)
    for ours, expected in zip(trainer.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="mixup_updates=3 makes several updates of a batch"):
        train(tmp_path, **options, gradient_accumulation_steps=2)


def test_a_learned_label_weight_is_trained_beside_the_model(tmp_path):
    options = {"mixup_method": "nonlinear", "mixup_label_weight": "learned", "max_steps": 6, "learning_rate": 1e-2}
    trainer = train(tmp_path, **options, save_strategy="steps", save_steps=3)
    lambdas = logged(trainer, "mixup_lambda")
    assert lambdas[0] == 0.5 and abs(lambdas[-1] - 0.5) > 1e-3
    checkpoint = tmp_path / "checkpoint-3"
    _, report = PARENTS["bert"].from_pretrained(checkpoint, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    (checkpoint / CHECKSUMS).unlink()
    for weights in ({"weight": torch.zeros(1, 7), "bias": torch.zeros(1)}, {"weight": torch.zeros(1, 32)}):
        save_file(weights, checkpoint / "label_gate.safetensors")
        with pytest.raises(CheckpointError, match="label_gate.safetensors of .*-3 does not fit the gate"):
            train(tmp_path, **options, resume=str(checkpoint))
    (checkpoint / "label_gate.safetensors").unlink()
    with pytest.raises(ValueError, match="has no label_gate.safetensors"):
        train(tmp_path, **options, resume=str(checkpoint))


def test_every_update_is_weighed_by_its_own_rows(tmp_path):
    options = {"mixup_method": "batchmixup-code", "mixup_points": 40, "mixup_prob": 0.5, "mixup_updates": 2}
    trainer = train(tmp_path, per_device_train_batch_size=4, max_steps=12, mixup_stop=1.0, **options)
    # A step of the wrong weight has ten times the loss.
    assert max(logged(trainer, "loss")) < 4


def test_a_trainer_starts_anew_after_a_loss_that_was_not_finite(tmp_path):
    model = tiny_model("bert")
    options = {"max_steps": 2, "disable_tqdm": True, "use_cpu": True, **STRONG}
    arguments = MixupTrainingArguments(output_dir=str(tmp_path), **options)
    trainer = MixupTrainer(model, arguments, train_dataset=tiny_dataset())
    broken = model.classifier.weight.data.clone()
    model.classifier.weight.data.fill_(float("nan"))
    with pytest.raises(NonFiniteLossError):
        trainer.train()
    model.classifier.weight.data.copy_(broken)
    trainer.train()
    assert trainer.state.global_step == 2


def test_a_learned_label_weight_wants_the_trainers_optimizer(tmp_path):
    model = tiny_model("bert")
    options = {"mixup_method": "nonlinear", "mixup_label_weight": "learned"}
    own = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="an optimizer of your own does not know"):
        train(tmp_path, model, trainer_options={"optimizers": (own, None)}, **options)


def test_a_plain_run_forgets_how_an_earlier_one_mixed(tmp_path):
    model = tiny_model("bert")
    train(tmp_path, model, **STRONG)
    assert model.config.mixup["method"] == "amplify"
    train(tmp_path, model)
    assert not hasattr(model.config, "mixup")


def test_plain_training_asks_nothing_of_the_config(tmp_path):
    from transformers import XLNetConfig, XLNetForSequenceClassification

    model = XLNetForSequenceClassification(XLNetConfig(vocab_size=90, n_layer=1, d_model=8, n_head=2, d_inner=8))
    assert np.isfinite(logged(train(tmp_path, model, dataset=tiny_dataset(num_labels=2), max_steps=2), "loss")).all()


def test_ssmix_needs_to_know_the_special_tokens(tmp_path):
    with pytest.raises(ValueError, match="give the trainer the tokenizer as processing_class"):
        train(tmp_path, mixup_method="ssmix")


def _batch_order(folder, dataset, family):
    seen = []

    class Recorder(Trainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            seen.extend(inputs["input_ids"].tolist())
            return super().compute_loss(model, inputs, *args, **kwargs)

    train(folder, tiny_model(family, mixup=False), Recorder, dataset=dataset, max_steps=1)
    ids = [row["input_ids"] for row in dataset]
    return [ids.index(row) for row in seen]


def test_the_log_reports_what_was_mixed(tmp_path):
    trainer = train(tmp_path, **{**STRONG, "max_steps": 12, "mixup_prob": 0.5})
    mixup = Mixup(trainer.args.mixup(), 3)
    for step, (lam, applied) in enumerate(
        zip(logged(trainer, "mixup_lambda"), logged(trainer, "mixup_applied"), strict=True)
    ):
        rows = 8 if (step + 1) % 5 else 5
        plan = mixup.plan({}, torch.zeros(rows), StepKey(42, 0, step, 0))
        assert applied == (plan is not None)
        assert lam == pytest.approx(1.0 if plan is None else plan.weight.item())
    mixed_losses = [entry["mixup_loss"] for entry in trainer.state.log_history if entry.get("mixup_applied") == 1]
    losses = [entry["loss"] for entry in trainer.state.log_history if entry.get("mixup_applied") == 1]
    assert mixed_losses == pytest.approx(losses) and 0 < len(losses) < 12
    assert not any(name.startswith("mixup") for entry in train(tmp_path).state.log_history for name in entry)


def test_several_steps_between_two_logs_are_averaged(tmp_path):
    every = train(tmp_path, **{**STRONG, "max_steps": 6})
    third = train(tmp_path, **{**STRONG, "max_steps": 6, "logging_steps": 3})
    expected = np.asarray(logged(every, "mixup_lambda")).reshape(2, 3).mean(axis=1)
    np.testing.assert_allclose(logged(third, "mixup_lambda"), expected, rtol=1e-6)


PER_SAMPLE = {**STRONG, "mixup_per_sample": True}


# Every family with every kind of labels and every way of mixing, and every kind with every way.
@pytest.mark.parametrize(
    ("family", "kind", "options"),
    [
        ("bert", "regression", {}),
        ("bert", "multi_label", STRONG),
        ("bert", "soft", PER_SAMPLE),
        ("roberta", "regression", STRONG),
        ("roberta", "multi_label", PER_SAMPLE),
        ("roberta", "soft", {}),
        ("distilbert", "regression", PER_SAMPLE),
        ("distilbert", "multi_label", {}),
        ("distilbert", "soft", STRONG),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} options",
)
def test_other_kinds_of_labels_train_and_evaluate(family, tmp_path, kind, options):
    generator = np.random.default_rng(0)
    labels = {
        "regression": generator.random(19).tolist(),
        "multi_label": generator.integers(0, 2, (19, 3)).astype(float).tolist(),
        "soft": generator.dirichlet(np.ones(3), 19).tolist(),
    }[kind]
    problem_type = {"soft": "single_label_classification"}.get(kind)
    model = tiny_model(family, num_labels=1 if kind == "regression" else 3, problem_type=problem_type)
    dataset = tiny_dataset(rows=19, label=labels)
    trainer = train(
        tmp_path,
        model,
        dataset=dataset,
        trainer_options={"eval_dataset": dataset},
        gradient_accumulation_steps=2,
        **options,
    )
    expected = {"regression": "regression", "multi_label": "multi_label_classification"}
    assert model.config.problem_type == expected.get(kind, "single_label_classification")
    predictions = trainer.predict(dataset)
    logits, targets = torch.tensor(predictions.predictions), torch.tensor(labels)
    loss = {
        "regression": lambda: nn.MSELoss()(logits.squeeze(), targets),
        "multi_label": lambda: nn.BCEWithLogitsLoss()(logits, targets),
        "soft": lambda: -(targets * torch.log_softmax(logits, dim=-1)).sum(dim=-1).mean(),
    }[kind]()
    batches = logged(trainer, "loss")
    assert np.isfinite(batches).all() and len(batches) == 6
    # Trainer averages the batches' losses with the weight of their rows.
    assert trainer.evaluate()["eval_loss"] == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize("options", [{}, {**STRONG, "mixup_start": 0.99}], ids=["none", "before the start"])
@pytest.mark.parametrize("kind", ["multi_label", "soft", "classes"])
def test_rows_without_labels_do_not_count_in_plain_steps(tmp_path, options, kind):
    generator = np.random.default_rng(0)
    labels = {
        "multi_label": generator.integers(0, 2, (8, 3)).astype(float).tolist(),
        "soft": generator.dirichlet(np.ones(3), 8).tolist(),
        "classes": generator.integers(0, 3, 8).tolist(),
    }[kind]
    missing = -100 if kind == "classes" else [-100.0] * 3
    problem_type = "multi_label_classification" if kind == "multi_label" else "single_label_classification"
    both = [tiny_dataset(rows=8, label=labels), tiny_dataset(rows=8, label=[*labels[:6], missing, missing])]
    both[0] = both[0].select(range(6))
    options = {**options, "max_steps": 1, "optim": "sgd", "learning_rate": 0.1}
    trainers = [
        train(tmp_path, tiny_model("bert", problem_type=problem_type, dropout=0.0), dataset=dataset, **options)
        for dataset in both
    ]
    # One step on six rows, and one on these and two that have no labels.
    losses = [logged(trainer, "loss") for trainer in trainers]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for six, eight in zip(*(trainer.model.parameters() for trainer in trainers), strict=True):
        torch.testing.assert_close(eight, six)


def test_a_batch_without_any_label_is_a_step_without_loss(tmp_path):
    labels = [0, 1, 2, 0, 1, 2, 0, 1, *[-100] * 8]
    options = {"dataset": tiny_dataset(rows=16, label=labels), "train_sampling_strategy": "sequential", "max_steps": 2}
    assert logged(train(tmp_path, **options), "loss")[1] == 0


def test_class_weights_are_for_the_training_loss_of_soft_labels_too(tmp_path):
    labels = torch.tensor(np.random.default_rng(0).dirichlet(np.ones(3), 19), dtype=torch.float32)
    dataset = tiny_dataset(rows=19, label=labels.tolist())
    model = tiny_model("bert", problem_type="single_label_classification")
    trainer = train(tmp_path, model, dataset=dataset, class_weights="1,5,1", trainer_options={"eval_dataset": dataset})
    logits = torch.tensor(trainer.predict(dataset).predictions)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(nn.CrossEntropyLoss()(logits, labels).item(), rel=1e-5)


def test_a_gate_of_an_earlier_training_weighs_nothing(tmp_path):
    trainer = train(tmp_path, mixup_method="nonlinear", mixup_label_weight="learned", learning_rate=0.1)
    trainer.args.mixup_label_weight, trainer.args.mixup_ratio, trainer.args.mixup_lambda = None, "constant", 0.75
    trainer.train()
    assert logged(trainer, "mixup_lambda") == pytest.approx([0.75] * 6)


def test_both_passes_of_ssmix_are_in_the_log_whatever_is_accumulated(tmp_path):
    options = {"mixup_method": "ssmix", "max_steps": 3, "trainer_options": {"processing_class": wordpiece_tokenizer()}}
    for accumulated in (1, 2):
        trainer = train(tmp_path, **options, per_device_train_batch_size=4, gradient_accumulation_steps=accumulated)
        assert logged(trainer, "mixup_loss") == pytest.approx(logged(trainer, "loss"), rel=1e-4)


def test_a_loss_function_of_ones_own_is_logged_as_trainer_logs_it(tmp_path):
    def mean_over_the_group(outputs, labels, num_items_in_batch=None):
        return nn.functional.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch

    trainer = train(
        tmp_path, gradient_accumulation_steps=2, trainer_options={"compute_loss_func": mean_over_the_group}, **STRONG
    )
    applied = [entry for entry in trainer.state.log_history if entry.get("mixup_applied") == 1]
    assert applied
    for entry in applied:
        assert entry["mixup_loss"] == pytest.approx(entry["loss"])


# What a method computes in each family is compared in tests/methods/test_every_method.py; here it is trained in one.
@pytest.mark.parametrize(
    ("family", "method"), zip(cycle(FAMILIES), [name for name in METHODS if name != "none"], strict=False)
)
def test_every_method_trains_also_uneven_batches(family, tmp_path, method):
    head = {"mixup_attention_head": "1"} if method == "attentionmix" else {}
    tokenizer = wordpiece_tokenizer() if method == "ssmix" else None
    trainer = train(
        tmp_path,
        tiny_model(family),
        dataset=tiny_dataset(rows=19),
        per_device_train_batch_size=6,
        gradient_accumulation_steps=2,
        num_train_epochs=3,
        max_steps=-1,
        mixup_method=method,
        trainer_options={"processing_class": tokenizer},
        **head,
    )
    assert np.isfinite(logged(trainer, "loss")).all() and max(logged(trainer, "mixup_applied")) > 0
    assert trainer.model.config.mixup["method"] == method


@pytest.mark.parametrize(("rows", "batch"), [(1, 8), (2, 8), (5, 2), (7, 3), (3, 1)])
def test_small_and_uneven_batches_train(tmp_path, rows, batch):
    trainer = train(
        tmp_path,
        dataset=tiny_dataset(rows=rows),
        per_device_train_batch_size=batch,
        num_train_epochs=2,
        max_steps=-1,
        **STRONG,
    )
    assert trainer.state.global_step == 2 * -(-rows // batch)
    assert np.isfinite(logged(trainer, "loss")).all()


def test_evaluation_never_mixes(tmp_path):
    dataset = tiny_dataset(rows=10)
    trainer = train(tmp_path, **STRONG)
    predictions = trainer.predict(dataset).predictions
    model = trainer.model.eval()
    batch = {name: torch.tensor([row[name] for row in dataset]) for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(predictions), model(**batch).logits, atol=1e-5, rtol=1e-5)


def mean_cross_entropy(outputs, labels, num_items_in_batch=None):
    total = nn.functional.cross_entropy(outputs.logits, labels, reduction="sum")
    return total / num_items_in_batch


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_loss_function_of_ones_own_is_called_for_both_labels(tmp_path, accumulation):
    options = {**STRONG, "gradient_accumulation_steps": accumulation, "per_device_train_batch_size": 4}
    # By SGD: Adam turns the rounding noise of a gradient that is 0 into full steps.
    options |= {"optim": "sgd", "learning_rate": 0.05}
    own = train(tmp_path, trainer_options={"compute_loss_func": mean_cross_entropy}, **options)
    ours = train(tmp_path, **options)
    assert logged(own, "mixup_applied") == logged(ours, "mixup_applied")
    np.testing.assert_allclose(logged(own, "loss"), logged(ours, "loss"), rtol=1e-5)
    np.testing.assert_allclose(logged(own, "grad_norm"), logged(ours, "grad_norm"), rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {**STRONG, "mixup_per_sample": True},
        {**STRONG, "mixup_clean": "average"},
        {"mixup_method": "batchmixup-code"},
        {"mixup_method": "nonlinear"},
    ],
    ids=str,
)
def test_a_loss_function_that_could_not_weigh_the_rows_is_refused(tmp_path, options):
    with pytest.raises(ValueError, match="compute_loss_func returns one number for the batch"):
        train(tmp_path, trainer_options={"compute_loss_func": mean_cross_entropy}, **options)


def test_the_mixin_gives_a_trainer_of_ones_own_mixup(tmp_path):
    class OwnTrainer(Trainer):
        def create_optimizer(self, *args, **kwargs):
            self.was_here = True
            return super().create_optimizer(*args, **kwargs)

    class OwnMixupTrainer(MixupTrainerMixin, OwnTrainer):
        pass

    own, ours = train(tmp_path, trainer_class=OwnMixupTrainer, **STRONG), train(tmp_path, **STRONG)
    assert own.was_here and same_weights(own.model, ours.model)


class NaNAfter(MixupTrainer):
    """Breaks the loss, or one gradient, in the third step."""

    what = "loss"

    def compute_loss(self, model, inputs, *args, **kwargs):
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        if self.state.global_step == 2 and self.what == "loss":
            return loss * float("nan")
        if self.state.global_step == 2 and self.what == "gradient":
            next(self.model.parameters()).register_hook(lambda gradient: gradient * float("inf"))
        return loss


@pytest.mark.parametrize(
    ("what", "options", "mixup"),
    [
        ("loss", {}, STRONG),
        ("loss", {"max_grad_norm": 0.0}, {}),
        ("loss", {"gradient_accumulation_steps": 2}, STRONG),
        ("gradient", {}, {}),
        ("gradient", {"max_grad_norm": 0.0}, STRONG),
        ("gradient", {"gradient_accumulation_steps": 2}, {}),
    ],
    ids=str,
)
def test_a_loss_or_gradient_that_is_not_finite_stops_before_the_step(tmp_path, what, options, mixup):
    model = tiny_model("bert")
    trainer_class = type("Breaking", (NaNAfter,), {"what": what})
    with pytest.raises(NonFiniteLossError, match=f"The {what} of step 3 is not a finite number"):
        train(tmp_path, model, trainer_class, lr_scheduler_type="constant", **options, **mixup)
    good = train(tmp_path, max_steps=2, lr_scheduler_type="constant", **options, **mixup)
    assert same_weights(model, good.model)


def test_options_are_read_at_every_step_so_that_a_search_can_change_them(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    arguments = MixupTrainingArguments(
        output_dir=str(tmp_path), max_steps=3, logging_steps=1, save_strategy="no", disable_tqdm=True, **STRONG
    )
    seen = []

    class Recorder(MixupTrainer):
        def get_batch_samples(self, *args, **kwargs):
            batches = super().get_batch_samples(*args, **kwargs)
            seen.append((self._mixup.method.site, self._mixup.method.ratio.alpha))
            return batches

    trainer = Recorder(
        args=arguments,
        model_init=lambda: tiny_model("bert"),
        train_dataset=tiny_dataset(),
        eval_dataset=tiny_dataset(),
    )
    best = trainer.hyperparameter_search(
        hp_space=lambda trial: {
            "mixup_alpha": trial.suggest_float("mixup_alpha", 0.5, 2.0),
            "mixup_site": trial.suggest_categorical("mixup_site", ["attention", "pooled"]),
        },
        n_trials=3,
        backend="optuna",
        direction="minimize",
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    assert len({alpha for _, alpha in seen}) == 3
    assert (best.hyperparameters["mixup_site"], best.hyperparameters["mixup_alpha"]) in seen


def test_mixing_under_data_parallel_is_refused_but_nothing_else(tmp_path):
    arguments = MixupTrainingArguments(output_dir=str(tmp_path), report_to="none", disable_tqdm=True, **STRONG)
    trainer = MixupTrainer(tiny_model("bert"), arguments, train_dataset=tiny_dataset())
    trainer.args._n_gpu = 2
    with pytest.raises(ValueError, match=r"torchrun --nproc_per_node 2 .*accelerate launch"):
        trainer.train()
    trainer.args._n_gpu = 1
    assert trainer.predict(tiny_dataset()).predictions.shape == (37, 3)


def test_models_and_arguments_that_do_not_fit_are_refused(tmp_path):
    def trainer(model, arguments=None, dataset=None, **options):
        arguments = arguments or MixupTrainingArguments(output_dir=str(tmp_path), **options)
        return MixupTrainer(model, arguments, train_dataset=dataset)

    with pytest.raises(ValueError, match="cannot train a BertForSequenceClassification, which does not mix: load"):
        trainer(tiny_model("bert", mixup=False), mixup_method="amplify")
    with pytest.raises(TypeError, match="MixupTrainer needs MixupTrainingArguments, got TrainingArguments"):
        trainer(tiny_model("bert"), TrainingArguments(output_dir=str(tmp_path)))
    with pytest.raises(ValueError, match="mixup_layers=4 does not fit: the model has 3 blocks"):
        trainer(tiny_model("bert"), mixup_method="amplify", mixup_layers="4")
    with pytest.raises(ValueError, match="class_weights has 2 numbers, but the model has 3 classes"):
        trainer(tiny_model("bert"), class_weights="1,2")
    with pytest.raises(ValueError, match="needs a train_dataset"):
        trainer(tiny_model("bert"), class_weights="balanced")
    with pytest.raises(ValueError, match="hold .*input_ids.* but no labels"):
        trainer(tiny_model("bert"), dataset=tiny_dataset().remove_columns("label"), disable_tqdm=True).train()
    with pytest.raises(ValueError, match="label smoothing has no meaning for regression"):
        trainer(
            tiny_model("bert", num_labels=1),
            dataset=tiny_dataset(rows=2, label=[0.5, 1.5]),
            label_smoothing_factor=0.1,
            disable_tqdm=True,
        ).train()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"mixup_method": "amplifi"},
            r"mixup_method='amplifi' is unknown \(did you mean 'amplify'\?\): choose one of none",
        ),
        ({"mixup_method": "amplify", "mixup_alpha": 0.0}, "mixup_alpha=0.0 is not allowed"),
        ({"mixup_method": "amplify", "mixup_layers": "x"}, "mixup_layers='x' is not allowed"),
        ({"mixup_method": "amplify", "mixup_site": "heads"}, "mixup_site='heads' is unknown"),
        ({"mixup_alpha": 0.4}, "mixup_method='none' does not mix"),
        ({"class_weights": "balance"}, "class_weights='balance' is not allowed: give balanced"),
        ({"class_weights": "1,-2"}, "class_weights='1,-2' is not allowed"),
        ({"class_weights": "1,nan"}, "is not allowed"),
    ],
)
def test_arguments_that_are_not_allowed(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        MixupTrainingArguments(output_dir=str(tmp_path), **options)


def test_the_saved_model_loads_in_plain_transformers_with_equal_predictions(family, tmp_path):
    trainer = train(tmp_path, tiny_model(family), **STRONG, save_strategy="steps", save_steps=6)
    trainer.save_model(tmp_path / "final")
    dataset = tiny_dataset(rows=6)
    expected = trainer.predict(dataset).predictions
    batch = {name: torch.tensor([row[name] for row in dataset]) for name in ("input_ids", "attention_mask")}
    for folder in ("final", "checkpoint-6"):
        plain = PARENTS[family].from_pretrained(tmp_path / folder).eval()
        with torch.no_grad():
            np.testing.assert_allclose(plain(**batch).logits.numpy(), expected, atol=1e-6)
    assert type(trainer.model) is MIXUP_CLASSES[family]
    assert tiny_config(family).model_type == plain.config.model_type


def test_an_iterable_of_padded_batches_with_a_collator(tmp_path):
    rows = [{"input_ids": [5 + i] * (2 + i % 3), "label": i % 3} for i in range(9)]

    def collate(features):
        width = max(len(feature["input_ids"]) for feature in features)
        ids = [feature["input_ids"] + [0] * (width - len(feature["input_ids"])) for feature in features]
        mask = [[1] * len(feature["input_ids"]) + [0] * (width - len(feature["input_ids"])) for feature in features]
        labels = [feature["label"] for feature in features]
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask), "labels": torch.tensor(labels)}

    trainer = train(
        tmp_path,
        dataset=Dataset.from_list(rows),
        trainer_options={"data_collator": collate},
        remove_unused_columns=False,
        **STRONG,
    )
    assert logged(trainer, "mixup_applied") == [1.0, 0.0] * 3  # the last batch of an epoch has one row


def test_what_was_mixed_in_a_whole_training(tmp_path):
    """The mean of the logs, each weighed by its batches: 5 steps, logged after 2, 4 and not after the last one."""
    args = MixupTrainingArguments(
        output_dir=str(tmp_path), max_steps=5, logging_steps=2, use_cpu=True, disable_tqdm=True, report_to="none",
        mixup_method="amplify", mixup_ratio="beta", mixup_alpha=1.0, mixup_prob=0.6,
    )  # fmt: skip
    trainer = MixupTrainer(tiny_model("bert"), args, train_dataset=tiny_dataset(40))
    assert trainer.mixed == {}
    drawn = []
    compute_loss = trainer.compute_loss

    def spy(model, inputs, *rest, **options):
        loss = compute_loss(model, inputs, *rest, **options)
        drawn.append(trainer._mixup_log.last_lambda() if inputs["mixup"] is not None else 1.0)
        return loss

    trainer.compute_loss = spy
    trainer.train()
    assert len(drawn) == 5 and 0 < sum(lam < 1 for lam in drawn) < 5
    assert trainer.mixed["mixup_lambda"] == pytest.approx(np.mean(drawn), abs=1e-6)
    assert trainer.mixed["mixup_applied"] == pytest.approx(sum(lam < 1 for lam in drawn) / 5)
    # A second training counts for itself.
    drawn.clear()
    trainer.train()
    assert trainer.mixed["mixup_lambda"] == pytest.approx(np.mean(drawn), abs=1e-6)


@pytest.mark.parametrize(("mixup", "level"), [(True, "WARNING"), (False, "INFO")])
def test_that_nothing_is_mixed_is_said_once(tmp_path, caplog, mixup, level):
    options = {"max_steps": 1, "use_cpu": True, "disable_tqdm": True, "report_to": "none", "save_strategy": "no"}
    args = MixupTrainingArguments(output_dir=str(tmp_path), **options)
    with caplog.at_level("INFO", "hf_mixup"):
        trainer = MixupTrainer(tiny_model("bert", mixup=mixup), args, train_dataset=tiny_dataset(8))
        trainer.train()
        trainer.train()
        # Neither an evaluation nor a run that mixes.
        MixupTrainer(tiny_model("bert"), args, eval_dataset=tiny_dataset(8))
        mixing = MixupTrainingArguments(output_dir=str(tmp_path), mixup_method="amplify", **options)
        MixupTrainer(tiny_model("bert"), mixing, train_dataset=tiny_dataset(8))
    (record,) = [record for record in caplog.records if "mixes nothing" in record.getMessage()]
    assert record.levelname == level
