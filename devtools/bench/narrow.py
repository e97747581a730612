"""The embedded model's UNet in the host's own UNet class at its trained width: the checkpoint's function,
some ten times faster.

The checkpoint is the same network with every channel copied (devtools/demo/network.py). Quality needs
thousands of network calls and no timing, so it is measured on this one; `difference` says how far the two are
apart.
"""

from __future__ import annotations

import comfy.ops
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from ..demo import network, pack


class NarrowUNet(UNetModel):
    """Takes the checkpoint's wide text and time embeddings; everything between is narrow."""

    def __init__(self):
        super().__init__(
            image_size=32,
            in_channels=4,
            out_channels=4,
            model_channels=network.WIDTH,
            num_res_blocks=[1, 1, 1],
            channel_mult=network.LEVELS,
            num_heads=network.HEADS,
            use_spatial_transformer=True,
            transformer_depth=[1, 1, 1],
            transformer_depth_middle=1,
            transformer_depth_output=[0, 1, 1, 1, 1, 1],
            context_dim=network.TEXT_WIDTH,
            legacy=False,
            use_linear_in_transformer=False,
            dtype=torch.float32,
            operations=comfy.ops.disable_weight_init,
        )
        self.model_channels = network.WIDE  # only the sinusoidal time embedding reads it from here on
        self.time_embed[0] = torch.nn.Linear(network.WIDE, network.TIME_HIDDEN)

    def forward(self, x, timesteps=None, context=None, *args, **kwargs):
        return super().forward(
            x, timesteps, context[..., :: network.TEXT_WIDE // network.TEXT_WIDTH], *args, **kwargs
        )


def narrow_unet() -> NarrowUNet:
    trained, unet = pack.read()[0]["unet"].state_dict(), NarrowUNet()
    state = unet.state_dict()
    for name, value in state.items():
        state[name] = fitted(trained[name], value.shape, name) if name in trained else torch.zeros_like(value)
    unet.load_state_dict(state)
    return unet.eval().requires_grad_(False)


def fitted(weight: torch.Tensor, shape: torch.Size, name: str) -> torch.Tensor:
    """The host's feed-forward is wider than the trained one: its further units are zero."""
    for axis, size in enumerate(shape):
        widen = (
            network.padded_halves(size // 2)
            if ".ff.net.0.proj." in name and axis == 0
            else network.padded(size)
        )
        weight = widen(weight, axis, axis == 1)
    return weight


def difference(wide: torch.nn.Module, narrow: torch.nn.Module, text: torch.Tensor) -> float:
    """Largest difference of the two networks' outputs over their deviation, on random latents."""
    generator = torch.Generator().manual_seed(0)
    z, t = torch.randn(4, 4, 16, 16, generator=generator), torch.tensor([10.0, 300.0, 600.0, 990.0])
    with torch.inference_mode():
        a, b = (unet(z, t, context=text.expand(4, -1, -1)) for unet in (wide, narrow))
    return float((a - b).abs().max() / a.std())
