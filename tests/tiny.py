"""Tiny random models of each family, with tokenizers trained on a few sentences; nothing here needs a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaTokenizerFast,
    set_seed,
)

from hf_mixup import (
    MixupBertForSequenceClassification,
    MixupDistilBertForSequenceClassification,
    MixupRobertaForSequenceClassification,
)

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

PARENTS = {
    "bert": BertForSequenceClassification,
    "roberta": RobertaForSequenceClassification,
    "distilbert": DistilBertForSequenceClassification,
}
MIXUP_CLASSES = {
    "bert": MixupBertForSequenceClassification,
    "roberta": MixupRobertaForSequenceClassification,
    "distilbert": MixupDistilBertForSequenceClassification,
}
FAMILIES = tuple(PARENTS)
NUM_LAYERS = 3
VOCABULARY = 90
PAD = {"bert": 0, "roberta": 1, "distilbert": 0}


def tiny_config(family: str, num_labels: int = 3, dropout: float = 0.1, vocab_size: int = VOCABULARY, **options):
    """Three blocks of width 32; the initial weights are large enough that every difference shows in the logits."""
    if family == "distilbert":
        return DistilBertConfig(
            n_layers=NUM_LAYERS,
            dim=32,
            n_heads=4,
            hidden_dim=64,
            vocab_size=vocab_size,
            max_position_embeddings=64,
            dropout=dropout,
            attention_dropout=dropout,
            seq_classif_dropout=dropout,
            initializer_range=0.2,
            num_labels=num_labels,
            **options,
        )
    config_class = {"bert": BertConfig, "roberta": RobertaConfig}[family]
    return config_class(
        num_hidden_layers=NUM_LAYERS,
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=64,
        vocab_size=vocab_size,
        max_position_embeddings=66,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.2,
        num_labels=num_labels,
        pad_token_id=PAD[family],
        **options,
    )


def tiny_model(family: str, seed: int = 0, mixup: bool = True, attention: str = "sdpa", **options):
    """A random model, in training mode."""
    set_seed(seed)
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


def tiny_dataset(rows: int = 37, num_labels: int = 3, length: int = 9, seed: int = 0, **columns) -> Dataset:
    """Random rows of equal length with a `label` column; more columns replace or add to these."""
    generator = np.random.default_rng(seed)
    data = {
        "input_ids": generator.integers(5, VOCABULARY, (rows, length)).tolist(),
        "attention_mask": [[1] * length] * rows,
        "label": generator.integers(0, num_labels, rows).tolist(),
    }
    return Dataset.from_dict({**data, **columns})


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
