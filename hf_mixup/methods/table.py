"""The methods as a table: for `hf-mixup methods` and the documentation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction

from hf_mixup.methods import METHODS
from hf_mixup.methods.method import Method
from hf_mixup.mixing.plan import AttentionProbe
from hf_mixup.mixing.ratios import BatchWeights, Ratio, Spans


@dataclass(frozen=True)
class Row:
    """One method in words.

    Args:
        name: what `--mixup_method` calls it.
        where: site and layers.
        how_much: the ratio and its parameters.
        with_whom: partner, attention mask, clean rows and schedule, where they have a meaning.
        cost: what a step costs beside a plain one.
        paper: authors and year, with its address.
        summary: what it does.
    """

    name: str
    where: str
    how_much: str
    with_whom: str
    cost: str
    paper: str
    summary: str


def rows() -> list[Row]:
    """All methods, in the order of `METHODS`.

    Example:
        >>> rows()[1].how_much
        'max-of-n, alpha 0.1, draws 5'
    """
    return [
        Row(
            name=method.name,
            where=_where(method),
            how_much=_how_much(method),
            with_whom=_with_whom(method),
            cost=_cost(method),
            paper="" if method.paper is None else f"{method.paper.authors} {method.paper.year}, {method.paper.url}",
            summary=method.summary,
        )
        for method in METHODS.values()
    ]


def _where(method: Method) -> str:
    if method.site is None:
        return "-"
    if not method.layers:
        return method.site
    layers = method.layers
    if layers != "all":
        layers = ", ".join(_of_depth(layer) for layer in layers)
    if method.one_layer:
        layers = "one, of all and pooled" if layers == "all" else f"one of {layers}"
    return f"{method.site}, {layers}"


def _of_depth(layer: int | str | Fraction) -> str:
    if not isinstance(layer, Fraction):
        return str(layer)
    top = "N" if layer.numerator == 1 else f"{layer.numerator}N"
    return top if layer.denominator == 1 else f"{top}/{layer.denominator}"


def _how_much(method: Method) -> str:
    ratio = method.ratio
    if ratio is None:
        return "-"
    if isinstance(ratio, AttentionProbe):
        head = "mean of the heads" if ratio.head is None else f"head {ratio.head}"
        return f"attention of block {ratio.layer}, {head}"
    if isinstance(ratio, Spans):
        return f"spans of {ratio.window:.0%} of the tokens"
    settings = asdict(ratio)
    kind = settings.pop("kind")
    given = [
        f"{'lambda' if name == 'lam' else name} {value:g}" for name, value in settings.items() if value is not None
    ]
    per = " a feature" if method.per_feature else " a row" if method.per_sample else ""
    return ", ".join([kind + per, *given])


def _with_whom(method: Method) -> str:
    if method.site is None:
        return "-"
    words = ["the whole batch"]
    if isinstance(method.ratio, Ratio | AttentionProbe | Spans):
        words = [f"{method.partner} partner"]
        if method.attention_mask != "own":
            words.append(f"{method.attention_mask} mask")
    if method.clean == "average":
        words.append(f"clean rows with weight {method.clean_weight:g}")
    if (method.start, method.stop) != (0, 1):
        words.append(f"from {method.start:g} to {method.stop:g} of the training")
    return ", ".join(words)


def _cost(method: Method) -> str:
    if isinstance(method.ratio, Spans):
        return "two passes"
    if isinstance(method.ratio, AttentionProbe):
        return f"one pass, and the attention of block {method.ratio.layer} without gradient"
    if isinstance(method.ratio, BatchWeights):
        return "one pass, and the drawn weights"
    return "one pass"
