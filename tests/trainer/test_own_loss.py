"""A loss of the user's own: it gets the mixed batches whole, or a sentence says where to give it."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import Trainer

from hf_mixup import MixupTrainer, MixupTrainerMixin
from tests.tiny import same_weights, tiny_dataset, tiny_model, wordpiece_tokenizer
from tests.trainer.runs import STRONG, ByTheDocs, logged, train

SGD = {"optim": "sgd", "learning_rate": 0.05}


class WithoutPlan(MixupTrainer):
    """Takes out what the model of the base class does not know."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        inputs = {name: value for name, value in inputs.items() if name != "mixup"}
        return super().compute_loss(model, inputs, *args, **kwargs)


class LabelsInside(MixupTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return model(**inputs).loss


class Hundredfold(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs["labels"]
        outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
        loss = 100 * nn.functional.cross_entropy(outputs.logits, labels)
        return (loss, outputs) if return_outputs else loss


class MixedHundredfold(MixupTrainerMixin, Hundredfold):
    pass


class Penalized(MixupTrainer):
    """A cooperative override, which adds to the loss."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        loss = loss + 0.01 * sum(parameter.square().sum() for parameter in self.model.classifier.parameters())
        return (loss, outputs) if return_outputs else loss


@pytest.mark.parametrize(
    ("trainer_class", "mixup"),
    [
        (ByTheDocs, STRONG),
        (ByTheDocs, {"mixup_method": "ssmix"}),
        (WithoutPlan, {"mixup_method": "ssmix"}),
        (WithoutPlan, {"mixup_method": "attentionmix", "mixup_attention_head": "1"}),
    ],
    ids=str,
)
def test_an_override_that_keeps_a_mixed_batch_is_refused_before_the_weights_change(tmp_path, trainer_class, mixup):
    model = tiny_model("bert")
    sentence = (
        f"{trainer_class.__name__}.compute_loss leaves out the partners' labels of a mixed batch: give your loss as "
        r"compute_loss_func, .* call super\(\).compute_loss"
    )
    options = {"trainer_options": {"processing_class": wordpiece_tokenizer()}, **mixup}
    with pytest.raises(ValueError, match=sentence):
        train(tmp_path, model, trainer_class, **options)
    assert same_weights(model, tiny_model("bert"))


def test_labels_in_a_mixed_forward_pass_are_refused_with_the_way_out(tmp_path):
    with pytest.raises(ValueError, match="labels were given together with a mixup plan.*as compute_loss_func"):
        train(tmp_path, trainer_class=LabelsInside, **STRONG)


def test_a_loss_on_the_instance_is_refused_too(tmp_path):
    class Patched(MixupTrainer):
        def train(self, *args, **kwargs):
            self.compute_loss = lambda model, inputs, **kwargs: ByTheDocs.compute_loss(self, model, inputs)
            return super().train(*args, **kwargs)

    with pytest.raises(ValueError, match="Patched.compute_loss leaves out the partners' labels"):
        train(tmp_path, trainer_class=Patched, **STRONG)


def test_a_loss_behind_the_mixin_is_refused_at_construction_where_a_method_mixes(tmp_path):
    sentence = (
        "Hundredfold.compute_loss would not get the batches that mixup_method='amplify' mixes.*compute_loss_func"
    )
    with pytest.raises(ValueError, match=sentence):
        train(tmp_path, trainer_class=MixedHundredfold, **STRONG)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("soft", [False, True])
def test_without_mixing_a_loss_behind_the_mixin_is_used_for_every_batch(tmp_path, accumulation, soft):
    generator = np.random.default_rng(0)
    labels = generator.dirichlet(np.ones(3), 24).tolist() if soft else generator.integers(0, 3, 24).tolist()
    dataset = tiny_dataset(rows=24, label=labels)
    options = {"gradient_accumulation_steps": accumulation, "per_device_train_batch_size": 4, "max_steps": 3, **SGD}
    runs = []
    for trainer_class in (Hundredfold, MixedHundredfold):
        model = tiny_model("bert", mixup=False, problem_type="single_label_classification")
        if trainer_class is Hundredfold:
            # The stock trainer divides an own loss by the number of accumulated batches if it is told to.
            trainer_class = type("Hundredfold", (Hundredfold,), {"loss_is_scaled_for_ga": False})
        evaluation = {"trainer_options": {"eval_dataset": dataset}, "eval_strategy": "steps", "eval_steps": 3}
        runs.append(train(tmp_path, model, trainer_class, dataset=dataset, **evaluation, **options))
    stock, ours = runs
    assert same_weights(ours.model, stock.model)
    for name in ("loss", "grad_norm", "eval_loss"):
        assert logged(ours, name) == logged(stock, name)


def test_an_override_of_ones_own_goes_on_working_without_mixing(tmp_path):
    stock = train(tmp_path, tiny_model("bert", mixup=False), type("Docs", (Trainer,), vars_of(ByTheDocs)), **SGD)
    ours = train(tmp_path, trainer_class=ByTheDocs, **SGD)
    assert same_weights(ours.model, stock.model) and logged(ours, "loss") == logged(stock, "loss")


def vars_of(trainer_class):
    return {"compute_loss": trainer_class.compute_loss}


def test_a_cooperative_override_adds_to_the_loss_of_mixed_batches(tmp_path):
    options = {**STRONG, "max_steps": 1, "max_grad_norm": 0.0, "lr_scheduler_type": "constant", **SGD}
    plain = train(tmp_path, tiny_model("bert", dropout=0.0), **options)
    added = train(tmp_path, tiny_model("bert", dropout=0.0), Penalized, **options)
    classifier = tiny_model("bert").classifier
    penalty = 0.01 * (classifier.weight.square().sum() + classifier.bias.square().sum()).item()
    assert logged(added, "mixup_applied") == [1.0]
    assert logged(added, "loss")[0] == pytest.approx(logged(plain, "loss")[0] + penalty, abs=1e-5)
    # The gradient of 0.01 w^2 is 0.02 w.
    expected = plain.model.classifier.weight - 0.05 * 0.02 * classifier.weight
    torch.testing.assert_close(added.model.classifier.weight, expected, atol=1e-6, rtol=1e-5)


def test_class_weights_that_no_loss_reads_are_refused(tmp_path):
    weights = {"class_weights": "1,5,1"}
    with pytest.raises(ValueError, match="ByTheDocs.compute_loss leaves out the class_weights: call super"):
        train(tmp_path, trainer_class=ByTheDocs, **weights)
    with pytest.raises(ValueError, match="class_weights have no effect on a Hundredfold.compute_loss of your own"):
        train(tmp_path, trainer_class=MixedHundredfold, **weights)
    assert np.isfinite(logged(train(tmp_path, trainer_class=Penalized, **weights), "loss")).all()


class OnlyOutputs(MixupTrainer):
    """Takes the outputs of the mixed rows from super(), and their loss from the own labels."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        _, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        loss = nn.functional.cross_entropy(outputs.logits, inputs["labels"])
        return (loss, outputs) if return_outputs else loss


def test_a_loss_that_is_computed_but_not_trained_on_is_refused(tmp_path):
    with pytest.raises(ValueError, match="OnlyOutputs.compute_loss leaves out the partners' labels"):
        train(tmp_path, trainer_class=OnlyOutputs, **STRONG)
    assert np.isfinite(logged(train(tmp_path, trainer_class=OnlyOutputs), "loss")).all()


class Twice(MixupTrainer):
    """The mean of two passes, as R-Drop makes them."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        first, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        second, _ = super().compute_loss(model, inputs, True, num_items_in_batch)
        loss = (first + second) / 2
        return (loss, outputs) if return_outputs else loss


class TwoSteps(MixupTrainer):
    """Adds the gradient of a second pass, as adversarial training does."""

    def training_step(self, *args, **kwargs):
        super().training_step(*args, **kwargs)
        return super().training_step(*args, **kwargs)


LATE = {"class_weights": "1,20,0.1", "per_device_train_batch_size": 8, "max_steps": 1, "max_grad_norm": 0.0}
FINDS_WEIGHTS = [
    {"mixup_method": "attentionmix", "mixup_attention_head": "1"},
    {"mixup_method": "nonlinear", "mixup_label_weight": "learned"},
    {"mixup_method": "ssmix"},
]


@pytest.mark.parametrize("mixup", FINDS_WEIGHTS, ids=lambda mixup: mixup["mixup_method"])
def test_two_passes_of_an_override_are_the_mean_or_the_sum_of_two(tmp_path, mixup):
    options = {"trainer_options": {"processing_class": wordpiece_tokenizer()}, **SGD, **LATE, **mixup}
    once, mean, both = (
        train(tmp_path, tiny_model("bert", dropout=0.0), trainer_class, **options, lr_scheduler_type="constant")
        for trainer_class in (MixupTrainer, Twice, TwoSteps)
    )
    assert logged(mean, "loss") == pytest.approx(logged(once, "loss"), rel=1e-5)
    for start, one, same, sums in zip(
        tiny_model("bert").parameters(), *(run.model.parameters() for run in (once, mean, both)), strict=True
    ):
        torch.testing.assert_close(same, one, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(sums - start, 2 * (one - start), atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("trainer_class", [Twice, TwoSteps, Penalized])
def test_overrides_beside_a_correction_of_all_gradients_are_refused(tmp_path, trainer_class):
    options = {**LATE, **FINDS_WEIGHTS[0], "gradient_accumulation_steps": 2, "max_steps": 2}
    overridden = "training_step" if trainer_class is TwoSteps else "compute_loss"
    sentence = f"{trainer_class.__name__}.{overridden} may add to losses whose divisor mixup_method='attentionmix'"
    with pytest.raises(ValueError, match=sentence):
        train(tmp_path, trainer_class=trainer_class, **options)
    # Where every row has a label and no class a weight, the divisor is known.
    train(tmp_path, trainer_class=trainer_class, **{**options, "class_weights": None})


class AsTransformersRecommends(MixupTrainer):
    """Divides by `num_items_in_batch` where there is one."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        if num_items_in_batch is None:
            loss = nn.functional.cross_entropy(outputs.logits, labels)
        else:
            loss = nn.functional.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch
        return (loss, outputs) if return_outputs else loss


def test_an_override_that_divides_by_the_items_of_the_step_is_not_divided_twice(tmp_path):
    options = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "dataset": tiny_dataset(rows=32)}
    ours = train(tmp_path, trainer_class=MixupTrainer, **options, **SGD)
    own = train(tmp_path, trainer_class=AsTransformersRecommends, **options, **SGD)
    np.testing.assert_allclose(logged(own, "loss"), logged(ours, "loss"), rtol=1e-5)
    np.testing.assert_allclose(logged(own, "grad_norm"), logged(ours, "grad_norm"), rtol=1e-4)


class Bare(nn.Module):
    """A module without a config, and without a parameter for plans."""

    def __init__(self):
        super().__init__()
        self.embedding, self.linear = nn.Embedding(90, 8), nn.Linear(8, 3)

    def forward(self, input_ids, labels=None):
        logits = self.linear(self.embedding(input_ids).mean(dim=1))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


@pytest.mark.parametrize("trainer_class", [Trainer, MixupTrainer])
def test_a_bare_module_trains_and_evaluates_without_mixing_as_in_stock_trainer(tmp_path, trainer_class):
    losses = []
    for each in (Trainer, trainer_class):
        torch.manual_seed(0)
        options = {"trainer_options": {"eval_dataset": tiny_dataset()}, "max_steps": 3, **SGD}
        trainer = train(tmp_path, Bare(), each, **options)
        losses.append((logged(trainer, "loss"), trainer.evaluate()["eval_loss"]))
    assert losses[0] == losses[1]


# ---- Other parts of the step that an override may leave out ----


class OwnStep(MixupTrainer):
    def training_step(self, model, inputs, num_items_in_batch=None):
        model.train()
        loss = self.compute_loss(model, self._prepare_inputs(inputs), num_items_in_batch=num_items_in_batch)
        self.accelerator.backward(loss)
        return loss.detach()


class OwnLoop(MixupTrainer):
    """Never calls compute_loss; the model gets the plan."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        model.train()
        inputs = self._prepare_inputs(inputs)
        labels = inputs.pop("labels")
        loss = nn.functional.cross_entropy(model(**inputs).logits, labels)
        self.accelerator.backward(loss)
        return loss.detach()


class OwnBatches(MixupTrainer):
    def get_batch_samples(self, epoch_iterator, num_batches, device):
        return Trainer.get_batch_samples(self, epoch_iterator, num_batches, device)


class OwnOptimizer(MixupTrainer):
    def create_optimizer(self, *args, **kwargs):
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        return self.optimizer


@pytest.mark.parametrize(
    ("trainer_class", "mixup", "sentence"),
    [
        (
            OwnStep,
            {"mixup_method": "ssmix"},
            r"OwnStep.training_step computes .* by itself.*: call super\(\).training_step",
        ),
        (OwnStep, STRONG, r"OwnStep.training_step computes .* by itself.*: call super\(\).training_step"),
        (OwnLoop, STRONG, r"OwnLoop.training_step computes .*: call super\(\).training_step"),
        (OwnLoop, {"class_weights": "1,2,3"}, r"OwnLoop.training_step computes .* without mixing and class_weights"),
        (OwnBatches, STRONG, r"has no plan for mixup_method='amplify': OwnBatches.get_batch_samples.* from super\(\)"),
        (
            OwnOptimizer,
            {"mixup_method": "nonlinear", "mixup_label_weight": "learned"},
            r"call super\(\).create_optimizer\(\) in OwnOptimizer.create_optimizer",
        ),
    ],
    ids=str,
)
def test_an_override_that_leaves_out_a_part_of_mixing_is_refused(tmp_path, trainer_class, mixup, sentence):
    options = {
        "trainer_options": {"processing_class": wordpiece_tokenizer()},
        "lr_scheduler_type": "constant",
        **mixup,
    }
    with pytest.raises(ValueError, match=sentence):
        train(tmp_path, trainer_class=trainer_class, **options)
    assert np.isfinite(
        logged(train(tmp_path, trainer_class=trainer_class, lr_scheduler_type="constant"), "loss")
    ).all()
