"""A small flow transformer in SD3's format, and its exact export to the shapes that the host expects.

The host reads the depth off the keys: DEPTH blocks of 64 * DEPTH channels. Smaller than SD3's own are the
text (64 channels, copied to CLIP's 768), its feed-forwards (padded with zeros) and the rank of the
modulations (exported as their products).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .network import TEXT_WIDE, TEXT_WIDTH, Axis, copied, padded, same, silent, wide

CHANNELS, PATCH = 16, 2
DEPTH, HEAD = 4, 64
WIDTH = DEPTH * HEAD
CONTEXT_WIDE = 4096
HIDDEN, TEXT_HIDDEN = 4 * WIDTH, WIDTH  # of the feed-forwards; SD3's text has as many as its image
MODULATION_RANK = 32
TIME = 256
MATRICES = (".qkv.", ".proj.", ".fc1.", ".fc2.")  # parts of the names of the blocks' own matrices


def _text_axis(weight: Tensor, axis: int, is_input: bool) -> Tensor:
    return padded(CONTEXT_WIDE)(copied(TEXT_WIDE // TEXT_WIDTH)(weight, axis, is_input), axis, is_input)


def linear(inp: int, out: int, out_axis: Axis = same, in_axis: Axis = same) -> nn.Module:
    return wide(nn.Linear(inp, out), out_axis, in_axis)


class LowRank(nn.Module):
    """A linear layer of low rank; exported as one matrix."""

    def __init__(self, inp: int, out: int, rank: int):
        super().__init__()
        self.down, self.up = nn.Linear(inp, rank, bias=False), silent(nn.Linear(rank, out))
        wide(self, same, same)

    @property
    def weight(self) -> Tensor:
        return self.up.weight @ self.down.weight

    @property
    def bias(self) -> Tensor:
        return self.up.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x))


def modulation(parts: int) -> nn.Module:
    return nn.Sequential(nn.SiLU(), LowRank(WIDTH, parts * WIDTH, MODULATION_RANK))


def normed(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift[:, None], F.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale[:, None])


def attend(q: Tensor, k: Tensor, v: Tensor, weights: Tensor) -> Tensor:
    """Plain attention: with few tokens several times faster than torch's fused one on a CPU, backwards."""
    scores = (q * HEAD**-0.5) @ k.transpose(-1, -2)
    return (scores + weights.to(q.dtype)).softmax(-1) @ v


class HeadNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(HEAD)), None
        wide(self, same)

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (HEAD,), self.weight.to(x.dtype), 1e-6)


class Attention(nn.Module):
    def __init__(self, last: bool):
        super().__init__()
        self.qkv = linear(WIDTH, 3 * WIDTH)
        self.ln_q, self.ln_k = HeadNorm(), HeadNorm()
        if not last:
            self.proj = linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(x).unflatten(-1, (3, DEPTH, HEAD)).unbind(2)
        return self.ln_q(q), self.ln_k(k), v


class FeedForward(nn.Module):
    def __init__(self, hidden: int):
        super().__init__()
        self.fc1 = linear(WIDTH, hidden, padded(HIDDEN))
        self.fc2 = linear(hidden, WIDTH, same, padded(HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Stream(nn.Module):
    """One side of a joint block: the text's or the image's. The text of the last block ends in its keys and
    values.
    """

    def __init__(self, hidden: int, last: bool = False):
        super().__init__()
        self.attn = Attention(last)
        self.adaLN_modulation = modulation(2 if last else 6)
        if not last:
            self.mlp = FeedForward(hidden)

    def enter(self, x: Tensor, time: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, ...]]:
        shift, scale, *rest = self.adaLN_modulation(time).chunk(2 if not hasattr(self, "mlp") else 6, 1)
        return self.attn(normed(x, shift, scale)), tuple(rest)

    def leave(self, x: Tensor, attended: Tensor, modulations: tuple[Tensor, ...]) -> Tensor:
        gate, shift, scale, gate_mlp = modulations
        x = x + gate[:, None] * self.attn.proj(attended)
        return x + gate_mlp[:, None] * self.mlp(normed(x, shift, scale))


class JointBlock(nn.Module):
    def __init__(self, last: bool):
        super().__init__()
        self.context_block = Stream(TEXT_HIDDEN, last)
        self.x_block = Stream(HIDDEN)

    def forward(self, text: Tensor, x: Tensor, time: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        from_text, text_modulations = self.context_block.enter(text, time)
        from_image, modulations = self.x_block.enter(x, time)
        q, k, v = (torch.cat(pair, 1).transpose(1, 2) for pair in zip(from_text, from_image))
        attended = attend(q, k, v, weights).transpose(1, 2).flatten(2)
        told, seen = attended.split((text.shape[1], x.shape[1]), 1)
        if text_modulations:
            text = self.context_block.leave(text, told, text_modulations)
        return text, self.x_block.leave(x, seen, modulations)


class FinalLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.adaLN_modulation = modulation(2)
        self.linear = silent(linear(WIDTH, PATCH * PATCH * CHANNELS))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.linear(normed(x, *self.adaLN_modulation(time).chunk(2, 1)))


class FlowTransformer(nn.Module):
    """v(z, sigma, text), which points from the image to the noise."""

    def __init__(self):
        super().__init__()
        self.x_embedder = nn.ModuleDict({"proj": wide(nn.Conv2d(CHANNELS, WIDTH, PATCH, PATCH), same, same)})
        self.t_embedder = nn.ModuleDict(
            {"mlp": nn.Sequential(linear(TIME, WIDTH), nn.SiLU(), linear(WIDTH, WIDTH))}
        )
        self.context_embedder = linear(TEXT_WIDTH, WIDTH, same, _text_axis)
        self.joint_blocks = nn.ModuleList(JointBlock(last=i == DEPTH - 1) for i in range(DEPTH))
        self.final_layer = FinalLayer()

    def forward(self, z: Tensor, sigma: Tensor, text: Tensor, weights: Tensor) -> Tensor:
        """z [B, 16, h, w], sigma [B] in 0..1, text [B, positions, TEXT_WIDTH], weights [B, 1, 1, positions]:
        the logarithms of how often each position stands there.
        """
        height, width = (side // PATCH for side in z.shape[-2:])
        x = self.x_embedder["proj"](z).flatten(2).transpose(1, 2)
        x = x + positions(height, width, z.device).to(x.dtype)
        time = self.t_embedder["mlp"](time_waves(1000 * sigma))
        text = self.context_embedder(text)
        weights = F.pad(weights, (0, height * width))
        for block in self.joint_blocks:
            text, x = block(text, x, time, weights)
        out = self.final_layer(x, time).unflatten(-1, (PATCH, PATCH, CHANNELS))
        out = out.unflatten(1, (height, width)).permute(0, 5, 1, 3, 2, 4)
        return out.reshape(z.shape).float()


def time_waves(t: Tensor) -> Tensor:
    frequencies = torch.exp(-math.log(10000) * torch.arange(TIME // 2, device=t.device) / (TIME // 2))
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], -1)


def positions(height: int, width: int, device=None) -> Tensor:
    """[height * width, WIDTH]: sines and cosines of each token's place, the smaller side spanning 0 to 15."""
    half = WIDTH // 2
    frequencies = 10000.0 ** -(torch.arange(half // 2, device=device) / (half / 2))

    def waves(count: int) -> Tensor:
        reach = 7.5 * count / min(height, width)
        angles = torch.linspace(7.5 - reach, 7.5 + reach, count, device=device)[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], 1)

    across = waves(width)[None].expand(height, -1, -1)
    down = waves(height)[:, None].expand(-1, width, -1)
    return torch.cat([across, down], -1).flatten(0, 1)
