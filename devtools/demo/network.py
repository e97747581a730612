"""Narrow SD1.5-layout networks, and their exact expansion to the widths the host recognises as SD1.5.

Every channel of the narrow residual stream is copied R = 320 / WIDTH times (text: 768 / TEXT_WIDTH times).
GroupNorm(32) and LayerNorm see the same statistics, so a layer that divides its input weights by R gives the
same output in every copy; inner dimensions of attention, feed-forward and time embedding are padded with
zeros. Parameter names are SD1.5's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

WIDTH, WIDE = 64, 320
LEVELS = (1, 1, 2)  # channel multipliers at 16x16, 8x8, 4x4 (128 px)
SELF_ATTENTION = (False, True, True)  # by level; SD1.5's layer is exported as zeros where absent
HEADS = 8
TIME_HIDDEN, TIME_WIDE = 256, 1280
FEED_FORWARD = 2  # times the channels; SD1.5: 4
TEXT_WIDTH, TEXT_WIDE = 64, 768
POSITIONS = 77
HINT = (8, 8, 16, 16, 32, 32, 64)  # channels of the ControlNet's hint block
HINT_WIDE = (16, 16, 32, 32, 96, 96, 256)
CONTROL_RANK, LORA_RANK = 12, 4

# --- expansion: how one axis of a narrow weight becomes wide --------------------------------------

Axis = Callable[[Tensor, int, bool], Tensor]  # (weight, axis, is an input axis) -> wider weight


def same(weight: Tensor, axis: int, is_input: bool) -> Tensor:
    return weight


def copied(times: int) -> Axis:
    def widen(weight, axis, is_input):
        return weight.repeat_interleave(times, axis) / (times if is_input else 1)

    return widen


def padded(size: int) -> Axis:
    def widen(weight, axis, is_input):
        missing = [size - n if i == axis else n for i, n in enumerate(weight.shape)]
        return torch.cat([weight, weight.new_zeros(missing)], axis)

    return widen


def padded_heads(wide: int) -> Axis:
    """Each of the HEADS blocks of an axis of `HEADS * d` padded to `wide / HEADS`."""

    def widen(weight, axis, is_input):
        blocks = weight.movedim(axis, 0).unflatten(0, (HEADS, -1))
        return padded(wide // HEADS)(blocks, 1, is_input).flatten(0, 1).movedim(0, axis)

    return widen


def padded_halves(size: int) -> Axis:
    """The two halves of GEGLU's projection, each padded to `size`."""

    def widen(weight, axis, is_input):
        return torch.cat([padded(size)(half, axis, is_input) for half in weight.chunk(2, axis)], axis)

    return widen


STREAM, TEXT = copied(WIDE // WIDTH), copied(TEXT_WIDE // TEXT_WIDTH)


def wide(module: nn.Module, out: Axis, inp: Axis | None = None, gain: float = 1.0) -> nn.Module:
    """Mark how a module's weight and bias expand."""
    module.expansion = (out, inp, gain)
    return module


def expand(root: nn.Module, prefix: str) -> dict[str, Tensor]:
    """State dict of the wide equivalent of a network."""
    state = {}
    for name, module in root.named_modules():
        if isinstance(module, NoSelfAttention):
            state |= module.zeros(f"{prefix}{name}.")
        elif hasattr(module, "expansion"):
            out, inp, gain = module.expansion
            weight = out(module.weight.detach().float(), 0, False)
            state[f"{prefix}{name}.weight"] = gain * (inp(weight, 1, True) if inp else weight)
            if module.bias is not None:
                state[f"{prefix}{name}.bias"] = gain * out(module.bias.detach().float(), 0, False)
    return state


# --- layers; each is called with (x, time embedding, text, log weights of the text positions) -----


def norm(channels: int, eps: float = 1e-5) -> nn.Module:
    return wide(nn.GroupNorm(32, channels, eps), STREAM)


def conv(channels: int, out: int, kernel: int = 3, stride: int = 1) -> nn.Module:
    return wide(nn.Conv2d(channels, out, kernel, stride, kernel // 2), STREAM, STREAM)


def silent(module: nn.Module) -> nn.Module:
    """Start at zero, so that a block begins as the identity."""
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    return module


class Residual(nn.Module):
    def __init__(self, channels: int, out: int):
        super().__init__()
        self.in_layers = nn.Sequential(norm(channels), nn.SiLU(), conv(channels, out))
        self.emb_layers = nn.Sequential(
            nn.SiLU(), wide(nn.Linear(TIME_HIDDEN, out), STREAM, padded(TIME_WIDE))
        )
        self.out_layers = nn.Sequential(norm(out), nn.SiLU(), nn.Identity(), silent(conv(out, out)))
        self.skip_connection = conv(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x, time, text, weights):
        h = self.in_layers(x) + self.emb_layers(time)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class Attention(nn.Module):
    """Multi-head attention; `probabilities` is called with them where it is set (for looking at the maps)."""

    probabilities: Callable[[Tensor], None] | None = None

    def __init__(self, channels: int, context: int, context_axis: Axis):
        super().__init__()
        wide_channels = channels * WIDE // WIDTH
        heads = padded_heads(wide_channels)
        self.to_q = wide(
            nn.Linear(channels, channels, bias=False), heads, STREAM, math.sqrt(wide_channels / channels)
        )
        self.to_k = wide(nn.Linear(context, channels, bias=False), heads, context_axis)
        self.to_v = wide(nn.Linear(context, channels, bias=False), heads, context_axis)
        self.to_out = nn.Sequential(wide(nn.Linear(channels, channels), STREAM, heads))

    def forward(self, x: Tensor, context: Tensor, weights: Tensor | None = None) -> Tensor:
        q, k, v = (
            f(t).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for f, t in ((self.to_q, x), (self.to_k, context), (self.to_v, context))
        )
        if self.probabilities is not None:
            self.probabilities(
                (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + weights).softmax(-1).mean(1)
            )
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=weights)
        return self.to_out(out.transpose(1, 2).flatten(2))


class NoSelfAttention(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels * WIDE // WIDTH

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return torch.zeros_like(x)

    def zeros(self, prefix: str) -> dict[str, Tensor]:
        names = [f"{prefix}{name}.weight" for name in ("to_q", "to_k", "to_v", "to_out.0")]
        return {name: torch.zeros(self.channels, self.channels) for name in names} | {
            f"{prefix}to_out.0.bias": torch.zeros(self.channels)
        }


class GEGLU(nn.Module):
    def __init__(self, channels: int, hidden: int, wide_hidden: int):
        super().__init__()
        self.proj = wide(nn.Linear(channels, 2 * hidden), padded_halves(wide_hidden), STREAM)

    def forward(self, x):
        value, gate = self.proj(x).chunk(2, -1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        hidden, wide_hidden = channels * FEED_FORWARD, channels * WIDE // WIDTH * 4
        self.net = nn.Sequential(
            GEGLU(channels, hidden, wide_hidden),
            nn.Identity(),
            wide(nn.Linear(hidden, channels), STREAM, padded(wide_hidden)),
        )

    def forward(self, x):
        return self.net(x)


class TransformerBlock(nn.Module):
    def __init__(self, channels: int, self_attention: bool):
        super().__init__()
        self.attn1 = Attention(channels, channels, STREAM) if self_attention else NoSelfAttention(channels)
        self.attn2 = Attention(channels, TEXT_WIDTH, TEXT)
        self.ff = FeedForward(channels)
        self.norm1, self.norm2, self.norm3 = (wide(nn.LayerNorm(channels), STREAM) for _ in range(3))

    def forward(self, x, text, weights):
        h = self.norm1(x)
        x = x + self.attn1(h, h)
        x = x + self.attn2(self.norm2(x), text, weights)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    def __init__(self, channels: int, self_attention: bool):
        super().__init__()
        self.norm = norm(channels, 1e-6)
        self.proj_in = conv(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, self_attention)])
        self.proj_out = silent(conv(channels, channels, 1))

    def forward(self, x, time, text, weights):
        h = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            h = block(h, text, weights)
        return x + self.proj_out(h.transpose(1, 2).unflatten(2, x.shape[-2:]))


class First(nn.Conv2d):
    def forward(self, x, time, text, weights):
        return super().forward(x)


class Down(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.op = conv(channels, channels, stride=2)

    def forward(self, x, time, text, weights):
        return self.op(x)


class Up(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = conv(channels, channels)

    def forward(self, x, time, text, weights):
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class UNet(nn.Module):
    """eps(z, t, text): one residual block a level; no attention in the last output block."""

    def __init__(self):
        super().__init__()
        self.time_embed = nn.Sequential(
            wide(nn.Linear(WIDE, TIME_HIDDEN), padded(TIME_WIDE), same),
            nn.SiLU(),
            wide(nn.Linear(TIME_HIDDEN, TIME_HIDDEN), padded(TIME_WIDE), padded(TIME_WIDE)),
        )
        channels, skips = WIDTH, [WIDTH]
        blocks: list[list[nn.Module]] = [[wide(First(4, WIDTH, 3, padding=1), STREAM, same)]]
        for level, multiplier in enumerate(LEVELS):
            blocks.append(
                [
                    Residual(channels, WIDTH * multiplier),
                    SpatialTransformer(WIDTH * multiplier, SELF_ATTENTION[level]),
                ]
            )
            channels = WIDTH * multiplier
            skips.append(channels)
            if level < len(LEVELS) - 1:
                blocks.append([Down(channels)])
                skips.append(channels)
        self.skip_channels = tuple(skips)
        self.input_blocks = nn.ModuleList(map(nn.ModuleList, blocks))
        self.middle_block = nn.ModuleList(
            [Residual(channels, channels), SpatialTransformer(channels, True), Residual(channels, channels)]
        )
        blocks = []
        for level in reversed(range(len(LEVELS))):
            for i in range(2):
                out = WIDTH * LEVELS[level]
                block: list[nn.Module] = [Residual(channels + skips.pop(), out)]
                channels = out
                if level or i == 0:
                    block.append(SpatialTransformer(channels, SELF_ATTENTION[level]))
                if level and i == 1:
                    block.append(Up(channels))
                blocks.append(block)
        self.output_blocks = nn.ModuleList(map(nn.ModuleList, blocks))
        self.out = nn.Sequential(
            norm(channels), nn.SiLU(), silent(wide(nn.Conv2d(channels, 4, 3, padding=1), same, STREAM))
        )

    def forward(
        self, z: Tensor, t: Tensor, text: Tensor, weights: Tensor, control: Control | None = None
    ) -> Tensor:
        """z [B, 4, h, w], t [B] in 0..999, text [B, positions, TEXT_WIDTH], weights [B, 1, 1, positions]."""
        z, skips, time = self.encode(z, t, text, weights)
        if control is not None:
            z, skips = z + control[0], [skip + more for skip, more in zip(skips, control[1])]
        for block in self.output_blocks:
            z = torch.cat([z, skips.pop()], 1)
            for module in block:
                z = module(z, time, text, weights)
        return self.out(z)

    def encode(self, z: Tensor, t: Tensor, text: Tensor, weights: Tensor, hint: Tensor | float = 0.0):
        """(middle block's output, skips, time embedding); `hint` is added behind the first convolution."""
        time, skips = self.time_embed(timestep_embedding(t)), []
        for i, block in enumerate(self.input_blocks):
            for module in block:
                z = module(z, time, text, weights)
            z = z + hint if i == 0 else z
            skips.append(z)
        for module in self.middle_block:
            z = module(z, time, text, weights)
        return z, skips, time


def timestep_embedding(t: Tensor) -> Tensor:
    frequencies = torch.exp(-math.log(10000) * torch.arange(WIDE // 2, device=t.device) / (WIDE // 2))
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], -1)


class TextEncoder(nn.Module):
    """A row for each known token and a final norm: no layer mixes the words, none knows their place."""

    def __init__(self, rows: int):
        super().__init__()
        self.rows = nn.Embedding(rows, TEXT_WIDTH)
        self.norm = nn.LayerNorm(TEXT_WIDTH)
        nn.init.normal_(self.rows.weight, std=0.5)

    def forward(self, rows: Tensor) -> Tensor:
        return self.norm(self.rows(rows))

    def expand(self, clip_ids: list[int | None], prefix: str, normed: bool = False) -> dict[str, Tensor]:
        """CLIP-L keys: row 0 stands for every unknown token, the twelve layers add nothing.

        normed: the table holds what stands behind the final norm, for a host that reads before it (SD3).
        """
        times = TEXT_WIDE // TEXT_WIDTH
        rows = self.norm(self.rows.weight) if normed else self.rows.weight
        rows = rows.detach().float().repeat_interleave(times, 1)
        table = rows[:1].repeat(49408, 1)
        for row, clip_id in enumerate(clip_ids):
            if clip_id is not None:
                table[clip_id] = rows[row]
        state = {
            "embeddings.token_embedding.weight": table,
            "embeddings.position_embedding.weight": torch.zeros(POSITIONS, TEXT_WIDE),
            "embeddings.position_ids": torch.arange(POSITIONS)[None],
            "final_layer_norm.weight": self.norm.weight.detach().float().repeat_interleave(times),
            "final_layer_norm.bias": self.norm.bias.detach().float().repeat_interleave(times),
        }
        linear = {f"self_attn.{q}_proj": (TEXT_WIDE, TEXT_WIDE) for q in ("q", "k", "v", "out")}
        linear |= {"mlp.fc1": (4 * TEXT_WIDE, TEXT_WIDE), "mlp.fc2": (TEXT_WIDE, 4 * TEXT_WIDE)}
        for layer in (f"encoder.layers.{i}." for i in range(12)):
            for name, shape in linear.items():
                state |= {
                    f"{layer}{name}.weight": torch.zeros(shape),
                    f"{layer}{name}.bias": torch.zeros(shape[0]),
                }
            for name in ("layer_norm1", "layer_norm2"):
                state |= {
                    f"{layer}{name}.weight": torch.ones(TEXT_WIDE),
                    f"{layer}{name}.bias": torch.zeros(TEXT_WIDE),
                }
        return {prefix + key: value for key, value in state.items()}


# --- what is trained on top of a frozen UNet: low-rank changes of its layers, and a ControlNet ----

Control = tuple[Tensor, list[Tensor]]  # added to the middle block's output and to each skip


class LowRank(nn.Module):
    """A layer's weight plus up @ down, shaped as LoRA files have them."""

    def __init__(self, weight: Tensor, rank: int):
        super().__init__()
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank, *[1] * (weight.ndim - 2)))
        self.down = nn.Parameter(torch.randn(rank, *weight.shape[1:]) / math.sqrt(weight[0].numel()))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up.flatten(1) @ self.down.flatten(1)).view_as(weight)


def adapt(unet: UNet, rank: int, parts: tuple[str, ...]) -> nn.ModuleDict:
    """Put a LowRank on every layer of the UNet's parts, in place; they alone are returned, by layer name
    without dots.
    """
    changes = nn.ModuleDict()
    for name, module in list(unet.named_modules()):
        if name.startswith(parts) and hasattr(module, "expansion") and module.weight.ndim > 1:
            changes[_flat(name)] = LowRank(module.weight, rank)
            parametrize.register_parametrization(module, "weight", changes[_flat(name)])
    return changes


def lora_of(unet: UNet) -> nn.ModuleDict:
    return adapt(unet, LORA_RANK, ("input_blocks.", "middle_block.", "output_blocks.", "out."))


def expand_changes(unet: UNet, changes: nn.ModuleDict) -> dict[str, tuple[Tensor, Tensor]]:
    """Layer name -> wide (up, down)."""
    wider = {}
    for name, module in unet.named_modules():
        if _flat(name) in changes:
            (out, inp, gain), change = module.expansion, changes[_flat(name)]
            up, down = change.up.detach().float(), change.down.detach().float()
            wider[name] = gain * out(up, 0, False), inp(down, 1, True)
    return wider


def _flat(name: str) -> str:
    return name.replace(".", "_")


class ControlNet(nn.Module):
    """Picture hint -> what to add in the UNet. Its encoder is the UNet's own with low-rank changes, as in a
    Control-LoRA.
    """

    def __init__(self, unet: UNet):
        """`unet` is a copy that this ControlNet may adapt; `forward` is given it again."""
        super().__init__()
        layers, channels, axis = [], 3, same
        for i, (out, wide_out) in enumerate(zip(HINT, HINT_WIDE)):
            stride = 2 if i in (2, 4, 6) else 1
            layers += [wide(nn.Conv2d(channels, out, 3, stride, 1), padded(wide_out), axis), nn.SiLU()]
            channels, axis = out, padded(wide_out)
        layers.append(wide(nn.Conv2d(channels, WIDTH, 3, padding=1), STREAM, axis))
        self.input_hint_block = nn.Sequential(*layers)
        self.zero_convs = nn.ModuleList(nn.Sequential(silent(conv(n, n, 1))) for n in unet.skip_channels)
        self.middle_block_out = nn.Sequential(silent(conv(unet.skip_channels[-1], unet.skip_channels[-1], 1)))
        self.changes = adapt(unet, CONTROL_RANK, ("input_blocks.", "middle_block."))

    def forward(
        self, unet: UNet, hint: Tensor, z: Tensor, t: Tensor, text: Tensor, weights: Tensor
    ) -> Control:
        """hint [B, 3, 8h, 8w] in 0..1, the rest as the UNet's."""
        h, skips, _ = unet.encode(z, t, text, weights, self.input_hint_block(hint))
        return self.middle_block_out(h), [zero(skip) for zero, skip in zip(self.zero_convs, skips)]


# --- autoencoder in TAESD's layout, 64 channels wide in the host; missing blocks are exported as zeros


class Block(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Sequential(
            *(m for _ in range(3) for m in (nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()))
        )[:-1]
        nn.init.normal_(self.conv[4].weight, std=1e-3)
        nn.init.zeros_(self.conv[4].bias)

    def forward(self, x):
        return F.relu(self.conv(x) + x)


class NoBlock(nn.Module):
    def forward(self, x):
        return F.relu(x)


def _blocks(channels: int, count: int, of: int) -> list[nn.Module]:
    return [Block(channels) if i < count else NoBlock() for i in range(of)]


class Encoder(nn.Module):
    """Picture [B, 3, 8h, 8w] in 0..1 -> latent [B, latent_channels, h, w]."""

    CHANNELS, BLOCKS = (16, 24, 48, 64), (0, 0, 0, 2)

    def __init__(self, latent_channels: int = 4):
        super().__init__()
        layers = [nn.Conv2d(3, self.CHANNELS[0], 3, padding=1), *_blocks(self.CHANNELS[0], self.BLOCKS[0], 1)]
        for channels, out, count in zip(self.CHANNELS, self.CHANNELS[1:], self.BLOCKS[1:]):
            layers += [nn.Conv2d(channels, out, 3, 2, 1, bias=False), *_blocks(out, count, 3)]
        self.net = nn.Sequential(*layers, nn.Conv2d(self.CHANNELS[-1], latent_channels, 3, padding=1))

    def forward(self, x):
        return self.net(x)


class Decoder(nn.Module):
    """Latent [B, latent_channels, h, w] -> picture [B, 3, 8h, 8w], about 0..1."""

    CHANNELS, BLOCKS = (64, 48, 24, 12), (2, 1, 1, 0)

    def __init__(self, latent_channels: int = 4):
        super().__init__()
        layers = [nn.Identity(), nn.Conv2d(latent_channels, self.CHANNELS[0], 3, padding=1), nn.ReLU()]
        for channels, out, count in zip(self.CHANNELS, self.CHANNELS[1:], self.BLOCKS):
            layers += [
                *_blocks(channels, count, 3),
                nn.Upsample(scale_factor=2),
                nn.Conv2d(channels, out, 3, padding=1, bias=False),
            ]
        self.net = nn.Sequential(
            *layers,
            *_blocks(self.CHANNELS[-1], self.BLOCKS[-1], 1),
            nn.Conv2d(self.CHANNELS[-1], 3, 3, padding=1),
        )

    def forward(self, z):
        return self.net(torch.tanh(z / 3) * 3)


def expand_autoencoder(network: Encoder | Decoder, prefix: str, wide_channels: int = 64) -> dict[str, Tensor]:
    """State dict of the host's TAESD half: every convolution padded with zeros, but for the picture and
    latent sides.
    """
    convs = [(name, m) for name, m in network.net.named_modules() if isinstance(m, nn.Conv2d)]
    state = {}
    for name, module in convs:
        out, inp = module.weight.shape[:2]
        out = out if module is convs[-1][1] else wide_channels
        inp = inp if module is convs[0][1] else wide_channels
        state[f"{prefix}{name}.weight"] = padded(inp)(
            padded(out)(module.weight.detach().float(), 0, False), 1, True
        )
        if module.bias is not None:
            state[f"{prefix}{name}.bias"] = padded(out)(module.bias.detach().float(), 0, False)
    for name, module in network.net.named_modules():
        if isinstance(module, NoBlock):
            for i in (0, 2, 4):
                state[f"{prefix}{name}.conv.{i}.weight"] = torch.zeros(wide_channels, wide_channels, 3, 3)
                state[f"{prefix}{name}.conv.{i}.bias"] = torch.zeros(wide_channels)
    return state


def alphas_cumprod() -> Tensor:
    """SD1's schedule: abar of 1000 training steps."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()
