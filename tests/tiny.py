"""Tiny random models of each family, with tokenizers trained on a few sentences; nothing here needs a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AlbertConfig,
    BertConfig,
    BertTokenizerFast,
    CamembertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    LlamaConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
    RobertaTokenizerFast,
    XLMRobertaConfig,
    set_seed,
)
from transformers.utils import is_datasets_available

from hf_mixup.modeling.auto import MODELS

if TYPE_CHECKING:
    from datasets import Dataset

SENTENCES = [
    "the quick brown fox jumps over the lazy dog",
    "a film of great beauty and little sense",
    "where is the city that never sleeps",
    "how many people live in the largest country",
    "please cancel my order and send the money back",
    "the company said its profit rose by ten percent",
    "who wrote the first book about the moon",
    "this is a dull, slow and humourless comedy!",
]

NUM_LAYERS = 3
VOCABULARY = 90
# The families of most tests; the others differ in their modules alone and have the conformance tests of
# tests/modeling/test_families.py.
FAMILIES = ("bert", "roberta", "distilbert")
CONFIGS = {
    "albert": AlbertConfig,
    "bert": BertConfig,
    "camembert": CamembertConfig,
    "deberta-v2": DebertaV2Config,
    "distilbert": DistilBertConfig,
    "electra": ElectraConfig,
    "gpt2": GPT2Config,
    "llama": LlamaConfig,
    "modernbert": ModernBertConfig,
    "mpnet": MPNetConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "roberta": RobertaConfig,
    "xlm-roberta": XLMRobertaConfig,
}
MIXUP_CLASSES = MODELS
PARENTS = {family: model_class.parent_class for family, model_class in MODELS.items()}
PAD = dict.fromkeys(CONFIGS, 0) | dict.fromkeys(("camembert", "mpnet", "roberta", "xlm-roberta"), 1)
# What a configuration calls the probabilities of dropout, and what else a family needs to be tiny.
DROPOUTS = {
    "distilbert": ("dropout", "attention_dropout", "seq_classif_dropout"),
    "gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    "llama": ("attention_dropout",),
    "modernbert": ("attention_dropout", "embedding_dropout", "mlp_dropout", "classifier_dropout"),
    "qwen2": ("attention_dropout",),
    "qwen3": ("attention_dropout",),
}
OPTIONS = {
    "albert": {"embedding_size": 16, "classifier_dropout_prob": 0.0},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
    "distilbert": {"hidden_dim": 64},
    "electra": {"embedding_size": 16},
    "gpt2": {"n_inner": 64, "bos_token_id": 2, "eos_token_id": 3},
    "llama": {"num_key_value_heads": 2, "bos_token_id": 2, "eos_token_id": 3},
    "modernbert": {"local_attention": 6, "global_attn_every_n_layers": 2, "initializer_cutoff_factor": 2.0}
    | {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3},
    "qwen2": {"num_key_value_heads": 2, "bos_token_id": 2, "eos_token_id": 3},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 2, "eos_token_id": 3},
}


# Upstream computes the attention of these by itself.
EAGER_ONLY = ("deberta-v2", "mpnet")


def tiny_config(family: str, num_labels: int = 3, dropout: float = 0.1, vocab_size: int = VOCABULARY, **options):
    """Three blocks of width 32; the initial weights are large enough that every difference shows in the logits."""
    dropouts = DROPOUTS.get(family, ("hidden_dropout_prob", "attention_probs_dropout_prob"))
    sizes = {"num_hidden_layers": NUM_LAYERS, "hidden_size": 32, "num_attention_heads": 4}
    if "distilbert" == family:
        sizes = {"n_layers": NUM_LAYERS, "dim": 32, "n_heads": 4}
    return CONFIGS[family](
        **sizes,
        **({} if "hidden_dim" in OPTIONS.get(family, {}) or family == "gpt2" else {"intermediate_size": 64}),
        **{
            "vocab_size": vocab_size,
            "max_position_embeddings": 64 if family == "distilbert" else 66,
            "initializer_range": 0.2,
            "num_labels": num_labels,
            "pad_token_id": PAD[family],
            **OPTIONS.get(family, {}),
            **dict.fromkeys(dropouts, dropout),
            **options,
        },
    )


def tiny_model(family: str, seed: int = 0, mixup: bool = True, attention: str = "sdpa", **options):
    """A random model, in training mode."""
    set_seed(seed)
    if family in EAGER_ONLY:
        attention = "eager"
    config = tiny_config(family, attn_implementation=attention, **options)
    return (MIXUP_CLASSES if mixup else PARENTS)[family](config)


def tiny_batch(family: str, rows: int = 5, length: int = 9, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random token ids, right-padded to different lengths."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(3, length + 1, rows)
    lengths[0] = length
    ids = generator.integers(5, VOCABULARY, (rows, length))
    mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
    ids = np.where(mask == 1, ids, PAD[family])
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


def tiny_dataset(rows: int = 37, num_labels: int = 3, length: int = 9, seed: int = 0, **columns) -> Dataset | list:
    """Random rows of equal length with a `label` column; more columns replace or add to these.

    Where the package `datasets` is not installed, they are a list of rows.
    """
    generator = np.random.default_rng(seed)
    data = {
        "input_ids": generator.integers(5, VOCABULARY, (rows, length)).tolist(),
        "attention_mask": [[1] * length] * rows,
        "label": generator.integers(0, num_labels, rows).tolist(),
    }
    data |= columns
    if not is_datasets_available():
        return [dict(zip(data, row, strict=True)) for row in zip(*data.values(), strict=True)]
    from datasets import Dataset

    return Dataset.from_dict(data)


def same_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    """Whether two models have the same parameters, bit for bit, under the same names in the same order."""
    one, two = first.state_dict(), second.state_dict()
    return list(one) == list(two) and all(torch.equal(one[name], two[name]) for name in one)


def wordpiece_tokenizer(**options) -> PreTrainedTokenizerFast:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(SENTENCES, trainers.WordPieceTrainer(vocab_size=400, special_tokens=specials))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    return BertTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **options)


def bpe_tokenizer() -> PreTrainedTokenizerFast:
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(
            vocab_size=500, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        ),
    )
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return RobertaTokenizerFast(tokenizer_object=tokenizer, model_max_length=64)


def save_base_model(folder: Path, family: str, model_class: type, tokenizer: PreTrainedTokenizerFast) -> str:
    set_seed(0)
    model_class(tiny_config(family, vocab_size=len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
