"""The temperature in the last linear layer: of every family, of other classifiers, and where it cannot lie there."""

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    BartConfig,
    BartForSequenceClassification,
    BertForSequenceClassification,
    SqueezeBertConfig,
    SqueezeBertForSequenceClassification,
    XLMConfig,
    XLMForSequenceClassification,
    XLNetConfig,
    XLNetForSequenceClassification,
)

from hf_mixup.calibrate.folding import divide_logits, last_linear
from hf_mixup.errors import UsageError
from tests.tiny import EAGER_ONLY, tiny_batch, tiny_config, tiny_model

# As transformers names the layer, for a look by hand.
HEADS = dict.fromkeys(("gpt2", "llama", "qwen2", "qwen3"), "score")
HEADS |= dict.fromkeys(("roberta", "camembert", "xlm-roberta", "electra", "mpnet"), "classifier.out_proj")
SMALL = {"vocab_size": 90, "num_labels": 3}
OTHERS = {
    "bart": lambda: BartForSequenceClassification(
        BartConfig(**SMALL, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2)
    ),
    "squeezebert": lambda: SqueezeBertForSequenceClassification(
        SqueezeBertConfig(
            **SMALL, hidden_size=16, embedding_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, q_groups=1, k_groups=1, v_groups=1, intermediate_groups=1, output_groups=1,
        )
    ),
    "xlnet": lambda: XLNetForSequenceClassification(
        XLNetConfig(**SMALL, d_model=16, n_layer=1, n_head=2, d_inner=16)
    ),
    # Its last layer is called "summary" and is no part of a classifier.
    "xlm": lambda: XLMForSequenceClassification(XLMConfig(**SMALL, n_words=90, emb_dim=16, n_layers=1, n_heads=2)),
}  # fmt: skip


def divided(model, batch, temperatures, folder):
    """The name of the layer, the logits of a model, and those of the saved one that is loaded by transformers."""
    model.eval()
    with torch.no_grad():
        before = model(**batch).logits.double()
        name = last_linear(model, lambda: model(**batch))
        divide_logits(model.get_submodule(name), temperatures)
        model.save_pretrained(folder)
        saved = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        return name, before, saved(**batch).logits.double()


def assert_divided(before, after, temperatures, tolerance=1e-6):
    wanted = before / torch.tensor(temperatures, dtype=torch.float64)
    assert (after - wanted).abs().max() <= tolerance * wanted.abs().max()
    # What stays as it was would pass where the tolerance is wide.
    assert (after - before).abs().max() > 0.1 * before.abs().max()


@pytest.mark.parametrize("temperatures", [[1.7] * 3, [0.3, 1.0, 4.1]], ids=["one", "one a class"])
def test_the_logits_of_every_family_are_divided(any_family, tmp_path, temperatures):
    model = tiny_model(any_family, mixup=False, attention="eager" if any_family in EAGER_ONLY else "sdpa")
    name, before, after = divided(model, tiny_batch(any_family), temperatures, tmp_path)
    assert name == HEADS.get(any_family, "classifier")
    assert_divided(before, after, temperatures)


@pytest.mark.parametrize("name", OTHERS)
def test_the_logits_of_other_classifiers_are_divided(name, tmp_path):
    batch = tiny_batch("bert")
    if name == "bart":
        # It classifies by the last end of a text.
        batch["input_ids"][:, -1] = 2
    _, before, after = divided(OTHERS[name](), batch, [2.5] * 3, tmp_path)
    assert_divided(before, after, [2.5] * 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_and_is_rounded_once(dtype, tmp_path):
    model = tiny_model("bert", mixup=False).to(dtype)
    weight, bias = (each.detach().double() for each in (model.classifier.weight, model.classifier.bias))
    _, before, after = divided(model, tiny_batch("bert"), [1.7] * 3, tmp_path)
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert saved.dtype == saved.classifier.weight.dtype == dtype
    assert torch.equal(saved.classifier.weight, (weight / 1.7).to(dtype))
    assert torch.equal(saved.classifier.bias, (bias / 1.7).to(dtype))
    assert_divided(before, after, [1.7] * 3, tolerance=4 * torch.finfo(dtype).eps)


class DoubledLogits(BertForSequenceClassification):
    """A head that goes on after its last linear layer."""

    def forward(self, *args, **kwargs):
        outputs = super().forward(*args, **kwargs)
        outputs.logits = 2 * outputs.logits
        return outputs


def test_logits_that_no_linear_layer_puts_out_are_refused():
    batch = tiny_batch("bert")
    squashed = XLMForSequenceClassification(
        XLMConfig(**SMALL, n_words=90, emb_dim=16, n_layers=1, n_heads=2, summary_activation="tanh")
    ).eval()
    for model in (DoubledLogits(tiny_config("bert")).eval(), squashed):
        with pytest.raises(UsageError, match="are not the outputs of a linear layer"):
            last_linear(model, lambda model=model: model(**batch))
        # No hook stays behind.
        assert not any(module._forward_hooks for module in model.modules())


def test_weights_that_are_used_elsewhere_are_refused():
    model = tiny_model("bert", mixup=False).eval()
    model.another = nn.Linear(32, 3)
    model.another.weight = model.classifier.weight
    with pytest.raises(UsageError, match=r"used elsewhere in the model too \(.*another\.weight"):
        last_linear(model, lambda: model(**tiny_batch("bert")))


def test_weights_that_are_no_floats_of_a_usual_kind_are_refused():
    model = tiny_model("bert", mixup=False).eval()
    layer = model.classifier
    weight = layer.weight.detach()
    layer.weight = nn.Parameter(weight.to(torch.float8_e4m3fn), requires_grad=False)
    layer.forward = lambda rows: nn.functional.linear(rows, weight, layer.bias)
    with pytest.raises(UsageError, match="calibrate the model before it is quantized"):
        last_linear(model, lambda: model(**tiny_batch("bert")))
