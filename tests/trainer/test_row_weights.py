"""A column `weight` of the train data: each row counts that much, in every kind of step."""

import numpy as np
import pytest
import torch
from datasets import IterableDataset
from torch import nn
from transformers import DataCollatorWithPadding, Trainer, default_data_collator

from hf_mixup import METHODS, MixupTrainer, MixupTrainerMixin, MixupTrainingArguments
from hf_mixup.methods import Mixup
from hf_mixup.mixing import StepKey
from tests.modeling import reference
from tests.tiny import same_weights, tiny_dataset, tiny_model, wordpiece_tokenizer
from tests.trainer.runs import STRONG, ByTheDocs, logged, train

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
ROWS, STEPS, RATE = 8, 3, 0.1
SGD = {"optim": "sgd", "learning_rate": RATE, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
WEIGHTS = [2.0, 0.5, 0.0, 1.0, 3.0, 0.25, 1.5, 0.75]
GENERATOR = np.random.default_rng(0)
LABELS = {
    SINGLE: [0, 2, 1, -100, 1, 0, 2, 1],
    MULTI: GENERATOR.integers(0, 2, (ROWS, 3)).astype(float).tolist(),
    REGRESSION: GENERATOR.normal(size=ROWS).tolist(),
}


def row_term(problem_type, logits, label):
    """The loss of one row, and whether it has a label."""
    if problem_type == REGRESSION:
        return (logits[0] - label) ** 2, 1.0
    if problem_type == SINGLE:
        return (0.0, 0.0) if label == -100 else (-torch.log_softmax(logits, dim=0)[label], 1.0)
    log_p, log_q = nn.functional.logsigmoid(logits), nn.functional.logsigmoid(-logits)
    return -sum(y * log_p[c] + (1 - y) * log_q[c] for c, y in enumerate(label)) / len(label), 1.0


def batch_terms(problem_type, model, batch, labels, weights, plan):
    """The sum of the losses of a batch in float64, and that of their weights."""
    rows = range(len(labels))
    partner, lam = (list(rows), 1.0) if plan is None else (plan.partner.tolist(), plan.weight.double().item())
    logits = reference.forward("bert", model, batch, partner, lam, "attention", (1, 2, 3))
    total_loss = total_weight = 0.0
    for i in rows:
        j = partner[i]
        if problem_type == REGRESSION:
            weight = lam * weights[i] + (1 - lam) * weights[j]
            total_loss = total_loss + weight * (logits[i][0] - lam * labels[i] - (1 - lam) * labels[j]) ** 2
            total_weight += weight
            continue
        for part, row in ((lam, i), (1 - lam, j)):
            loss, has_label = row_term(problem_type, logits[i], labels[row])
            total_loss = total_loss + part * weights[row] * loss
            total_weight += part * weights[row] * has_label
    return total_loss, total_weight


@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize("mixup", [{}, STRONG], ids=["plain", "mixed"])
@pytest.mark.parametrize("problem_type", LABELS)
def test_a_run_is_a_loop_over_rows_that_count_differently(tmp_path, problem_type, mixup, accumulated):
    outputs = {"problem_type": problem_type, "num_labels": 1 if problem_type == REGRESSION else 3, "dropout": 0.0}
    dataset = tiny_dataset(rows=ROWS, label=LABELS[problem_type], weight=WEIGHTS)
    trainer = train(
        tmp_path,
        tiny_model("bert", **outputs),
        dataset=dataset,
        per_device_train_batch_size=ROWS // accumulated,
        gradient_accumulation_steps=accumulated,
        train_sampling_strategy="sequential",
        max_steps=STEPS,
        **SGD,
        **mixup,
    )
    model = tiny_model("bert", mixup=False, **outputs).double()
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=RATE), []
    drawn = Mixup(METHODS["amplify"].with_options(ratio="beta", alpha=1.0), 3)
    for step in range(STEPS):
        sums = []
        for micro, rows in enumerate(np.split(np.arange(ROWS), accumulated)):
            batch = {
                name: torch.tensor([dataset[int(i)][name] for i in rows]) for name in ("input_ids", "attention_mask")
            }
            labels, weights = ([column[i] for i in rows] for column in (LABELS[problem_type], WEIGHTS))
            plan = drawn.plan({}, torch.tensor(labels), StepKey(42, 0, step, micro)) if mixup else None
            sums.append(batch_terms(problem_type, model, batch, labels, weights, plan))
        loss, weight = (sum(parts) for parts in zip(*sums, strict=True))
        optimizer.zero_grad()
        (loss / weight).backward()
        optimizer.step()
        losses.append((loss / weight).item())
    assert logged(trainer, "loss") == pytest.approx(losses, rel=1e-4)
    for ours, (name, expected) in zip(trainer.model.parameters(), model.named_parameters(), strict=True):
        torch.testing.assert_close(ours.double(), expected, atol=2e-5, rtol=1e-3, msg=name)


def test_weight_0_is_the_absence_of_the_row(tmp_path):
    rows = tiny_dataset(rows=ROWS, label=[0, 1, 2, 0, 1, 2, 0, 1], weight=[1, 1, 0, 1, 1, 0, 1, 1])
    options = {**SGD, "max_steps": 3, "train_sampling_strategy": "sequential"}
    found = train(tmp_path, tiny_model("bert", dropout=0.0), dataset=rows, **options)
    kept = rows.remove_columns("weight").select([0, 1, 3, 4, 6, 7])
    expected = train(tmp_path, tiny_model("bert", dropout=0.0), dataset=kept, **options)
    assert logged(found, "loss") == pytest.approx(logged(expected, "loss"), rel=1e-5)
    for one, two in zip(found.model.parameters(), expected.model.parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


OF_CLASSES = [0.5, 4.0, 1.0]
ATTENTION = {"mixup_method": "attentionmix", "mixup_attention_head": "1"}
METHOD_OPTIONS = {
    "plain": {},
    "plain, accumulated": {"gradient_accumulation_steps": 2},
    "amplify": STRONG,
    "some batches": {**STRONG, "mixup_prob": 0.5, "gradient_accumulation_steps": 2},
    "clean rows along": {**STRONG, "mixup_clean": "average", "mixup_clean_weight": 0.3},
    "per sample": {"mixup_method": "embedmix", "mixup_per_sample": True},
    "ssmix": {"mixup_method": "ssmix", "gradient_accumulation_steps": 2},
    "attentionmix": ATTENTION,
    "attentionmix, accumulated": {**ATTENTION, "gradient_accumulation_steps": 2},
    "gate": {"mixup_method": "nonlinear", "mixup_label_weight": "learned", "gradient_accumulation_steps": 2},
    "batchmixup": {"mixup_method": "batchmixup", "mixup_stop": 1.0, "mixup_points": 20},
    "updates": {"mixup_method": "mixup-pairs", "mixup_updates": 2, "mixup_points": 2},
}


def same_as_class_weights(folder, dataset, weighted=None, trainer_options=None, **options):
    """Rows that weigh what their class does, against class weights."""
    options = {**SGD, "max_steps": 4, **options}
    trainer_options = {"processing_class": wordpiece_tokenizer(), **(trainer_options or {})}
    runs = [
        train(
            folder, tiny_model("bert", dropout=0.0), dataset=rows, trainer_options=trainer_options, **options, **more
        )
        for rows, more in ((weighted or with_class_weights(dataset), {}), (dataset, {"class_weights": OF_CLASSES}))
    ]
    ours, expected = runs
    for name in ("loss", "mixup_loss", "grad_norm"):
        assert logged(ours, name) == pytest.approx(logged(expected, name), rel=1e-4), name
    for one, two in zip(ours.model.parameters(), expected.model.parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


def with_class_weights(dataset):
    return dataset.add_column("weight", [OF_CLASSES[label] if label >= 0 else 7.0 for label in dataset["label"]])


@pytest.mark.parametrize("name", METHOD_OPTIONS)
def test_rows_that_weigh_what_their_class_does_train_as_with_class_weights(tmp_path, name):
    labels = np.random.default_rng(1).integers(-1, 3, 24)
    dataset = tiny_dataset(rows=24, length=14, label=np.where(labels < 0, -100, labels).tolist())
    same_as_class_weights(tmp_path, dataset, **METHOD_OPTIONS[name])


@pytest.mark.parametrize(
    "options",
    [
        {"remove_unused_columns": False},
        {"train_sampling_strategy": "group_by_length"},
        {"train_sampling_strategy": "group_by_length", "mixup_partner": "neighbour"},
        {"dataloader_num_workers": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("collator", [default_data_collator, DataCollatorWithPadding(wordpiece_tokenizer())])
def test_the_weight_follows_its_row_through_samplers_and_collators(tmp_path, collator, options):
    same_as_class_weights(
        tmp_path, tiny_dataset(rows=27), trainer_options={"data_collator": collator}, **STRONG, **options
    )


@pytest.mark.parametrize("kind", ["list", "stream", "numbers of torch"])
def test_data_of_other_kinds_have_weights_too(tmp_path, kind):
    dataset = tiny_dataset(rows=24)
    weighted = with_class_weights(dataset)
    make = {
        "list": list,
        "stream": lambda rows: IterableDataset.from_generator(lambda: iter(rows)),
        "numbers of torch": lambda rows: rows.with_format("torch"),
    }[kind]
    same_as_class_weights(tmp_path, make(dataset), make(weighted), **STRONG)


def test_weights_of_rows_and_of_classes_multiply(tmp_path):
    dataset = tiny_dataset(rows=24)
    of_rows = np.random.default_rng(2).random(24)
    product = [row * OF_CLASSES[label] for row, label in zip(of_rows, dataset["label"], strict=True)]
    options = {**SGD, **STRONG, "gradient_accumulation_steps": 2, "max_steps": 3}
    both = train(
        tmp_path,
        tiny_model("bert", dropout=0.0),
        dataset=dataset.add_column("weight", of_rows.tolist()),
        class_weights=OF_CLASSES,
        **options,
    )
    one = train(tmp_path, tiny_model("bert", dropout=0.0), dataset=dataset.add_column("weight", product), **options)
    assert logged(both, "loss") == pytest.approx(logged(one, "loss"), rel=1e-5)


@pytest.mark.parametrize("make", [lambda rows: rows, list], ids=["data set", "list"])
@pytest.mark.parametrize("problem_type", LABELS)
@pytest.mark.parametrize("name", ["plain", "plain, accumulated", "amplify", "some batches", "clean rows along"])
def test_weights_of_1_change_no_bit(tmp_path, problem_type, name, make):
    outputs = {"problem_type": problem_type, "num_labels": 1 if problem_type == REGRESSION else 3}
    labels = LABELS[problem_type] * 3
    runs = [
        train(tmp_path, tiny_model("bert", **outputs), dataset=make(dataset), max_steps=4, **METHOD_OPTIONS[name])
        for dataset in (tiny_dataset(rows=24, label=labels), tiny_dataset(rows=24, label=labels, weight=[1.0] * 24))
    ]
    assert same_weights(runs[0].model, runs[1].model)
    assert logged(runs[0], "grad_norm") == logged(runs[1], "grad_norm")
    assert logged(runs[0], "loss") == pytest.approx(logged(runs[1], "loss"), rel=1e-6)


@pytest.mark.parametrize("make", [lambda rows: rows, list], ids=["data set", "list"])
@pytest.mark.parametrize("name", [name for name in METHOD_OPTIONS if "," not in name] + ["attentionmix, accumulated"])
def test_weights_of_1_change_no_bit_of_any_method(tmp_path, name, make):
    options = {"trainer_options": {"processing_class": wordpiece_tokenizer()}, "max_steps": 3, **METHOD_OPTIONS[name]}
    runs = [
        train(tmp_path, dataset=make(tiny_dataset(rows=24, length=14, **column)), **options)
        for column in ({}, {"weight": [1.0] * 24})
    ]
    assert same_weights(runs[0].model, runs[1].model)


@pytest.mark.parametrize("keep", [False, True])
def test_evaluation_ignores_the_column(tmp_path, keep):
    dataset = tiny_dataset(rows=ROWS)
    trainer = train(
        tmp_path,
        dataset=dataset.add_column("weight", WEIGHTS),
        max_steps=1,
        trainer_options={"data_collator": default_data_collator},
        remove_unused_columns=not keep,
        **STRONG,
    )
    expected, predicted = trainer.evaluate(dataset)["eval_loss"], trainer.predict(dataset).predictions
    for weights in (WEIGHTS, [-1.0] * ROWS):
        weighted = dataset.add_column("weight", weights)
        assert trainer.evaluate(weighted)["eval_loss"] == expected
        assert (trainer.predict(weighted).predictions == predicted).all()
        assert (trainer.predict(weighted.remove_columns("label")).predictions == predicted).all()


def test_a_resumed_run_goes_on_with_the_weights(tmp_path):
    dataset = tiny_dataset(rows=24, weight=np.random.default_rng(2).random(24).tolist())
    options = {**STRONG, "dataset": dataset, "max_steps": 6, "save_strategy": "steps", "save_steps": 2}
    straight = train(tmp_path / "straight", **options)
    resumed = train(tmp_path / "resumed", **options, resume=str(tmp_path / "straight" / "checkpoint-4"))
    assert same_weights(straight.model, resumed.model)
    assert logged(resumed, "loss") == logged(straight, "loss")


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (["1", "2", "1"], "but row 0 has '1': give finite numbers from 0 on, or rename the column or remove it"),
        ([1.0, -0.5, 1.0], "but row 1 has -0.5: give"),
        ([1.0, 1.0, float("nan")], "but row 2 has nan: give"),
        ([1.0, float("inf"), 1.0], "but row 1 has inf: give"),
        ([1.0, 1e39, 1.0], "but row 1 has 1e.39: give"),
        ([1.0, None, 1.0], "but row 1 has None: give"),
        ([[1.0], [1.0], [1.0]], "but row 0 has .1.0.: give"),
        ([0, 0, 0], "Every row of the train_dataset has 0 in its column 'weight'"),
    ],
)
def test_a_column_of_something_else_is_a_sentence_at_construction(tmp_path, weights, sentence):
    arguments = MixupTrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    with pytest.raises(ValueError, match=sentence) as raised:
        MixupTrainer(tiny_model("bert"), arguments, train_dataset=tiny_dataset(rows=3, weight=weights))
    assert "\n" not in str(raised.value) and "column 'weight'" in str(raised.value)


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (["a", "b"], "but a row has 'a': give finite numbers from 0 on"),
        ([1.0, None], "but a row has None: give finite numbers"),
        ([1.0, -2.0], "A batch of the train_dataset: weight -2.0 of row 1 is not allowed: give finite numbers from 0"),
        ([[1.0, 1.0], [1.0, 1.0]], r"A batch of the train_dataset: row_weights .* shape \[2, 2\] do not fit 2 labels"),
    ],
)
def test_rows_without_a_data_set_are_looked_at_in_their_batch(tmp_path, weights, sentence):
    rows = [{**row, "weight": weight} for row, weight in zip(tiny_dataset(rows=2), weights, strict=True)]
    with pytest.raises(ValueError, match=sentence):
        train(tmp_path, dataset=rows, train_sampling_strategy="sequential", max_steps=1)


def test_a_collator_that_leaves_the_weights_out_is_refused(tmp_path):
    def collate(rows):
        return default_data_collator([{name: row[name] for name in ("input_ids", "label")} for row in rows])

    with pytest.raises(ValueError, match="The data_collator makes no tensor of numbers of the column 'weight'"):
        train(
            tmp_path,
            dataset=tiny_dataset(rows=ROWS, weight=WEIGHTS),
            trainer_options={"data_collator": collate},
            max_steps=1,
        )


class Doubled(MixupTrainer):
    """Adds to the loss that it is given."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        return (2 * loss, outputs) if return_outputs else 2 * loss


class TwoSteps(MixupTrainer):
    """Adds the gradient of a second pass."""

    def training_step(self, *args, **kwargs):
        super().training_step(*args, **kwargs)
        return super().training_step(*args, **kwargs)


class OwnStep(MixupTrainer):
    """Makes the step by itself."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        inputs = self._prepare_inputs(inputs)
        loss = model(**inputs).loss
        self.accelerator.backward(loss)
        return loss.detach()


def test_weights_that_no_loss_reads_are_refused(tmp_path):
    weighted = {"dataset": tiny_dataset(rows=ROWS, weight=WEIGHTS), "max_steps": 1}
    with pytest.raises(ValueError, match="ByTheDocs.compute_loss leaves out the weights of the rows.*call super"):
        train(tmp_path, trainer_class=ByTheDocs, **weighted)
    with pytest.raises(ValueError, match="OwnStep.training_step computes the loss by itself.*the column 'weight' out"):
        train(tmp_path, trainer_class=OwnStep, **weighted)
    plain = train(tmp_path, **weighted, **SGD)
    doubled = train(tmp_path, trainer_class=Doubled, **weighted, **SGD)
    assert logged(doubled, "loss") == pytest.approx([2 * logged(plain, "loss")[0]])


def own_loss(outputs, labels, num_items_in_batch=None):
    return nn.functional.cross_entropy(outputs.logits, labels)


class OwnLoss(Trainer):
    """Has a loss of its own, behind the mixin."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch=num_items_in_batch)


class Behind(MixupTrainerMixin, OwnLoss):
    pass


@pytest.mark.parametrize(
    ("trainer_class", "options", "loss"),
    [
        (MixupTrainer, {"compute_loss_func": own_loss}, "a compute_loss_func of your own"),
        (Behind, {}, "a OwnLoss.compute_loss of your own"),
    ],
)
def test_a_loss_of_ones_own_does_not_read_weights(tmp_path, trainer_class, options, loss):
    arguments = MixupTrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    sentence = f"The column 'weight' of the train_dataset, .*, has no effect on {loss}: rename it or remove it"
    with pytest.raises(ValueError, match=sentence):
        trainer_class(tiny_model("bert"), arguments, train_dataset=tiny_dataset(rows=8, weight=WEIGHTS), **options)
    ones = tiny_dataset(rows=8, weight=[1.0] * 8)
    train(tmp_path, trainer_class=trainer_class, dataset=ones, trainer_options=options, max_steps=1)
    # A list is looked at in its batches.
    with pytest.raises(ValueError, match=sentence):
        rows = list(tiny_dataset(rows=8, weight=WEIGHTS))
        train(tmp_path, trainer_class=trainer_class, dataset=rows, trainer_options=options, max_steps=1)


@pytest.mark.parametrize("trainer_class", [Doubled, TwoSteps])
def test_overrides_beside_a_correction_of_all_gradients_are_refused(tmp_path, trainer_class):
    dataset = tiny_dataset(rows=8, weight=WEIGHTS)
    options = {**ATTENTION, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 4, "max_steps": 1}
    with pytest.raises(ValueError, match="leave class_weights and the column 'weight' out"):
        train(tmp_path, trainer_class=trainer_class, dataset=dataset, **options)
