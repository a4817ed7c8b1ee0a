"""A method as a composition of the mixing axes, and its options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hf_mixup.mixing.partners import PARTNERS
from hf_mixup.mixing.plan import ATTENTION_MASKS, LAYER_SITES, SITES, TOKEN_SITES, _check_choice
from hf_mixup.mixing.ratios import Ratio


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
        ratio: how much of the own row it keeps.
        layers: `"all"`, or blocks in the numbering of `output_hidden_states`; empty for sites without layers.
        partner: who is mixed with whom: `random`.
        per_sample: whether every row draws its own ratio, instead of one for the batch.
        prob: the share of batches that are mixed, in [0, 1].
        attention_mask: what attention sees after mixing: `own`, `union` or `intersection`.

    Example:
        >>> from hf_mixup.methods import METHODS
        >>> METHODS["amplify"].with_options(alpha=0.4, layers="4,8").layers
        (4, 8)
    """

    name: str
    summary: str
    paper: Paper | None = None
    site: str | None = None
    ratio: Ratio | None = None
    layers: str | tuple[int, ...] = ()
    partner: str = "random"
    per_sample: bool = False
    prob: float = 1.0
    attention_mask: str = "own"

    def __post_init__(self) -> None:
        if self.site is None:
            return
        if self.site not in SITES:
            raise ValueError(f"mixup_site={self.site!r} is unknown: choose one of {', '.join(SITES)}.")
        _check_choice("mixup_partner", self.partner, tuple(PARTNERS))
        _check_choice("mixup_attention_mask", self.attention_mask, ATTENTION_MASKS)
        if not 0 <= self.prob <= 1:
            raise ValueError(f"mixup_prob={self.prob} is not allowed: give a number from 0 to 1.")
        if self.attention_mask != "own" and self.site not in TOKEN_SITES:
            raise ValueError(
                f"mixup_attention_mask={self.attention_mask!r} has no meaning at mixup_site={self.site!r}, after "
                f"the last attention: it is for {', '.join(TOKEN_SITES)}."
            )

    def with_options(
        self,
        *,
        site: str | None = None,
        layers: str | int | Sequence[int] | None = None,
        ratio: str | None = None,
        alpha: float | None = None,
        draws: int | None = None,
        lam: float | None = None,
        per_sample: bool | None = None,
        prob: float | None = None,
        attention_mask: str | None = None,
    ) -> Method:
        """The same method with some of its settings replaced; None keeps the method's own.

        Raises:
            ValueError: a value that is not allowed, or an option without meaning for what was chosen.
        """
        ratio_options = {"alpha": alpha, "draws": draws, "lam": lam}
        general = {"site": site, "per_sample": per_sample, "prob": prob, "attention_mask": attention_mask}
        changed = {name: value for name, value in general.items() if value is not None}
        ratio_changed = ratio is not None or any(value is not None for value in ratio_options.values())
        if self.site is None:
            if changed or ratio_changed or layers is not None:
                raise ValueError(
                    f"mixup_method={self.name!r} does not mix, so the other mixup options have no effect: "
                    "choose a method that mixes, such as amplify, or leave them out."
                )
            return self
        if ratio_changed:
            changed["ratio"] = _with_ratio_options(self.ratio, ratio, ratio_options)
        new_site = changed.get("site", self.site)
        if new_site not in LAYER_SITES:
            if layers is not None:
                raise ValueError(
                    f"mixup_layers={layers!r} has no meaning at mixup_site={new_site!r}: layers are for "
                    f"{', '.join(LAYER_SITES)}."
                )
            changed["layers"] = ()
        else:
            changed["layers"] = parse_layers(layers) if layers is not None else self.layers or "all"
        return replace(self, **changed)

    def resolve_layers(self, num_layers: int) -> tuple[int, ...]:
        """The blocks that this method mixes in, for a model of `num_layers` blocks.

        Raises:
            ValueError: a block that the model does not have.
        """
        if self.site not in LAYER_SITES:
            return ()
        first = 0 if self.site == "hidden" else 1
        if self.layers == "all":
            return tuple(range(first, num_layers + 1))
        outside = [layer for layer in self.layers if not first <= layer <= num_layers]
        if outside:
            raise ValueError(
                f"mixup_layers={','.join(map(str, self.layers))} does not fit the model: it has {num_layers} blocks, "
                f"so mixup_site={self.site!r} allows {first} to {num_layers}."
            )
        return self.layers


def parse_layers(layers: str | int | Sequence[int]) -> str | tuple[int, ...]:
    """`"all"`, `"4"`, `"4,8"`, 4 or [4, 8] as `"all"` or a sorted tuple of ints.

    Example:
        >>> parse_layers("8,4")
        (4, 8)
    """
    if layers == "all":
        return "all"
    parts = layers.split(",") if isinstance(layers, str) else [layers] if isinstance(layers, int) else list(layers)
    try:
        numbers = tuple(sorted({int(part) for part in parts}))
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or numbers[0] < 0:
        raise ValueError(f"mixup_layers={layers!r} is not allowed: give 'all' or block numbers such as 4 or 4,8.")
    return numbers


def _with_ratio_options(own: Ratio, kind: str | None, options: dict[str, float | None]) -> Ratio:
    """The method's own parameters stay where the chosen kind of ratio uses them too."""
    kind = kind or own.kind
    used = {"constant": ("lam",), "max-of-n": ("alpha", "draws")}.get(kind, ("alpha",))
    given = {name: value for name, value in options.items() if value is not None}
    kept = {name: getattr(own, name) for name in used if getattr(own, name) is not None}
    return Ratio(kind, **{**kept, **given})
