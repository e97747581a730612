"""Attention of the target branch into which the source branch's is injected: pure functions on q, k and v.

Shapes: q [B, Q, heads * d], k and v [B, K, heads * d] as projected; maps [B, heads, Q, K]. `Attend` is any
attention (q, k, v) -> [B, Q, heads * d], so the user's own implementation stays in use.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, N, heads * d] -> [B, heads, N, d]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def probabilities(q: Tensor, k: Tensor, heads: int) -> Tensor:
    """softmax(q k^T / sqrt(d)) of each head in float32: [B, heads, Q, K]."""
    q, k = split_heads(q, heads).float(), split_heads(k, heads).float()
    return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)


def mean_to_text(q: Tensor, k: Tensor, words: slice) -> Tensor:
    """The image tokens' attention to the words among all keys, averaged over heads.

    q [B, heads, Q, d] of the image, k [B, heads or fewer, K, d]. Returns [B, Q, words] in float32.
    """
    maps = q.new_zeros((), dtype=torch.float32)
    # One head at a time: all at once would take `heads` times the memory.
    for head, queries in enumerate(q.unbind(1)):
        keys = k[:, head * k.shape[1] // q.shape[1]]
        scores = queries @ keys.transpose(-1, -2) / q.shape[-1] ** 0.5
        # the whole softmax is not needed: its columns of words over its sum
        whole = scores.float().logsumexp(-1, keepdim=True)
        maps = maps + (scores[..., words].float() - whole).exp()
    return maps / q.shape[1]


def transfer(source: Tensor, target: Tensor, shares: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Prompt-to-Prompt's cross-attention (Hertz et al. 2022, eq. 4 to 6).

    source [B, heads, Q, Ks], target [B, heads, Q, Kt]; shares [Ks, Kt]: how much of each source token's map a
    target token takes, a column of zeros keeps the target's own; scale [Kt] multiplies; weight [Kt] in 0..1:
    how much of all this.
    """
    new = (shares.sum(0) == 0).to(target)
    return torch.lerp(target, (source @ shares + target * new) * scale, weight)


def replaced(previous: Tensor, change: Tensor, v: Tensor, heads: int) -> Tensor:
    """An attention's output after its maps change by `change`. It keeps what others have added to `previous`.

    previous [B, Q, heads * d].
    """
    return previous + (change @ split_heads(v, heads).float()).transpose(1, 2).flatten(-2).to(previous)


def outside_and_inside(
    attend: Attend, q: Tensor, k: Tensor, v: Tensor, keys: Tensor, queries: Tensor
) -> Tensor:
    """Attention inside and outside a region apart (MasaCtrl, eq. 5 and 6).

    keys [B, K]: where the source's thing is, queries [B, Q]: where the target's; both 0..1, keys hard. A
    picture whose keys are all inside or all outside attends everywhere.
    """
    answers = []
    for side in (keys > 0.5, keys <= 0.5):
        rows = []
        for i, seen in enumerate(side):
            seen = seen if bool(seen.any()) else torch.ones_like(seen)
            rows.append(attend(q[i : i + 1], k[i : i + 1, seen], v[i : i + 1, seen]))
        answers.append(torch.cat(rows))
    return torch.lerp(answers[1], answers[0], queries[..., None].to(answers[0]))
