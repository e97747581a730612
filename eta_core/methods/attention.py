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
    """softmax(q k^T / sqrt(d)) of each head: [B, heads, Q, K] in float32.

    The products are formed in the precision of q, as the model forms them. A GPU spends most of this time on
    starting kernels, of which there are three.
    """
    q, k = split_heads(q, heads), split_heads(k, heads)
    scores = q @ (k * q.shape[-1] ** -0.5).transpose(-1, -2)
    return scores.softmax(-1, dtype=torch.float32)


AT_ONCE = 8  # heads whose columns are formed together: all would take too much memory


def mean_to_text(q: Tensor, k: Tensor, words: slice | list[int]) -> Tensor:
    """The image tokens' attention to the words among all keys, averaged over heads.

    q [B, heads, Q, d] of the image, k [B, heads or fewer, K, d]. Returns [B, Q, words] in float32. Only the
    words' columns of the softmax are formed, and its sum once, so that reading costs little beside a call.
    """
    k = of_all_heads(k, q)
    whole, asked = log_sum(q, k), k[:, :, words]
    maps = q.new_zeros((), dtype=torch.float32)
    for i in range(0, q.shape[1], AT_ONCE):
        heads = slice(i, i + AT_ONCE)
        maps = maps + columns(q[:, heads], asked[:, heads], whole[:, heads]).sum(1)
    return maps / q.shape[1]


def of_all_heads(x: Tensor, q: Tensor) -> Tensor:
    """Keys or values that several heads of `q` share (grouped queries), once for each: [B, heads, K, d]."""
    return x.repeat_interleave(q.shape[1] // x.shape[1], 1) if x.shape[1] != q.shape[1] else x


def columns(q: Tensor, k: Tensor, whole: Tensor) -> Tensor:
    """Some keys' columns of a softmax over more keys, in float32: [B, heads, Q, K].

    q [B, heads, Q, d], k [B, heads, K, d]; whole [B, heads, Q]: `log_sum` over all keys.
    """
    scores = (q @ k.transpose(-1, -2)).float() / q.shape[-1] ** 0.5
    return (scores - whole[..., None]).exp()


def log_sum(q: Tensor, k: Tensor) -> Tensor:
    """log of the sum of exp(q k^T / sqrt(d)) over all keys, in float32: [B, heads, Q]."""
    fused = _fused(q)
    if fused is not None:
        try:
            return fused(q.contiguous(), k.contiguous(), k.contiguous())[1][..., : q.shape[2]].float()
        except (RuntimeError, NotImplementedError):  # this GPU or build has no such kernel
            pass
    heads = zip(q.unbind(1), k.unbind(1), strict=True)
    scale = q.shape[-1] ** -0.5
    return torch.stack([((a @ b.transpose(-1, -2)).float() * scale).logsumexp(-1) for a, b in heads], 1)


def _fused(q: Tensor) -> Callable | None:
    """Torch's flash attention, which gives that sum beside its result, where it takes such queries."""
    if q.is_cuda and q.dtype in (torch.float16, torch.bfloat16) and q.shape[-1] % 8 == 0:
        return getattr(torch.ops.aten, "_scaled_dot_product_flash_attention", None)
    if q.device.type == "cpu":
        return getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
    return None


def transfer(source: Tensor, target: Tensor, taken: Tensor, own: Tensor) -> Tensor:
    """What the target's maps gain by Prompt-to-Prompt's cross-attention (Hertz et al. 2022, eq. 4 to 6).

    source [B, heads, Q, Ks], target [B, heads, Q, Kt]; taken [Ks, Kt], own [Kt]: see `mixture`.
    """
    return (source @ taken).addcmul_(target, own)


def mixture(shares: Tensor, weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """How much of each source token's map, [Ks, Kt], and of its own, [Kt], a target token's map gains.

    shares [Ks, Kt]: how much of each source token's map a target token takes, a column of zeros keeps the
    target's own; scale [Kt] multiplies; weight [Kt] in 0..1: how much of all this.
    """
    new = (shares.sum(0) == 0).to(shares)
    return shares * (scale * weight), new * scale * weight - weight


def change_of(change: Tensor, v: Tensor) -> Tensor:
    """What an attention's output [B, Q, heads * d] gains when its maps gain `change` [B, heads, Q, K].

    v [B, heads, K, d]. It is added to the output, so that what others have added there stays.
    """
    return (change.to(v.dtype) @ v).transpose(1, 2).flatten(-2)


def outside_and_inside(
    attend: Attend, q: Tensor, k: Tensor, v: Tensor, keys: Tensor, queries: Tensor, words: int = 0
) -> Tensor:
    """Attention inside and outside a region apart (MasaCtrl, eq. 5 and 6).

    keys [B, K]: where the source's thing is, queries [B, Q]: where the target's; both 0..1, keys hard. A
    picture whose keys are all inside or all outside attends everywhere. words: of k and v this many come
    first and are seen from both sides; `keys` does not count them. Heads may be split, see split_heads.
    """
    answers = []
    for side in (keys > 0.5, keys <= 0.5):
        rows = []
        for i, seen in enumerate(side):
            seen = seen if bool(seen.any()) else torch.ones_like(seen)
            seen = torch.cat([seen.new_ones(words), seen])
            rows.append(attend(q[i : i + 1], k[i : i + 1][..., seen, :], v[i : i + 1][..., seen, :]))
        answers.append(torch.cat(rows))
    return torch.lerp(answers[1], answers[0], queries[..., None].to(answers[0]))
