"""Mixed forward passes written out from the equations: loops over blocks, heads and rows, and plain matrix products.

Nothing here comes from the library, and of transformers only the weights and the embedding module are used.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def mix_rows(states: Tensor, partner: list[int], weight: float | Tensor) -> Tensor:
    """w x_i + (1 - w) x_partner(i), row by row; weight is one number, or one a row."""
    rows = []
    for i, j in enumerate(partner):
        w = weight if isinstance(weight, float) else weight[i]
        rows.append(w * states[i] + (1 - w) * states[j])
    return torch.stack(rows)


def attend(hidden: Tensor, visible: Tensor, query: nn.Linear, key: nn.Linear, value: nn.Linear, heads: int) -> Tensor:
    """Multi-head attention with the heads concatenated, before the dense layer; visible is [batch, length] bool."""
    outputs = []
    for i in range(hidden.shape[0]):
        q, k, v = (F.linear(hidden[i], m.weight, m.bias).chunk(heads, dim=-1) for m in (query, key, value))
        row = []
        for head in range(heads):
            scores = q[head] @ k[head].T / math.sqrt(q[head].shape[-1])
            scores[:, ~visible[i]] = -math.inf
            row.append(torch.softmax(scores, dim=-1) @ v[head])
        outputs.append(torch.cat(row, dim=-1))
    return torch.stack(outputs)


def norm(states: Tensor, module: nn.LayerNorm) -> Tensor:
    return F.layer_norm(states, states.shape[-1:], module.weight, module.bias, module.eps)


def linear(states: Tensor, module: nn.Linear) -> Tensor:
    return states @ module.weight.T + module.bias


def forward(
    family: str,
    model: nn.Module,
    batch: dict[str, Tensor],
    partner: list[int],
    weight: float | list[float] | Tensor,
    site: str,
    layers: tuple[int, ...] = (),
    mask_policy: str = "own",
) -> Tensor:
    """The logits of a mixed batch, dropout off."""
    own = batch["attention_mask"].bool()
    theirs = own[torch.tensor(partner)]
    mixed_mask = {"own": own, "union": own | theirs, "intersection": own & theirs}[mask_policy]
    base = getattr(model, family)
    words = base.embeddings.word_embeddings(batch["input_ids"])
    blocks = base.transformer.layer if family == "distilbert" else base.encoder.layer
    mixed_yet = False

    def at(name: str, number: int, states: Tensor) -> Tensor:
        nonlocal mixed_yet
        if site == name and (number in layers or not layers):
            mixed_yet = True
            return mix_rows(states, partner, weight)
        return states

    hidden = _embed(family, base.embeddings, at("word_embeddings", 0, words), batch["input_ids"])
    hidden = at("embeddings", 0, hidden)
    hidden = at("hidden", 0, hidden)
    for number, block in enumerate(blocks, start=1):
        visible = mixed_mask if mixed_yet else own
        hidden = _BLOCKS[family](block, number, hidden, visible, at)
    pooled = at("pooled", 0, _pooled(family, model, hidden))
    classifier = model.classifier.out_proj if family == "roberta" else model.classifier
    return at("logits", 0, linear(pooled, classifier))


def _embed(family: str, module: nn.Module, words: Tensor, ids: Tensor) -> Tensor:
    """Words, positions and types, then LayerNorm; RoBERTa counts positions from 2 on, over the tokens alone."""
    positions = torch.arange(ids.shape[1]).expand(ids.shape)
    if family == "roberta":
        positions = torch.where(ids != 1, positions + 2, 1)
    states = words + module.position_embeddings.weight[positions]
    if family != "distilbert":
        states = states + module.token_type_embeddings.weight[0]
    return norm(states, module.LayerNorm)


def _bert_block(block: nn.Module, number: int, hidden: Tensor, visible: Tensor, at: Callable) -> Tensor:
    heads = block.attention.self
    attention = attend(hidden, visible, heads.query, heads.key, heads.value, heads.num_attention_heads)
    attention = at("attention", number, attention)
    output = block.attention.output
    attended = at("attention_block", number, norm(linear(attention, output.dense) + hidden, output.LayerNorm))
    inner = F.gelu(linear(attended, block.intermediate.dense))
    return at("hidden", number, norm(linear(inner, block.output.dense) + attended, block.output.LayerNorm))


def _distilbert_block(block: nn.Module, number: int, hidden: Tensor, visible: Tensor, at: Callable) -> Tensor:
    heads = block.attention
    attention = attend(hidden, visible, heads.q_lin, heads.k_lin, heads.v_lin, heads.n_heads)
    # As in BERT, the heads are mixed before the dense layer that ends the attention.
    attention = linear(at("attention", number, attention), heads.out_lin)
    attended = at("attention_block", number, norm(attention + hidden, block.sa_layer_norm))
    inner = F.gelu(linear(attended, block.ffn.lin1))
    return at("hidden", number, norm(linear(inner, block.ffn.lin2) + attended, block.output_layer_norm))


_BLOCKS = {"bert": _bert_block, "roberta": _bert_block, "distilbert": _distilbert_block}


def _pooled(family: str, model: nn.Module, hidden: Tensor) -> Tensor:
    first = hidden[:, 0]
    if family == "bert":
        return torch.tanh(linear(first, model.bert.pooler.dense))
    if family == "roberta":
        return torch.tanh(linear(first, model.classifier.dense))
    return torch.relu(linear(first, model.pre_classifier))


def pairwise_loss(logits: Tensor, labels: list[int], partner: list[int], weights: list[float]) -> Tensor:
    """The mean over the rows of w CE(y_i) + (1 - w) CE(y_partner(i)), from the definition of the cross-entropy."""
    total = torch.zeros((), dtype=logits.dtype)
    for i, (j, w) in enumerate(zip(partner, weights, strict=True)):
        log_probabilities = logits[i] - torch.log(torch.exp(logits[i]).sum())
        total = total - w * log_probabilities[labels[i]] - (1 - w) * log_probabilities[labels[j]]
    return total / len(partner)


def attention_ratios(attentions: Tensor, tokens: Tensor, partner: list[int]) -> tuple[Tensor, list[float]]:
    """AttentionMix's ratio of each token and label weight of each row, from one head's `[batch, length, length]`."""
    rows, length = tokens.shape
    relevance, ratios, label_weights = [], [], []
    for i in range(rows):
        count = int(tokens[i].sum())
        received = [attentions[i, :count, t].sum().item() if tokens[i, t] else 0.0 for t in range(length)]
        relevance.append([value / sum(received) for value in received])
    for i, j in enumerate(partner):
        either = [t for t in range(length) if tokens[i, t] or tokens[j, t]]
        row = [0.5] * length
        for t in either:
            row[t] = relevance[i][t] / (relevance[i][t] + relevance[j][t])
        ratios.append(row)
        label_weights.append(sum(row[t] for t in either) / len(either))
    return torch.tensor(ratios), label_weights


def read_by_classifier(family: str, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, nn.Linear]:
    """What the last linear layer reads, found by a hook on that layer, and the layer."""
    seen = []
    layer = model.classifier.out_proj if family == "roberta" else model.classifier
    handle = layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(**batch)
    handle.remove()
    return seen[0], layer


def weighted_terms(
    logits: Tensor,
    labels: list[int],
    partner: list[int],
    share: list[float] | Tensor,
    class_weights: tuple[float, ...],
) -> tuple[Tensor, float]:
    """The sum of the two terms of all rows, each times the weight of its class, and the sum of these weights.

    A term whose label is -100 is left out of both.
    """
    loss, weight = torch.zeros(()), 0.0
    for i, j in enumerate(partner):
        log_probabilities = torch.log_softmax(logits[i], dim=0)
        for label, part in ((labels[i], share[i]), (labels[j], 1 - share[i])):
            if label != -100:
                loss = loss - part * class_weights[label] * log_probabilities[label]
                weight += float(part) * class_weights[label]
    return loss, weight
