"""Every optimizer resumes exactly, or a sentence says why it does not."""

import shutil

import pytest
import torch
from transformers.trainer_pt_utils import LayerWiseDummyOptimizer
from transformers.training_args import OptimizerNames

from hf_mixup import CheckpointError
from tests.tiny import same_weights, tiny_dataset, tiny_model
from tests.trainer.runs import train

OURS = ["adafactor", "adagrad", "rmsprop", "sgd"]
OTHERS = sorted({name.value for name in OptimizerNames} - set(OURS))
# They keep their state where it is not saved, which a line tells.
LOSING = {"grokadamw", "galore_adamw_layerwise", "galore_adafactor_layerwise", "apollo_adamw_layerwise"}


def told(caplog, words):
    return [record.getMessage() for record in caplog.records if words in record.getMessage()]


@pytest.mark.parametrize("name", [*OURS, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_a_named_optimizer(tmp_path, caplog, name):
    """Those whose package is not installed, or that want another device, are left out."""
    layers = {"optim_target_modules": ["query", "key"]} if name.startswith(("galore", "apollo")) else {}
    options = {"optim": name, "eval_strategy": "steps", "eval_steps": 3, **layers}
    options["trainer_options"] = {"eval_dataset": tiny_dataset(8, seed=1)}
    try:
        straight = train(tmp_path, **options, save_strategy="steps", save_steps=3)
    except Exception as error:
        if name in OURS:
            raise
        pytest.skip(str(error).splitlines()[0])
    shutil.rmtree(tmp_path / "checkpoint-6")
    caplog.clear()
    try:
        resumed = train(tmp_path, tiny_model("bert", seed=5), **options, resume=True)
    except CheckpointError as error:
        assert layers and "which torch loads only after torch.serialization.add_safe_globals" in str(error)
        return
    lost = told(caplog, "checkpoint-3 does not bring back what the optimizer (")
    assert len(lost) == (name in LOSING) == len(told(caplog, "checkpoint-3 "))
    assert same_weights(resumed.model, straight.model) == (not lost)


class KeepsElsewhere(torch.optim.SGD):
    """As some published ones: what it gathers stands in its groups, by the parameters themselves."""

    def step(self, closure=None):
        for group in self.param_groups:
            seen = group.setdefault("seen", {})
            for parameter in group["params"]:
                seen[parameter] = seen.get(parameter, 0) + 1
        super().step(closure)


class Own(torch.optim.SGD):
    """Of the user: with an option and a counter that torch does not know, and a state of another layout."""

    def __init__(self, params, lr, damping=0.5):
        super().__init__(params, lr)
        for group in self.param_groups:
            group.update(damping=damping, count=0)

    def step(self, closure=None):
        for group in self.param_groups:
            group["count"] += 1
            group["lr"] *= group["damping"] ** group["count"]
        super().step(closure)

    def state_dict(self):
        return {"own": super().state_dict()}

    def load_state_dict(self, state):
        super().load_state_dict(state.get("own", state))


def run(folder, make, **options):
    model = tiny_model("bert")
    optimizer = make(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    return train(folder, model, trainer_options={"optimizers": (optimizer, schedule)}, max_steps=4, **options)


def test_an_optimizer_of_the_user(tmp_path, caplog):
    straight = run(tmp_path, lambda model: Own(model.parameters(), 0.1), save_strategy="steps", save_steps=2)
    shutil.rmtree(tmp_path / "checkpoint-4")
    caplog.clear()
    resumed = run(tmp_path, lambda model: Own(model.parameters(), 0.1), resume=True)
    assert same_weights(resumed.model, straight.model) and not told(caplog, "checkpoint-2 ")
    # The option is compared, and the counter is not.
    run(tmp_path, lambda model: Own(model.parameters(), 0.1, damping=0.9), resume=True)
    (line,) = told(caplog, "checkpoint-2 ")
    assert "was trained with damping=0.5, this run has 0.9: the run goes on with the value of the checkpoint" in line


@pytest.mark.parametrize(
    "make", [lambda model: KeepsElsewhere(model.parameters(), 0.1), lambda model: LayerWiseDummyOptimizer()]
)
def test_an_optimizer_whose_state_is_not_saved_is_told(tmp_path, caplog, make):
    run(tmp_path, make, save_strategy="steps", save_steps=2)
    run(tmp_path, make, resume=str(tmp_path / "checkpoint-2"))
    (line,) = told(caplog, "checkpoint-2 does not bring back")
    assert "it starts from nothing, and the run is not the undisturbed one" in line


class Projector:
    """What some optimizers keep for each matrix: an object of their own."""


def test_an_optimizer_with_objects_of_its_own_names_them(tmp_path):
    def make(model):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        optimizer.param_groups[0]["projector"] = Projector()
        return optimizer

    straight = run(tmp_path, make, save_strategy="steps", save_steps=2)
    shutil.rmtree(tmp_path / "checkpoint-4")
    with pytest.raises(CheckpointError, match=r"optimizer.pt holds a [\w.]+.Projector, which torch loads only after"):
        run(tmp_path, make, resume=True)
    with torch.serialization.safe_globals([Projector]):
        assert same_weights(run(tmp_path, make, resume=True).model, straight.model)
