"""Which span of tokens is swapped for which: by saliency, within the segments of a text."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def gradient_saliency(gradient: Tensor) -> Tensor:
    r"""$s_t = \sqrt{\text{mean}_h g_{t,h}^2}$, divided by the largest of the row; 0 where there is no gradient.

    Args:
        gradient: `[batch, length, hidden]`, of each row's loss with respect to its embeddings.

    Returns:
        `[batch, length]` in float32.
    """
    saliency = gradient.float().square().mean(dim=-1).sqrt()
    return saliency / saliency.amax(dim=-1, keepdim=True).clamp(min=torch.finfo(saliency.dtype).tiny)


def segment_numbers(input_ids: Tensor, attention_mask: Tensor | None, special_ids: Tensor) -> Tensor:
    """0 at special tokens and padding; 1 in the first run of other tokens, 2 in the second, and so on.

    In a pair the two texts are such runs whatever stands between them, so that no token types are needed.

    Args:
        input_ids: `[batch, length]`.
        attention_mask: `[batch, length]`, nonzero where there is a token; None if there is one everywhere.
        special_ids: `[specials]`, the ids that begin, separate, end and pad texts.

    Example:
        >>> segment_numbers(torch.tensor([[2, 7, 8, 3, 9, 3, 0]]), None, torch.tensor([0, 2, 3]))
        tensor([[0, 1, 1, 0, 2, 0, 0]])
    """
    content = ~torch.isin(input_ids, special_ids)
    if attention_mask is not None:
        content = content & attention_mask.bool()
    before = torch.nn.functional.pad(content, (1, 0))[:, :-1]
    return (content & ~before).cumsum(dim=-1) * content


def own_share(segments: Tensor, partner: Tensor, window: float = 0.1) -> Tensor:
    r"""The share of a row's own tokens after `swap_spans`, $1 - \sum k / \sum n$ over its segments, `[batch]`.

    Args:
        segments: `[batch, length]`, from `segment_numbers`.
        partner: `[batch]` int64.
        window: the share of a segment that is swapped.
    """
    swapped = sum(size * possible for _, _, size, possible in _spans(segments, partner, window))
    tokens = (segments > 0).sum(dim=-1)
    return 1 - swapped / tokens.clamp(min=1)


def swap_spans(input_ids: Tensor, saliency: Tensor, segments: Tensor, partner: Tensor, window: float = 0.1) -> Tensor:
    r"""In each segment the least salient span gives way to the most salient span of the partner's same segment.

    A text has one segment, a pair two. A segment of $n$ tokens gives up one span of
    $k = \max(\lfloor n \cdot window \rfloor, 1)$ tokens, unless the partner's is shorter than that.

    Args:
        input_ids: `[batch, length]`.
        saliency: `[batch, length]`.
        segments: `[batch, length]`, from `segment_numbers`.
        partner: `[batch]` int64.
        window: the share of a segment that is swapped.

    Returns:
        The new ids `[batch, length]`.
    """
    positions = torch.arange(input_ids.shape[1], device=input_ids.device)
    # sums[i, t] is the saliency before position t, so that a window's is the difference of two. On a GPU the
    # deterministic algorithms have no cumsum of floats.
    before = positions.unsqueeze(-1) < torch.arange(len(positions) + 1, device=positions.device)
    sums = saliency.double() @ before.double()
    mixed = input_ids
    for own, theirs, size, possible in _spans(segments, partner, window):
        own_start = _window_scores(sums, own, size, positions, torch.inf).argmin(dim=-1)
        their_start = _window_scores(sums.index_select(0, partner), theirs, size, positions, -torch.inf).argmax(dim=-1)
        offset = positions - own_start.unsqueeze(-1)
        inside = possible.unsqueeze(-1) & (offset >= 0) & (offset < size.unsqueeze(-1))
        source = (their_start.unsqueeze(-1) + offset).clamp(0, input_ids.shape[1] - 1)
        mixed = torch.where(inside, input_ids.index_select(0, partner).gather(1, source), mixed)
    return mixed


def _spans(
    segments: Tensor, partner: Tensor, window: float, max_segments: int = 2
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Of each segment the tokens of the row and of its partner, the length of the span, and whether it is swapped."""
    # A row that is its own partner stays as it is.
    others = partner != torch.arange(len(partner), device=partner.device)
    for segment in range(1, max_segments + 1):
        own, theirs = segments == segment, (segments == segment).index_select(0, partner)
        size = (own.sum(dim=-1) * window).long().clamp(min=1)
        possible = (own.sum(dim=-1) >= size) & (theirs.sum(dim=-1) >= size) & others
        yield own, theirs, size, possible


def _window_scores(sums: Tensor, segment: Tensor, size: Tensor, positions: Tensor, outside: float) -> Tensor:
    """`[batch, length]`: the saliency of the window that starts here, `outside` where it would leave the segment."""
    last = positions + size.unsqueeze(-1)
    end = last.clamp(max=len(positions))
    counts = torch.nn.functional.pad(segment.long().cumsum(dim=-1), (1, 0))
    fits = (last <= len(positions)) & (counts.gather(1, end) - counts[:, :-1] == size.unsqueeze(-1))
    return torch.where(fits, sums.gather(1, end) - sums[:, :-1], outside)
