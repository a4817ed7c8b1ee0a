"""A method as a composition of the mixing axes, and its options."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from hf_mixup.errors import whole_number
from hf_mixup.mixing.checks import (
    check_choice,
    check_flag,
    check_inner_share,
    check_share,
    check_type,
    check_whole,
    did_you_mean,
    is_number,
    is_whole,
    plain_in_any_order,
    shown,
)
from hf_mixup.mixing.partners import PARTNERS
from hf_mixup.mixing.plan import ATTENTION_MASKS, LAYER_SITES, SITES, TOKEN_SITES, AttentionProbe
from hf_mixup.mixing.ratios import RATIOS, BatchWeights, Ratio, Spans

MASK_POLICIES = (*ATTENTION_MASKS, "skip")
CLEAN = ("none", "average", "alternate")
LABEL_WEIGHTS = ("ratio", "compounded", "learned")
# A run answers SIGTERM after the last update of a batch.
_MOST_UPDATES = 100
# The options that are fields of a method as they are; the others are parts of one, or change others along.
GENERAL_OPTIONS = ("partner", "per_sample", "attention_mask", "label_weight", "updates", "start", "stop")


@dataclass(frozen=True)
class Paper:
    """Where a method was published."""

    title: str
    authors: str
    year: int
    url: str

    def __str__(self) -> str:
        return f"{self.authors} ({self.year}), {self.title}, {self.url}"


@dataclass(frozen=True)
class Method:
    """One method: partner, ratio, site, attention mask and schedule, with the defaults of its paper.

    Args:
        name: what `--mixup_method` calls it.
        summary: what it does, in one line.
        paper: where it was published.
        site: where it mixes, one of `hf_mixup.mixing.plan.SITES`; None for the method that never mixes.
        ratio: how much of the own row it keeps: a drawn lambda, the attention that its tokens receive, or the weights
            of a whole batch.
        layers: `"all"`, or blocks in the numbering of `output_hidden_states`; empty for sites without layers.
        one_layer: mix in one of the layers, drawn anew for each batch; one of them may be `"pooled"`.
        partner: who is mixed with whom: `random`, `flip`, `roll` or `neighbour`.
        per_sample: whether every row draws its own ratio, instead of one for the batch.
        per_feature: whether every feature of every row does; the label's share is then their mean.
        dot_product: for whole batches: score mixed vectors against mixed classifier rows instead of classifying them.
        attention_mask: what attention sees after mixing: the row's `own` tokens, the `union` or the `intersection` of
            both rows'; `skip` mixes a position only where both rows have a token, and keeps the own mask.
        clean: `none`; `average`, to train the clean rows along with the mixed ones; or `alternate`, to mix half of
            the batches (of those that `prob` selects) by a coin.
        clean_weight: the weight of the clean rows for `average`, above 0 and below 1.
        label_weight: `ratio`, the drawn lambda; `compounded`, what is left of the own row after mixing a residual
            stream in several blocks; or `learned`, by a gate that reads the mixed pooled vector.
        updates: how many optimizer updates each batch makes, from 1 to 100, each with draws of its own.
        prob: the share of batches that are mixed, in [0, 1].
        start: mixing starts at this fraction of the training, in [0, 1].
        stop: and stops at this one.

    Example:
        >>> from hf_mixup.methods import METHODS
        >>> METHODS["amplify"].with_options(alpha=0.4, layers="4,8").layers
        (4, 8)
    """

    name: str
    summary: str
    paper: Paper | None = None
    site: str | None = None
    ratio: Ratio | AttentionProbe | BatchWeights | Spans | None = None
    layers: str | tuple[int | str | Fraction, ...] = ()
    one_layer: bool = False
    partner: str = "random"
    per_sample: bool = False
    per_feature: bool = False
    dot_product: bool = False
    attention_mask: str = "own"
    clean: str = "none"
    clean_weight: float = 0.5
    label_weight: str = "ratio"
    updates: int = 1
    prob: float = 1.0
    start: float = 0.0
    stop: float = 1.0

    def __post_init__(self) -> None:
        check_type("name", self.name, str, "the name that mixup_method is to know it by")
        check_type("summary", self.summary, str, "a line of text")
        if self.site is None:
            return
        for name, value, allowed in (
            ("site", self.site, SITES),
            ("partner", self.partner, PARTNERS),
            ("attention_mask", self.attention_mask, MASK_POLICIES),
            ("clean", self.clean, CLEAN),
            ("label_weight", self.label_weight, LABEL_WEIGHTS),
        ):
            check_choice(f"mixup_{name}", value, allowed)
        check_flag("mixup_per_sample", self.per_sample)
        for name in ("per_feature", "one_layer", "dot_product"):
            check_flag(name, getattr(self, name))
        check_share("mixup_prob", self.prob)
        check_whole("mixup_updates", self.updates, highest=_MOST_UPDATES)
        if not isinstance(self.ratio, Ratio | AttentionProbe | BatchWeights | Spans):
            raise ValueError(
                f"ratio={shown(self.ratio)} is not allowed for a method that mixes: give a Ratio, AttentionProbe, "
                "BatchWeights or Spans."
            )
        is_tuple = isinstance(self.layers, tuple) and all(_is_layer(layer) for layer in self.layers)
        if not is_tuple and not (isinstance(self.layers, str) and self.layers == "all"):
            raise ValueError(
                f"layers={shown(self.layers)} is not allowed: give 'all' or a tuple of blocks such as (4, 8); a "
                "Fraction of the depth and 'pooled' may be in it."
            )
        if bool(self.layers) != (self.site in LAYER_SITES):
            raise ValueError(
                f"layers={self.layers!r} does not fit site={self.site!r}: the sites {', '.join(LAYER_SITES)} take "
                "'all' or a tuple of blocks, the others none."
            )
        if self.label_weight == "learned" and (not self.per_feature or self.clean == "average"):
            raise ValueError(
                "mixup_label_weight='learned' is for methods with a weight for each feature (nonlinear), without "
                f"mixup_clean='average', not for mixup_method={self.name!r} with mixup_clean={self.clean!r}."
            )
        check_inner_share("mixup_clean_weight", self.clean_weight)
        if not (is_number(self.start) and is_number(self.stop) and 0 <= self.start < self.stop <= 1):
            raise ValueError(
                f"mixup_start={shown(self.start)} and mixup_stop={shown(self.stop)} are not allowed: give "
                "fractions of the training from 0 to 1, the start before the stop."
            )
        if self.attention_mask != "own" and self.site not in TOKEN_SITES:
            raise ValueError(
                f"mixup_attention_mask={self.attention_mask!r} has no meaning at mixup_site={self.site!r}, after "
                f"the last attention: it is for {', '.join(TOKEN_SITES)}."
            )
        if isinstance(self.ratio, BatchWeights):
            self._check_batch()
        if isinstance(self.ratio, Spans) != (self.site == "input_ids"):
            raise ValueError(
                f"mixup_site={self.site!r} is not for mixup_method={self.name!r}: input_ids is the site of ssmix, and "
                "its only one."
            )
        if isinstance(self.ratio, Spans) and (
            self.clean != "average" or self.per_sample or self.label_weight != "ratio" or self.attention_mask != "own"
        ):
            raise ValueError(
                f"mixup_method={self.name!r} swaps tokens by the saliency that its clean pass shows: it takes "
                "mixup_clean='average', and no mixup_per_sample, mixup_label_weight or mixup_attention_mask."
            )
        if isinstance(self.ratio, AttentionProbe) and (
            self.site not in TOKEN_SITES or self.per_sample or self.attention_mask == "skip"
        ):
            raise ValueError(
                f"mixup_method={self.name!r} weighs every token: it takes a mixup_site with tokens "
                f"({', '.join(TOKEN_SITES)}), no mixup_per_sample, and own, union or intersection as "
                "mixup_attention_mask."
            )
        if self.per_feature and self.attention_mask == "skip":
            raise ValueError(
                f"mixup_attention_mask='skip' has no meaning for mixup_method={self.name!r}, which draws a ratio for "
                "every feature, the same at all positions: choose own, union or intersection."
            )
        if self.per_feature and self.per_sample:
            raise ValueError(
                f"mixup_per_sample has no meaning for mixup_method={self.name!r}, which draws a ratio for every "
                "feature of every row: leave it out."
            )
        if self.label_weight == "compounded" and (
            self.site != "attention_block"
            or self.partner not in ("flip", "neighbour")
            or self.per_sample
            or self.per_feature
            or self.one_layer
            or not isinstance(self.ratio, Ratio)
        ):
            raise ValueError(
                "mixup_label_weight='compounded' holds for mixup_site='attention_block' with mixup_partner='flip' or "
                f"'neighbour' and one lambda a batch for fixed layers, not for mixup_method={self.name!r} with "
                f"mixup_site={self.site!r}, mixup_partner={self.partner!r} and mixup_per_sample={self.per_sample}: "
                "change these, or leave it out."
            )

    def _check_batch(self) -> None:
        """What a method that mixes whole batches has no use for."""
        pair_settings = {
            "partner": self.partner != "random",
            "per_sample": self.per_sample,
            "clean": self.clean == "average",
            "label_weight": self.label_weight != "ratio",
        }
        unused = [f"mixup_{name}={getattr(self, name)!r}" for name, differs in pair_settings.items() if differs]
        if unused:
            raise ValueError(
                f"{unused[0]} has no meaning for mixup_method={self.name!r}, which mixes whole batches: leave it out."
            )
        allowed = ("pooled",) if self.ratio.kind == "softmax-beta" or self.dot_product else ("pooled", "logits")
        if self.site not in allowed:
            raise ValueError(
                f"mixup_site={self.site!r} is not for mixup_method={self.name!r}: it takes {' or '.join(allowed)}."
            )

    def with_options(
        self,
        *,
        site: str | None = None,
        layers: str | int | Sequence[int | str] | None = None,
        ratio: str | None = None,
        alpha: float | None = None,
        draws: int | None = None,
        lam: float | None = None,
        points: int | None = None,
        temperature: float | None = None,
        attention_layer: int | None = None,
        attention_head: str | int | None = None,
        clean: str | None = None,
        clean_weight: float | None = None,
        prob: float | None = None,
        **general: str | float | bool | None,
    ) -> Method:
        """The same method with some of its settings replaced; None keeps the method's own.

        Args:
            site, layers, clean, clean_weight, prob: as the fields of the same name.
            ratio, alpha, draws, lam: the kind and the parameters of a drawn ratio.
            points, temperature: how many points of whole batches, and of which softmax.
            attention_layer, attention_head: whose attention weighs the tokens: a block from 1, and a head from 0 or
                `"average"`.
            general: `partner`, `per_sample`, `attention_mask`, `label_weight`, `updates`, `start` and `stop`, as the
                fields.

        Raises:
            ValueError: a value that is not allowed, or an option without meaning for what was chosen.
            TypeError: an option that does not exist.
        """
        for name in general:
            if name not in GENERAL_OPTIONS:
                known = [*inspect.signature(Method.with_options).parameters, *GENERAL_OPTIONS]
                known = [option for option in known if option not in ("self", "general")]
                raise TypeError(
                    f"with_options has no option {name!r}{did_you_mean(name, known)}: choose from {', '.join(known)}."
                )
        ratio_options = {
            "ratio": ratio,
            "alpha": alpha,
            "draws": draws,
            "lambda": lam,
            "points": points,
            "temperature": temperature,
            "attention_layer": attention_layer,
            "attention_head": attention_head,
        }
        ratio_options = {name: value for name, value in ratio_options.items() if value is not None}
        general |= {"site": site, "clean": clean, "clean_weight": clean_weight, "prob": prob}
        changed = {name: value for name, value in general.items() if value is not None}
        if self.site is None:
            if changed or ratio_options or layers is not None:
                raise ValueError(
                    f"mixup_method={self.name!r} does not mix, so the other mixup options have no effect: "
                    "choose a method that mixes, such as amplify, or leave them out."
                )
            return self
        # Choices that decide what the other options mean.
        for name, value, allowed in (("site", site, SITES), ("clean", clean, CLEAN), ("ratio", ratio, RATIOS)):
            if value is not None:
                check_choice(f"mixup_{name}", value, allowed)
        if ratio_options:
            changed["ratio"] = self._ratio_with(ratio_options)
        if clean_weight is not None and changed.get("clean", self.clean) != "average":
            raise ValueError(
                f"mixup_clean_weight={clean_weight!r} is for mixup_clean='average': add that, or leave the weight out."
            )
        new_site = changed.get("site", self.site)
        if new_site not in TOKEN_SITES:
            changed.setdefault("attention_mask", "own")
        if new_site in LAYER_SITES:
            changed["layers"] = parse_layers(layers) if layers is not None else self.layers or "all"
        elif layers is not None:
            raise ValueError(
                f"mixup_layers={layers!r} has no meaning at mixup_site={new_site!r}: layers are for "
                f"{', '.join(LAYER_SITES)}."
            )
        else:
            changed |= {"layers": (), "one_layer": False}
        return replace(self, **changed)

    def _ratio_with(self, options: dict[str, str | float]) -> Ratio | AttentionProbe | BatchWeights | Spans:
        used = {
            Ratio: ("ratio", "alpha", "draws", "lambda"),
            BatchWeights: ("points", "alpha", "temperature"),
            AttentionProbe: ("attention_layer", "attention_head"),
            Spans: (),
        }[type(self.ratio)]
        for name, value in options.items():
            if name not in used:
                raise ValueError(
                    f"mixup_{name}={value!r} is not used by mixup_method={self.name!r}: of these options it takes "
                    f"{', '.join(f'mixup_{option}' for option in used) or 'none'}."
                )
        if isinstance(self.ratio, AttentionProbe):
            head = options.get("attention_head", self.ratio.head)
            return _probe(options.get("attention_layer", self.ratio.layer), head)
        if isinstance(self.ratio, BatchWeights):
            return replace(self.ratio, **options)
        # The method's own parameters stay where the chosen kind of ratio uses them too.
        kind = options.pop("ratio", self.ratio.kind)
        given = {{"lambda": "lam"}.get(name, name): value for name, value in options.items()}
        parameters = {"constant": ("lam",), "max-of-n": ("alpha", "draws")}.get(kind, ("alpha",))
        own = {name: getattr(self.ratio, name) for name in parameters}
        kept = {name: value for name, value in own.items() if value is not None}
        return Ratio(kind, **{**kept, **given})

    def resolve_layers(self, num_layers: int) -> tuple[int | str, ...]:
        """The blocks that this method mixes in, for a model of `num_layers` blocks.

        Raises:
            ValueError: a block that the model does not have.
        """
        if self.site not in LAYER_SITES:
            return ()
        check_whole("num_layers", num_layers)
        first = 0 if self.site == "hidden" else 1
        if self.layers == "all":
            blocks = tuple(range(first, num_layers + 1))
            return (*blocks, "pooled") if self.one_layer else blocks
        # A fraction of the depth stands for the block of a model of another depth: 7 of 12 is 4 of 6.
        layers = [math.ceil(layer * num_layers) if isinstance(layer, Fraction) else layer for layer in self.layers]
        allowed = [*range(first, num_layers + 1), *(["pooled"] if self.one_layer else [])]
        if not set(layers) <= set(allowed):
            also = " and pooled" if self.one_layer else ""
            raise ValueError(
                f"mixup_layers={','.join(map(str, self.layers))} does not fit: the model has {num_layers} blocks, "
                f"so mixup_method={self.name!r} at mixup_site={self.site!r} allows {first} to {num_layers}{also}."
            )
        return tuple(dict.fromkeys(layers))


class UnknownMethodError(KeyError):
    """A name that no method has."""

    def __str__(self) -> str:
        # KeyError would quote the sentence.
        return self.args[0]


class Methods(dict[str, Method]):
    """Methods by name; the complaint about an unknown name names the nearest one.

    Raises:
        UnknownMethodError: a KeyError of one sentence, for a name that is not there.
    """

    def __getitem__(self, name: str) -> Method:
        try:
            check_choice("method", name, self)
        except ValueError as error:
            raise UnknownMethodError(str(error)) from None
        return super().__getitem__(name)


def parse_layers(layers: str | int | Sequence[int | str]) -> str | tuple[int | str, ...]:
    """`"all"`, `"4"`, `"4,8"`, 4 or [4, 8] as `"all"` or a tuple in order, where `"pooled"` comes last.

    Example:
        >>> parse_layers("8,pooled,4")
        (4, 8, 'pooled')
    """
    if isinstance(layers, str):
        layers = layers.strip()
        if layers == "all":
            return "all"
    layers = plain_in_any_order(layers)
    parts = layers.split(",") if isinstance(layers, str) else layers if isinstance(layers, Sequence) else [layers]
    numbers = [_number(part) for part in parts]
    if not numbers or None in numbers:
        raise ValueError(f"mixup_layers={shown(layers)} is not allowed: give 'all' or block numbers such as 4 or 4,8.")
    pooled = ("pooled",) if "pooled" in numbers else ()
    return (*sorted({number for number in numbers if number != "pooled"}), *pooled)


def _is_layer(layer: object) -> bool:
    name = isinstance(layer, str) and layer == "pooled"
    return name or isinstance(layer, Fraction) or (is_whole(layer) and layer >= 0)


def _number(part: object, name: str = "pooled") -> int | str | None:
    """A number of a layer or head, or its name; None for what is neither."""
    if isinstance(part, str):
        part = part.strip()
        number = whole_number(part)
        return part if part == name else None if number is None or number < 0 else number
    return int(part) if is_whole(part) and part >= 0 else None


def _probe(layer: int, head: str | int | None) -> AttentionProbe:
    check_whole("mixup_attention_layer", layer)
    number = "average" if head is None else _number(head, "average")
    if number is None:
        raise ValueError(
            f"mixup_attention_head={shown(head)} is not allowed: give the number of a head, from 0, or average."
        )
    return AttentionProbe(int(layer), None if number == "average" else number)
