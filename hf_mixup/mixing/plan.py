"""What one step mixes, where and how much: plans are data, made once per micro-batch and only read afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hf_mixup.mixing.attention import mean_over_tokens, token_ratio
from hf_mixup.mixing.checks import (
    can_read,
    check_choice,
    check_flag,
    check_inner_share,
    check_type,
    check_whole,
    plain_in_any_order,
)
from hf_mixup.mixing.spans import gradient_saliency, own_share, segment_numbers, swap_spans

SITES = ("input_ids", "word_embeddings", "embeddings", "hidden", "attention", "attention_block", "pooled", "logits")
LAYER_SITES = ("hidden", "attention", "attention_block")
TOKEN_SITES = ("word_embeddings", "embeddings", *LAYER_SITES)
ATTENTION_MASKS = ("own", "union", "intersection")


class StepKey(NamedTuple):
    """Names one micro-batch of one training run; everything random about its mixing follows from it.

    Args:
        seed: the run's seed, >= 0.
        rank: the process, so that processes draw differently.
        step: the optimizer step (`TrainerState.global_step`).
        micro: the micro-batch within the step, 0 without gradient accumulation.

    Example:
        >>> StepKey(seed=42, rank=0, step=7).generator().integers(10, size=3).tolist()
        [1, 2, 4]
    """

    seed: int
    rank: int = 0
    step: int = 0
    micro: int = 0

    def generator(self) -> np.random.Generator:
        """A fresh generator: the same key always draws the same numbers, whatever was drawn before."""
        for name, value in self._asdict().items():
            check_whole(name, value, lowest=0)
        return np.random.default_rng([self.seed, self.rank, self.step, self.micro])


class AttentionProbe(NamedTuple):
    """Whose attention sets the weight of each token.

    Args:
        layer: the block, 1..N.
        head: the head, from 0; None averages over the heads.
    """

    layer: int
    head: int | None


@dataclass(frozen=True, eq=False)
class PairPlan:
    r"""Row `i` of the batch is mixed with row `partner[i]`: $\tilde h_i = w_i h_i + (1 - w_i) h_{partner(i)}$.

    Args:
        partner: `[batch]` int64, a permutation of the rows; features and labels both read it.
        site: where to mix. `"word_embeddings"` (before positions, types and LayerNorm are added), `"embeddings"`
            (output of the embedding module), `"hidden"` (output of block k, 0 being the embedding output),
            `"attention"` (self-attention output), `"attention_block"` (after its dense, dropout, residual and
            LayerNorm), `"pooled"` (what the last linear layer reads) or `"logits"`.
        weight: the own row's share $w$ in [0, 1], floating point: a scalar `[]`, `[batch, 1, 1]` per row,
            `[batch, length, 1]` per token or `[batch, 1, hidden]` per feature; None with a probe.
        layers: for the sites `hidden` (0..N), `attention` and `attention_block` (1..N): the blocks to mix in, counted
            as in `output_hidden_states` (0 is the embedding output, k is block k).
        drawn: `[]` int64, the one of `layers` that mixes this batch, in the others the weight is 1; being data, it may
            change without a compiled model being compiled anew. None: all of `layers` mix.
        label_weight: `[batch]`, the own label's share in the loss. Default: `weight`, where that is one number per
            row or per batch.
        attention_mask: the positions that attention sees once rows are mixed: the row's `"own"`, the `"union"` of
            both rows', or their `"intersection"`.
        clean_weight: train the clean rows along: the forward pass gives `[2 * batch, ...]`, the clean rows first, from
            the first mixed site on, and their loss counts with this weight in (0, 1), that of the mixed rows with the
            rest. None: mixed rows only.
        probe: read the weight of each token, and from it the label weights, off the model's attention, at the top of
            its forward pass.
        inverse: `[batch]`, the inverse permutation (the backward pass gathers with it); computed if not given.
        drawn_layer: `drawn` as a number of the host, with which a forward pass that is not compiled leaves out the
            mixes of weight 1.

    Raises:
        ValueError: unknown site or mask policy, layers missing or not fitting the site, wrong shapes.

    Example:
        >>> plan = PairPlan(partner=torch.tensor([1, 0]), weight=torch.tensor(0.75), site="pooled")
        >>> plan.mix(torch.tensor([[0.0], [4.0]]), "pooled")
        tensor([[1.],
                [3.]])
    """

    partner: Tensor
    weight: Tensor | None
    site: str
    layers: tuple[int, ...] = ()
    drawn: Tensor | None = None
    label_weight: Tensor | None = None
    attention_mask: str = "own"
    clean_weight: float | None = None
    probe: AttentionProbe | None = None
    inverse: Tensor | None = None
    drawn_layer: int | None = None

    def __post_init__(self) -> None:
        # No field: torch.distributed makes anew the dataclasses among a module's inputs, field by field.
        object.__setattr__(self, "_masks", [])
        object.__setattr__(self, "_halves", {})
        if torch.compiler.is_compiling() and self.inverse is not None:
            # Inside a compiled frame a plan is made of one that was checked, and the checks would break the frame.
            return
        _check_partner(self.partner)
        check_choice("site", self.site, SITES[1:])
        check_choice("attention_mask", self.attention_mask, ATTENTION_MASKS)
        object.__setattr__(self, "layers", _blocks(self.layers))
        if self.site in ("word_embeddings", "embeddings") and not self.layers:
            object.__setattr__(self, "layers", (0,))
        self._check_layers()
        if self.drawn is not None:
            self._check_drawn()
        elif self.drawn_layer is not None:
            raise ValueError(f"drawn_layer={self.drawn_layer!r} stands beside drawn: give both, or neither.")
        if self.clean_weight is not None:
            check_inner_share("clean_weight", self.clean_weight)
        if (self.weight is None) != (self.probe is not None):
            raise ValueError("A plan has either a weight or a probe that finds it: give one of the two.")
        if self.probe is not None:
            _check_probe(self.probe)
        if self.inverse is None:
            object.__setattr__(self, "inverse", torch.argsort(self.partner))
        else:
            _check_inverse(self.inverse, self.partner)
        if self.weight is not None:
            self._check_weight(self.rows)

    @property
    def rows(self) -> int:
        """The number of rows of the batch."""
        return self.partner.shape[0]

    def _check_layers(self) -> None:
        for layer in self.layers:
            check_whole("layer", layer, lowest=0)
        lowest = {"hidden": 0, "attention": 1, "attention_block": 1}.get(self.site)
        if lowest is None:
            fits = self.layers == ((0,) if self.site in TOKEN_SITES else ())
        else:
            fits = bool(self.layers) and min(self.layers) >= lowest
        if not fits:
            raise ValueError(
                f"layers={self.layers} does not fit site={self.site!r}: hidden takes blocks from 0, attention and "
                "attention_block from 1, each at least one; the other sites take none."
            )

    def _check_drawn(self) -> None:
        check_type("drawn", self.drawn, Tensor, "an int64 tensor [], such as torch.tensor(4)")
        if self.drawn.ndim or self.site not in LAYER_SITES:
            raise ValueError(
                f"drawn of shape {list(self.drawn.shape)} does not fit site={self.site!r}: give one number, at the "
                "sites that have layers."
            )
        if self.drawn.dtype != torch.int64:
            raise ValueError(f"drawn of {self.drawn.dtype} is no block: give an int64 tensor, as torch.tensor(4) is.")
        if self.drawn_layer is not None:
            check_whole("drawn_layer", self.drawn_layer, lowest=0)
        if can_read(self.drawn):
            drawn = int(self.drawn)
            if drawn not in self.layers or self.drawn_layer not in (None, drawn):
                raise ValueError(
                    f"drawn={drawn} and drawn_layer={self.drawn_layer} do not fit layers={self.layers}: give one of "
                    "the layers, the same twice."
                )

    def _check_weight(self, rows: int) -> None:
        _check_shares("weight", self.weight)
        shape = tuple(self.weight.shape)
        per_row = shape in ((), (rows, 1, 1))
        fits_site = self.site in TOKEN_SITES or shape[1:2] in ((), (1,))
        if not per_row and not (fits_site and len(shape) == 3 and shape[0] == rows and 1 in shape[1:]):
            raise ValueError(
                f"weight of shape {list(shape)} does not fit site={self.site!r} with {rows} rows: allowed are [], "
                "[batch, 1, 1], [batch, 1, hidden] and, where there are tokens, [batch, length, 1]."
            )
        if self.label_weight is None:
            if not per_row:
                raise ValueError("label_weight must be given when weight is per token or per feature.")
            object.__setattr__(self, "label_weight", self.weight.reshape(-1).expand(rows))
            return
        _check_shares("label_weight", self.label_weight)
        if tuple(self.label_weight.shape) != (rows,):
            raise ValueError(f"label_weight must have shape [{rows}], got {list(self.label_weight.shape)}.")

    def to(self, device: torch.device | str) -> PairPlan:
        """The same plan on another device."""
        return _moved(self, device)

    def skip_padding(self, attention_mask: Tensor) -> PairPlan:
        """The same plan, mixing a position only where both rows have a token.

        Args:
            attention_mask: `[batch, length]`, nonzero where there is a token.

        Raises:
            TypeError, ValueError: it is no tensor of that shape, or the plan has no weight yet.
        """
        check_type("attention_mask", attention_mask, Tensor, "a tensor [batch, length]")
        if attention_mask.ndim != 2 or len(attention_mask) != self.rows:
            raise ValueError(
                f"attention_mask of shape {list(attention_mask.shape)} does not fit a plan for {self.rows} rows: give "
                "a tensor [batch, length]."
            )
        if self.weight is None:
            raise ValueError("A plan with a probe has no weight to skip padding with: give the plan a weight.")
        tokens = attention_mask.bool()
        both = (tokens & tokens.index_select(0, self.partner)).unsqueeze(-1)
        return replace(self, weight=torch.where(both, self.weight, 1.0))

    def probed(self, relevance: Tensor, tokens: Tensor) -> PairPlan:
        """The same plan with the weights that its probe found.

        Args:
            relevance: `[batch, length]`, how much attention each token receives.
            tokens: `[batch, length]` bool, True where there is a token.
        """
        ratio = token_ratio(relevance, self.partner)
        label_weight = mean_over_tokens(ratio, tokens, self.partner)
        return replace(self, weight=ratio.unsqueeze(-1), label_weight=label_weight, probe=None)

    def mix(self, states: Tensor, site: str, layer: int = 0) -> Tensor:
        """`states` mixed with their partners' if this plan mixes `site` at `layer`, else `states` itself.

        Args:
            states: `[batch, length, hidden]`, or `[batch, features]` for the sites `pooled` and `logits`.
            site: the site this call stands at.
            layer: the block this call stands in, for the sites that have layers.

        Raises:
            TypeError, ValueError: an unknown site; states that are no tensor or have other rows than the plan; weights
                for another number of tokens or features than the states have.
        """
        check_choice("site", site, SITES)
        if site != self.site or (self.layers and layer not in self.layers):
            return states
        _check_rows(states, self.rows, may_be_twice=self.clean_weight is not None)
        known = self._known_layer()
        if known not in (None, layer) and self.clean_weight is None:
            # Where clean rows are trained along, they and the mixed ones part at the first of the layers.
            return states
        weight = self.weight if self.weight.ndim <= states.ndim else self.weight.squeeze(1)
        if any(size not in (1, states.shape[axis]) for axis, size in enumerate(weight.shape[1:], start=1)):
            raise ValueError(
                f"The plan has weights for {list(weight.shape[1:])} of each row, but the states at {site} are "
                f"{list(states.shape[1:])}: draw the plan from this batch and for this model."
            )
        if self.drawn is not None and known != layer:
            weight = torch.where(self.drawn == layer, weight, 1.0)
        rows = self.rows
        clean, mixed = (states[:rows], states[rows:]) if states.shape[0] > rows else (states, states)
        halves = self._half_shares(mixed.dtype) if weight is self.weight else None
        if halves is None:
            mixed = mix(mixed, self.partner, weight, self.inverse)
        else:
            mixed = _Mix.apply(mixed, self.partner, self.inverse, *halves)
        return mixed if self.clean_weight is None else torch.cat([clean, mixed])

    def enter_block(self, hidden_states: Tensor, mask: Tensor | None, layer: int) -> tuple[Tensor, Tensor | None]:
        """What block `layer` reads: its input, with the clean rows beside those to be mixed, and its attention mask.

        The input of block 1 is the embeddings, mixed here if the plan mixes them.

        Args:
            hidden_states: `[batch, length, hidden]`, or twice the rows once clean and mixed rows went apart.
            mask: `[batch, ...]` of bool or int (nonzero = visible), or of floats to be added (0 = visible); None when
                nothing is hidden.
            layer: the block, 1..N.
        """
        if layer == 1:
            hidden_states = self.mix(self.mix(hidden_states, "embeddings"), "hidden", 0)
        mixes_inside = self.site in ("attention", "attention_block") and layer == min(self.layers)
        if self.clean_weight is not None and mixes_inside:
            hidden_states = torch.cat([hidden_states, hidden_states])
        if mask is None:
            return hidden_states, None
        # Where the word embeddings were mixed, the mask comes with clean and mixed rows already.
        mixed_mask = self._mixed_mask(mask, layer)
        apart = hidden_states.shape[0] > self.rows
        return hidden_states, torch.cat([mask[: self.rows], mixed_mask]) if apart else mixed_mask

    def mask_after(self, mask: Tensor, layer: int) -> Tensor:
        """Which positions attention sees after block `layer` (0: after the embeddings), of clean and mixed rows.

        Args:
            mask: `[batch, length]`, nonzero where there is a token.
        """
        mixed = self._mixed_mask(mask, layer + 1)
        return mixed if self.clean_weight is None or self.site not in TOKEN_SITES else torch.cat([mask, mixed])

    def _mixed_mask(self, mask: Tensor, layer: int) -> Tensor:
        """The mask of mixed rows: the policy's, once something was mixed before the attention of the block."""
        own = mask[-self.rows :]
        if self.attention_mask == "own" or not self.layers or min(self.layers) >= layer:
            return own
        known = self._known_layer()
        if known is not None:
            return self._joined_mask(mask) if known < layer else own
        joined = self._joined_mask(mask)
        return joined if self.drawn is None else torch.where(self.drawn < layer, joined, own)

    def _half_shares(self, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        """Both shares in half precision, rounded apart, if there is one weight and states are less precise than it.

        Once for all blocks, forward and backward: each time they take as many kernels as the mix.
        """
        weight = self.weight
        if torch.compiler.is_compiling() or weight.ndim or weight.requires_grad or dtype.itemsize >= weight.itemsize:
            return None
        if dtype not in self._halves:
            self._halves[dtype] = weight.to(dtype), (1 - weight).to(dtype)
        return self._halves[dtype]

    def _known_layer(self) -> int | None:
        """The drawn layer where the host may decide by it: compiled code must not depend on a number that changes."""
        return None if torch.compiler.is_compiling() else self.drawn_layer

    def _joined_mask(self, mask: Tensor) -> Tensor:
        """The union or intersection of the rows' masks and their partners'; once for all blocks of an encoder."""
        # A compiler finds what is computed twice by itself, and would have to give a memo back with the output.
        memo = [] if torch.compiler.is_compiling() else self._masks
        for known, joined in memo:
            if known is mask:
                return joined
        own = mask[-self.rows :]
        partners = own.index_select(0, self.partner)
        union = self.attention_mask == "union"
        if mask.is_floating_point():
            joined = torch.maximum(own, partners) if union else torch.minimum(own, partners)
        else:
            joined = own | partners if union else own & partners
        memo.append((mask, joined))
        return joined


@dataclass(frozen=True, eq=False)
class BatchPlan:
    r"""Every mixed row is a weighted mean of the whole batch: $\tilde h_i = \sum_b w_{i,b} h_b$.

    Args:
        weights: `[points, batch]`, or `[points, batch, hidden]` with a weight for every feature; each sums to 1 over
            the batch.
        site: `"pooled"` (what the last linear layer reads) or, without weights per feature, `"logits"`.
        dot_product: score each mixed vector against the equally mixed rows of the classifier, instead of classifying
            it: the model's logits are then `[points, batch, classes]`, to be picked by each row's label and summed.

    Raises:
        ValueError: an unknown site, or weights of another shape.

    Example:
        >>> plan = BatchPlan(torch.tensor([[0.5, 0.25, 0.25]]), "pooled")
        >>> plan.mix(torch.tensor([[0.0], [4.0], [8.0]]), "pooled")
        tensor([[3.]])
    """

    weights: Tensor
    site: str = "pooled"
    dot_product: bool = False

    # What a pair plan has and this has not: a partner's label, clean rows, an open question to the model.
    label_weight = None
    clean_weight = None
    layers = ()
    probe = None

    def __post_init__(self) -> None:
        check_choice("site", self.site, ("pooled", "logits"))
        check_flag("dot_product", self.dot_product)
        _check_shares("weights", self.weights)
        if self.weights.ndim not in (2, 3) or (self.weights.ndim == 3 and self.site == "logits"):
            raise ValueError(
                f"weights of shape {list(self.weights.shape)} do not fit site={self.site!r}: allowed are "
                "[points, batch] and, at pooled, [points, batch, hidden]."
            )
        if can_read(self.weights) and not torch.allclose(self.weights.sum(dim=1), torch.ones(()).to(self.weights)):
            raise ValueError("The weights of a point must sum to 1 over the batch: divide them by their sum.")

    @property
    def rows(self) -> int:
        """The number of rows of the batch."""
        return self.weights.shape[1]

    def to(self, device: torch.device | str) -> BatchPlan:
        """The same plan on another device."""
        return _moved(self, device)

    def mix(self, states: Tensor, site: str, layer: int = 0) -> Tensor:
        """`[batch, features]` as `[points, features]` if this plan mixes `site`, else `states` itself."""
        check_choice("site", site, SITES)
        if site != self.site:
            return states
        _check_rows(states, self.rows)
        weights = self.weights.to(states.dtype)
        return weights @ states if weights.ndim == 2 else torch.einsum("pbh,bh->ph", weights, states)

    def enter_block(self, hidden_states: Tensor, mask: Tensor | None, layer: int) -> tuple[Tensor, Tensor | None]:
        """What block `layer` reads: nothing is mixed before the pooled vector."""
        return hidden_states, mask

    def mask_after(self, mask: Tensor, layer: int) -> Tensor:
        """Which positions attention sees: the rows' own."""
        return mask


@dataclass(frozen=True, eq=False)
class SpanPlan:
    """A step of two passes: the clean rows, which show the saliency of their tokens, then rows with swapped spans.

    Args:
        partner: `[batch]` int64.
        special_ids: `[specials]`, the ids that no span may contain.
        window: the share of a segment that is swapped.
        clean_weight: the weight of the clean rows in the loss, in (0, 1); the mixed rows have the rest.
        tap: `[batch, length, hidden]`, zeros that are added to the embeddings of the clean pass, so that their
            gradient is that of the embeddings; None before and after that pass.
        label_weight: `[batch]`, the own label's share, once spans are swapped.

    Example:
        >>> plan = SpanPlan(torch.tensor([1, 0]), special_ids=torch.tensor([0, 2, 3]))
        >>> plan.tapped(torch.zeros(2, 9, 32, requires_grad=True)).tap.shape
        torch.Size([2, 9, 32])
    """

    partner: Tensor
    special_ids: Tensor
    window: float = 0.1
    clean_weight: float = 0.5
    tap: Tensor | None = None
    label_weight: Tensor | None = None

    site = "input_ids"
    layers = ()
    probe = None

    def __post_init__(self) -> None:
        _check_partner(self.partner)
        check_type("special_ids", self.special_ids, Tensor, "an int64 tensor [specials], such as torch.tensor([0, 2])")
        if self.special_ids.ndim != 1 or self.special_ids.dtype != torch.int64:
            raise ValueError(
                f"special_ids must be an int64 tensor [specials], got {self.special_ids.dtype} "
                f"{list(self.special_ids.shape)}."
            )
        check_inner_share("window", self.window)
        check_inner_share("clean_weight", self.clean_weight)

    @property
    def rows(self) -> int:
        """The number of rows of the batch."""
        return self.partner.shape[0]

    @property
    def loss_weight(self) -> float:
        """The weight of this pass in the loss."""
        return self.clean_weight if self.label_weight is None else 1 - self.clean_weight

    def to(self, device: torch.device | str) -> SpanPlan:
        """The same plan on another device."""
        return _moved(self, device)

    def tapped(self, tap: Tensor) -> SpanPlan:
        """The plan of the clean pass."""
        return replace(self, tap=tap)

    def shared(self, batch: Mapping[str, Tensor]) -> SpanPlan:
        """The plan with the label weights of the mixed pass, which the lengths of the texts decide alone.

        Args:
            batch: the model's inputs, `input_ids` and perhaps `attention_mask` `[batch, length]` among them.
        """
        segments = segment_numbers(batch["input_ids"], batch.get("attention_mask"), self.special_ids)
        return replace(self, label_weight=own_share(segments, self.partner, self.window))

    def swapped(self, input_ids: Tensor, attention_mask: Tensor | None, gradient: Tensor) -> tuple[Tensor, SpanPlan]:
        """The ids `[batch, length]` and the plan of the mixed pass.

        Args:
            input_ids, attention_mask: `[batch, length]`, of the clean rows.
            gradient: `[batch, length, hidden]`, of the tap.
        """
        segments = segment_numbers(input_ids, attention_mask, self.special_ids)
        mixed = swap_spans(input_ids, gradient_saliency(gradient), segments, self.partner, self.window)
        return mixed, replace(self, tap=None, label_weight=own_share(segments, self.partner, self.window))

    def mix(self, states: Tensor, site: str, layer: int = 0) -> Tensor:
        """`states`, with the tap added to the embeddings of the clean pass: spans are swapped before the model."""
        return states if self.tap is None or site != "embeddings" else states + self.tap.to(states.dtype)

    def enter_block(self, hidden_states: Tensor, mask: Tensor | None, layer: int) -> tuple[Tensor, Tensor | None]:
        """What block `layer` reads: block 1, the embeddings with the tap; nothing is mixed inside the model."""
        return self.mix(hidden_states, "embeddings") if layer == 1 else hidden_states, mask

    def mask_after(self, mask: Tensor, layer: int) -> Tensor:
        """Which positions attention sees: the rows' own."""
        return mask


Plan = PairPlan | BatchPlan | SpanPlan


def _moved(plan: Plan, device: torch.device | str | None) -> Plan:
    if device is None:
        # As for tensors: Accelerate asks for that where it places nothing.
        return plan
    device = torch.device(device)
    tensors = {
        name: value for name, value in vars(plan).items() if isinstance(value, Tensor) and value.device != device
    }
    if not tensors:
        return plan
    if device.type == "cuda" and not any(value.is_cuda or value.requires_grad for value in tensors.values()):
        return replace(plan, **_sent(tensors, device))
    return replace(plan, **{name: value.to(device, non_blocking=True) for name, value in tensors.items()})


def _sent(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The tensors of the host on a device, by one transfer that the host does not wait for."""
    # The wider types first, so that each part begins at a multiple of its own width.
    tensors = dict(sorted(tensors.items(), key=lambda item: -item[1].itemsize))
    packed = torch.cat([value.contiguous().reshape(-1).view(torch.uint8) for value in tensors.values()])
    if device.type == "cuda":
        packed = packed.pin_memory()
    parts = packed.to(device, non_blocking=True).split([value.nbytes for value in tensors.values()])
    return {
        name: part.view(value.dtype).reshape(value.shape)
        for (name, value), part in zip(tensors.items(), parts, strict=True)
    }


def mix(states: Tensor, partner: Tensor, weight: Tensor, inverse: Tensor | None = None) -> Tensor:
    r"""$w_i x_i + (1 - w_i) x_{partner(i)}$ in one pass over memory.

    Forward and backward are a gather and an in-place lerp: deterministic, without scatter-add, and nothing of the size
    of `states` is kept for the backward pass.

    Args:
        states: `[batch, ...]`, floating point.
        partner: `[batch]` int64, a permutation of the rows.
        weight: the own row's share, `[]` or broadcastable to `states`; may itself require a gradient.
        inverse: `[batch]`, the inverse permutation; computed if not given.

    Returns:
        A new tensor of the shape and dtype of `states`.

    Raises:
        TypeError, ValueError: something that is not a tensor, or has another number of rows.

    Example:
        >>> mix(torch.tensor([1.0, 3.0]), torch.tensor([1, 0]), torch.tensor(0.25))
        tensor([2.5000, 1.5000])
    """
    _check_mix(states, partner, weight, inverse)
    if weight.requires_grad:
        return weight * states + (1 - weight) * states.index_select(0, partner)
    if inverse is None:
        inverse = torch.argsort(partner)
    return _Mix.apply(states, partner, inverse, weight, None)


class _Mix(torch.autograd.Function):
    """The own share is `weight`; `rest` is that of the partner where it is not 1 - `weight`, but rounded apart."""

    @staticmethod
    def forward(ctx, states, partner, inverse, weight, rest):
        ctx.save_for_backward(inverse, weight, rest)
        return _lerp_(_rows(states, partner), states, weight, rest)

    @staticmethod
    def backward(ctx, gradient):
        inverse, weight, rest = ctx.saved_tensors
        theirs = _rows(gradient, inverse)
        if weight.ndim == 0:
            return _lerp_(theirs, gradient, weight, rest), None, None, None, None
        # Row j received (1 - w) of the row that it was the partner of: that row's weight, not its own.
        own, lent = weight * gradient, (1 - weight.index_select(0, inverse)) * theirs
        return (own + lent).to(gradient.dtype), None, None, None, None


def _rows(states: Tensor, index: Tensor) -> Tensor:
    """`states[index]`, a copy."""
    if states.device.type != "cpu" or states.ndim < 3 or not states.is_contiguous():
        return states.index_select(0, index)
    # A CPU copies rows of over 32,768 elements one after the other, the threads meeting at each of them; smaller
    # pieces they share out among themselves at once.
    inner = states[0].numel() // states.shape[-1]
    pieces = index.unsqueeze(1) * inner + torch.arange(inner)
    return states.view(-1, states.shape[-1]).index_select(0, pieces.view(-1)).view(states.shape)


def _lerp_(start: Tensor, end: Tensor, weight: Tensor, rest: Tensor | None = None) -> Tensor:
    """Return `start + weight * (end - start)`, computed in place of `start` unless it is compiled."""
    if rest is None and start.dtype.itemsize < weight.dtype.itemsize:
        # lerp would round the weight to half precision, 0.999 to 1; both shares rounded apart lose nothing that shows.
        weight, rest = weight.to(start.dtype), (1 - weight).to(start.dtype)
    if torch.compiler.is_compiling():
        # torch 2.11 loses the gradient of what an autograd function changes in place; a compiler makes one pass of it.
        return torch.lerp(start, end, weight.to(start.dtype)) if rest is None else start * rest + end * weight
    if rest is not None:
        return start.mul_(rest).addcmul_(end, weight)
    return start.lerp_(end, weight.to(start.dtype))


def _check_rows(states: Tensor, rows: int, may_be_twice: bool = False) -> None:
    check_type("states", states, Tensor, "a tensor [batch, ...]")
    if states.ndim < 2 or (states.shape[0] != rows and not (may_be_twice and states.shape[0] == 2 * rows)):
        raise ValueError(
            f"states of shape {list(states.shape)} do not fit a plan for {rows} rows: give [batch, length, hidden] or "
            "[batch, features]."
        )


def _check_mix(states: Tensor, partner: Tensor, weight: Tensor, inverse: Tensor | None) -> None:
    check_type("states", states, Tensor, "a tensor [batch, ...]")
    check_type("partner", partner, Tensor, "an int64 tensor [batch]")
    check_type("weight", weight, Tensor, "a tensor, such as torch.tensor(0.7)")
    check_type("inverse", inverse, Tensor | None, "torch.argsort(partner), or leave it out")
    if inverse is not None and inverse.shape != partner.shape:
        raise ValueError(
            f"inverse of shape {list(inverse.shape)} is not that of partner: give torch.argsort(partner)."
        )
    if not states.ndim or not states.is_floating_point() or partner.shape != states.shape[:1]:
        raise ValueError(
            f"states of {states.dtype} and shape {list(states.shape)} do not fit a partner of shape "
            f"{list(partner.shape)}: give floats [batch, ...] and one partner for each row."
        )
    sizes = zip(reversed(weight.shape), reversed(states.shape), strict=False)
    if weight.ndim > states.ndim or not weight.is_floating_point() or any(own not in (1, all_) for own, all_ in sizes):
        raise ValueError(
            f"weight of {weight.dtype} and shape {list(weight.shape)} does not fit states of shape "
            f"{list(states.shape)}: give floats, one [] or one for each row [batch, 1, 1]."
        )


def _blocks(given: object) -> tuple[int, ...]:
    blocks = plain_in_any_order(given)
    if not isinstance(blocks, tuple | list | range):
        raise ValueError(f"layers={given!r} is not allowed: give a tuple of blocks, such as (4, 8) or (4,).")
    return tuple(blocks)


def _check_probe(probe: AttentionProbe) -> None:
    check_type("probe", probe, AttentionProbe, "AttentionProbe(layer, head)")
    check_whole("the layer of the probe", probe.layer)
    if probe.head is not None:
        check_whole("the head of the probe", probe.head, lowest=0)


def _check_inverse(inverse: Tensor, partner: Tensor) -> None:
    check_type("inverse", inverse, Tensor, "torch.argsort(partner), or leave it out")
    # On a device the check would wait for the values.
    fits = inverse.shape == partner.shape and inverse.dtype == torch.int64
    if fits and can_read(inverse) and can_read(partner):
        # Of a permutation the inverse is its own sorting.
        fits = torch.equal(inverse, torch.argsort(partner))
    if not fits:
        raise ValueError("inverse is not the inverse permutation of partner: give torch.argsort(partner), or nothing.")


def _check_shares(name: str, shares: Tensor) -> None:
    if not isinstance(shares, Tensor) or not shares.is_floating_point():
        kind = shares.dtype if isinstance(shares, Tensor) else type(shares).__name__
        raise ValueError(f"{name} must be a floating-point tensor, got {kind}: torch.tensor(0.7) is one.")
    if can_read(shares) and not ((shares >= 0) & (shares <= 1)).all():
        raise ValueError(f"{name} must be in [0, 1], got values from {shares.min():.4g} to {shares.max():.4g}.")


def _check_partner(partner: Tensor) -> None:
    if not isinstance(partner, Tensor):
        raise ValueError(f"partner must be an int64 tensor [batch], got a {type(partner).__name__}.")
    if partner.ndim != 1 or not len(partner) or partner.dtype != torch.int64:
        raise ValueError(f"partner must be an int64 tensor [batch], got {partner.dtype} {list(partner.shape)}.")
    # On a device, or inside a compiled frame, the check would wait for the values; plans are made on the CPU.
    if can_read(partner):
        if not torch.equal(partner.sort().values, torch.arange(len(partner))):
            raise ValueError(f"partner={partner.tolist()} is not a permutation of the rows: name each row once.")
