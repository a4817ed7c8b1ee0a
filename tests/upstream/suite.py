"""The common model tests of transformers on one mixup class, and on its parent class for comparison.

Not collected by its name: test_upstream.py runs this file in a process of its own for each family, since it renames a
class and stands in for packages. HF_MIXUP_UPSTREAM is the folder of the upstream tests, HF_MIXUP_FAMILY the family.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import unittest
from types import ModuleType

import torch

from hf_mixup.mixing import PairPlan
from tests import tiny

PACKAGE = "transformers_tests"
# What the source distribution leaves out of its tests: mixins for tasks that a classifier does not have.
LEFT_OUT = {"exporters.test_export": "ExportTesterMixin", "generation.test_utils": "GenerationTesterMixin"}

FAMILY = os.environ["HF_MIXUP_FAMILY"]
PARENT, MIXUP = tiny.PARENTS[FAMILY], tiny.MIXUP_CLASSES[FAMILY]
# Upstream chooses by the name of a class which checks it takes part in: ours takes part in its parent's.
MIXUP.__name__ = PARENT.__name__
# And by an annotation whether it gives attentions; ours are strings, which upstream does not read.
for name, parameter in inspect.signature(PARENT.forward).parameters.items():
    inspect.unwrap(MIXUP.forward).__annotations__[name] = parameter.annotation


def import_common_tests(folder: str) -> ModuleType:
    """test_modeling_common.py of the folder, as a module of a package, since it imports relatively."""
    package = ModuleType(PACKAGE)
    package.__path__ = [folder]
    sys.modules[PACKAGE] = package
    for path, mixin in LEFT_OUT.items():
        stand_in = ModuleType(f"{PACKAGE}.{path}")
        setattr(stand_in, mixin, type(mixin, (), {}))
        sys.modules[stand_in.__name__] = stand_in
    return importlib.import_module(f"{PACKAGE}.test_modeling_common")


common = import_common_tests(os.environ["HF_MIXUP_UPSTREAM"])


# The most that upstream allows.
tiny.NUM_LAYERS = 2


class TinyModelTester:
    """What upstream's tests ask of a model tester."""

    num_hidden_layers = tiny.NUM_LAYERS
    num_attention_heads = 4
    hidden_size = 32
    batch_size = 5
    seq_length = 9
    is_training = True

    def get_config(self):
        return tiny.tiny_config(FAMILY)

    def prepare_config_and_inputs_for_common(self):
        return self.get_config(), tiny.tiny_batch(FAMILY, self.batch_size, self.seq_length)


class ParentTest(common.ModelTesterMixin, unittest.TestCase):
    """The class of transformers."""

    all_model_classes = (PARENT,)
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self) -> None:
        self.model_tester = TinyModelTester()


class MixupTest(ParentTest):
    """Ours in its place."""

    all_model_classes = (MIXUP,)


class MixingModelTester(TinyModelTester):
    """Its inputs hold a plan, so that each forward pass mixes."""

    def prepare_config_and_inputs_for_common(self):
        config, inputs = super().prepare_config_and_inputs_for_common()
        plan = PairPlan(torch.tensor([2, 0, 1, 4, 3]), torch.tensor(0.7), "hidden", layers=(1,))
        return config, {**inputs, "mixup": plan}


class MixingTest(MixupTest):
    """Ours while it mixes, without the checks that do not apply to mixed rows."""

    # In a batch of another size a row has another partner.
    test_batching_equivalence = None
    # The loss of mixed rows is not the model's to compute.
    test_problem_types = None
    test_training = None
    test_training_gradient_checkpointing = None
    test_training_gradient_checkpointing_use_reentrant_false = None
    test_training_gradient_checkpointing_use_reentrant_true = None

    def setUp(self) -> None:
        self.model_tester = MixingModelTester()

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        return super()._prepare_for_class(inputs_dict, model_class, return_labels=False)
