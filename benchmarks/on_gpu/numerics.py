"""A mixed step of every method and family: float64 on the CPU against float32 and bfloat16 on the device."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from copy import copy
from functools import partial
from typing import Any

import step_time
import torch
from torch import Tensor, nn
from transformers import set_seed
from transformers.utils.import_utils import enable_tf32

from hf_mixup import AutoMixupModelForSequenceClassification
from hf_mixup.methods import METHODS, Mixup
from hf_mixup.mixing import Objective, StepKey, weighted_mean
from hf_mixup.mixing.plan import Plan, SpanPlan
from hf_mixup.mixing.ratios import Ratio
from on_gpu.setting import Check, Number, Setting, error_of, gradient_of
from tests.tiny import CONFIGS, PAD, tiny_batch, tiny_model

# The heads and points that the tiny models have.
OPTIONS = {"attentionmix": {"attention_head": 3}, "batchmixup": {"points": 4}, "batchmixup-code": {"points": 4}}
MIXING = [name for name, method in METHODS.items() if method.site]
WIDE = ("amplify", "attentionmix", "tmix", "ssmix")
CLS, SEP = 2, 3
# Of three blocks with large weights. The steps of bfloat16 are 1/256 apart, those of float32 1/2**23.
MOST = {
    torch.float32: {"logits": 2e-5, "loss": 2e-5, "gradient": 5e-5},
    torch.bfloat16: {"logits": 0.06, "loss": 0.03, "gradient": 0.12},
}
LABELS = (0, 2, 1, 1, 0)


def checks(setting: Setting) -> dict[str, Check]:
    """Each method on a tiny BERT, each family with AMPLIFY, and four methods in the shape of BERT-base."""
    found: dict[str, Check] = {}
    for dtype in MOST:
        name = str(dtype).removeprefix("torch.")
        for method in MIXING:
            found[f"{method}, tiny bert, {name}"] = partial(tiny, setting, "bert", method, dtype)
        for family in CONFIGS:
            if family != "bert":
                found[f"amplify, tiny {family}, {name}"] = partial(tiny, setting, family, "amplify", dtype)
        shape = "bert-base" if setting.cuda else "small"
        for method in WIDE:
            found[f"{method}, {shape} bert, {name}"] = partial(wide, setting, shape, method, dtype)
    return found


def tiny(setting: Setting, family: str, method: str, dtype: torch.dtype) -> dict[str, Number]:
    """A method on the tiny model of a family."""
    batch = tiny_batch(family, len(LABELS), length=24 if method == "ssmix" else 9)
    mixup = mixup_of(method, 3, 32, 4, PAD[family])
    return compared(setting, lambda: tiny_model(family, dropout=0.0), batch, mixup, dtype)


def wide(setting: Setting, shape: str, method: str, dtype: torch.dtype) -> dict[str, Number]:
    """A method on a model of another shape."""
    config = step_time.config_of(Namespace(model=shape, depth=None, family="bert"))
    sizes = step_time.SHAPES[shape]
    mixup = mixup_of(method, sizes["num_hidden_layers"], sizes["hidden_size"], sizes["num_attention_heads"])
    return compared(setting, partial(random_model, config), tiny_batch("bert", len(LABELS), 32), mixup, dtype)


def random_model(config: Any, attention: str = "sdpa") -> nn.Module:
    """A random model without dropout."""
    set_seed(0)
    config = copy(config)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    return AutoMixupModelForSequenceClassification.from_config(config, attn_implementation=attention)


def mixup_of(method: str, layers: int, hidden_size: int, heads: int | None = None, pad: int = 0) -> Mixup:
    """A method on a model of these sizes, which mixes from the first step on."""
    options = {"start": 0.0, "stop": 1.0, **OPTIONS.get(method, {})}
    if isinstance(METHODS[method].ratio, Ratio):
        # Far from 1, so that a row that is mixed wrongly shows.
        options |= {"ratio": "constant", "lam": 0.7}
    return Mixup(METHODS[method].with_options(**options), layers, hidden_size, heads, [CLS, SEP, pad])


def first_plan(mixup: Mixup, batch: Mapping[str, Tensor]) -> Plan:
    """The first plan that is drawn, on the CPU: some draws mix nothing."""
    plans = (mixup.plan(batch, torch.tensor(LABELS), StepKey(1, step=step)) for step in range(99))
    return next(plan for plan in plans if plan is not None)


def compared(setting: Setting, model_of: Any, batch: Mapping[str, Tensor], mixup: Mixup, dtype: torch.dtype) -> dict:
    """The errors of logits, loss and gradient."""
    enable_tf32(False)
    batch, plan = with_specials(batch), first_plan(mixup, batch)
    expected = step(model_of().double(), batch, plan)
    found = step(model_of().to(setting.device, dtype), batch, plan, expected)
    numbers = {name: Number(error_of(found[name], expected[name]), most) for name, most in MOST[dtype].items()}
    if "ids" in expected:
        wrong = (found["ids"].cpu() != expected["ids"]).sum().item()
        # What is most salient is decided by differences that bfloat16 may not have.
        numbers["other swapped tokens"] = Number(wrong, 0 if dtype == torch.float32 else None)
    return numbers


def with_specials(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The batch with the tokens that begin and end a text, which SSMix leaves in their places."""
    ids, last = batch["input_ids"].clone(), batch["attention_mask"].sum(dim=-1) - 1
    ids[:, 0] = CLS
    ids[torch.arange(len(ids)), last] = SEP
    return {**batch, "input_ids": ids}


def step(
    model: nn.Module, batch: Mapping[str, Tensor], plan: Plan, swaps: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Logits, loss and gradient of a mixed step where the model is; `swaps` has the ids that SSMix takes."""
    device = model.device
    batch = {name: values.to(device) for name, values in batch.items()}
    labels, plan = torch.tensor(LABELS, device=device), plan.to(device)
    objective, found = Objective("single_label_classification"), {}

    def loss_of(inputs: Mapping[str, Tensor], mixup: Plan) -> Tensor:
        outputs = model(**inputs, mixup=mixup)
        found["logits"] = outputs.logits
        return weighted_mean(*objective(outputs.logits, labels, mixup, outputs.label_weight))

    if isinstance(plan, SpanPlan):
        ids = batch["input_ids"]
        tap = torch.zeros(*ids.shape, model.config.hidden_size, device=device, requires_grad=True)
        clean = loss_of(batch, plan.tapped(tap))
        clean.backward()
        found["ids"], plan = plan.swapped(ids, batch["attention_mask"], tap.grad)
        mixed = loss_of({**batch, "input_ids": (swaps or found)["ids"].to(device)}, plan)
        mixed.backward()
        loss = clean + mixed
    else:
        loss = loss_of(batch, plan)
        loss.backward()
    return {**found, "loss": loss.reshape(1), "gradient": gradient_of(model)}
