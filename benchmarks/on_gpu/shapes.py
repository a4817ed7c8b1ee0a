"""Two steps of models that users train, by their shape and with random weights, in bfloat16."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import step_time
import torch
from transformers import BertConfig, ModernBertConfig, PreTrainedConfig, PreTrainedModel, Qwen3Config, set_seed

from hf_mixup import AutoMixupModelForSequenceClassification
from on_gpu.setting import Check, Number, Setting
from tests.tiny import tiny_dataset, wordpiece_tokenizer
from tests.trainer.runs import STRONG, logged, train

LARGE = {"num_hidden_layers": 24, "hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}
QWEN = {**LARGE, "num_hidden_layers": 28, "intermediate_size": 3072, "vocab_size": 151936}
SMALL = {**step_time.SHAPES["small"], "vocab_size": 1000}
# The defaults of ModernBertConfig are those of ModernBERT-base.
SHAPES = {
    "BERT-large": (BertConfig, LARGE, {}),
    "ModernBERT-base": (ModernBertConfig, {}, {}),
    "Qwen3-0.6B": (Qwen3Config, QWEN, {"num_key_value_heads": 8, "head_dim": 128}),
}
METHODS = {"amplify": STRONG, "ssmix": {"mixup_method": "ssmix"}}
IDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}


def checks(setting: Setting) -> dict[str, Check]:
    """One pass and two passes of each; on a CPU small models of the same classes."""
    return {
        f"{method} on {name if setting.cuda else f'a small {name}'}": partial(steps, setting, name, method)
        for name in SHAPES
        for method in METHODS
    }


def config_of(setting: Setting, name: str) -> PreTrainedConfig:
    kind, sizes, own = SHAPES[name]
    return kind(**(sizes | own if setting.cuda else SMALL | (own and {"num_key_value_heads": 2})), num_labels=3, **IDS)


@cache
def model_of(setting: Setting, name: str) -> PreTrainedModel:
    """A random model, which takes a while to make: all methods train the same one."""
    set_seed(0)
    return AutoMixupModelForSequenceClassification.from_config(config_of(setting, name))


def steps(setting: Setting, name: str, method: str) -> dict[str, Any]:
    """Two updates with finite losses that change the weights, and the memory that they take."""
    model = model_of(setting, name)
    # The weights of the classifier stand for all of them.
    *_, classifier = (each for each in model.parameters() if each.ndim == 2)
    before = classifier.detach().cpu().clone()
    if setting.cuda:
        torch.cuda.reset_peak_memory_stats()
    length = 128 if setting.cuda else 24
    trainer = train(
        setting.folder("shapes"),
        model,
        dataset=tiny_dataset(rows=32, length=length),
        trainer_options={"processing_class": wordpiece_tokenizer()},
        max_steps=2,
        bf16=True,
        **setting.training,
        **METHODS[method],
    )
    finite = torch.tensor(logged(trainer, "loss")).isfinite().all().item()
    found = {
        "losses that are not finite": Number(not finite, 0),
        "weights that stayed": Number(torch.equal(classifier.detach().cpu(), before), 0),
        "millions of weights": model.num_parameters() / 1e6,
    }
    if setting.cuda:
        found["GiB at the peak"] = torch.cuda.max_memory_allocated() / 2**30
    return found
