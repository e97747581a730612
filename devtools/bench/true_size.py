"""What an edit costs at a model's true size: python dev.py bench cost --size sd15|sdxl|flux

Random weights, on whatever GPU the host finds. The jobs are those of the embedded model's table.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from .. import random_networks as networks
from ..host import Host, boot
from ..studio import Defaults, Studio
from .cases import Start, invert
from .cost import Counter, counted, measure, nodes, nodes_table
from .meters import GpuMeter, Meter, ProcessMeter

TEXTS = ("a cat sitting on a bench in the park", "a dog sitting on a bench in the park")
OPTIONS = ("--disable-api-nodes", "--use-pytorch-cross-attention")  # precision and memory as a user has them


class TrueSizeStudio(Studio):
    """A studio whose samplings all take the family's scheduler."""

    scheduler = "ddim_uniform"

    def invert_both(self, **inputs):
        return super().invert_both(**{"scheduler": self.scheduler} | inputs)

    def ksampler(self, **inputs):
        return super().ksampler(**inputs | {"scheduler": self.scheduler})


class Size(NamedTuple):
    """A family at its true size. side: of the latent. load: its MODEL and CLIP on a device."""

    name: str
    channels: int
    side: int
    steps: int
    scheduler: str
    load: Callable[[torch.device], tuple[object, object]]


def sd15(device: torch.device):
    import comfy.sd
    from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer

    model = comfy.sd.load_diffusion_model_state_dict(networks.unet_weights(networks.SD15, device))
    return model, networks.text_encoder(SD1Tokenizer, SD1ClipModel, clip_l=FEW_LAYERS)


def sdxl(device: torch.device):
    import comfy.sd
    from comfy.sdxl_clip import SDXLClipModel, SDXLTokenizer

    model = comfy.sd.load_diffusion_model_state_dict(networks.unet_weights(networks.SDXL, device))
    clip = networks.text_encoder(SDXLTokenizer, SDXLClipModel, clip_l=FEW_LAYERS, clip_g=FEW_LAYERS)
    return model, clip


def flux(device: torch.device):
    import comfy.supported_models
    from comfy.text_encoders import flux as encoders

    model = networks.patcher(comfy.supported_models.Flux(dict(networks.FLUX)), torch.bfloat16, device)
    clip = networks.text_encoder(
        encoders.FluxTokenizer,
        encoders.flux_clip(dtype_t5=torch.float32),
        clip_l=FEW_LAYERS,
        t5xxl=networks.t5_xxl(num_layers=1),
    )
    return model, clip


FEW_LAYERS = dict(num_hidden_layers=3)  # of the text encoders, which are not measured
SIZES = {
    "sd15": Size("SD1.5, 512 px", 4, 64, 20, "ddim_uniform", sd15),
    "sdxl": Size("SDXL, 1024 px", 4, 128, 20, "ddim_uniform", sdxl),
    "flux": Size("Flux.1, 1024 px", 16, 128, 10, "simple", flux),
}


def true_size_cost(name: str, rounds: int) -> list[str]:
    """The table's lines, from a host booted as a user starts it, on its GPU where it has one."""
    size = SIZES[name]
    with tempfile.TemporaryDirectory() as folder:
        host = boot(Path(folder), OPTIONS if torch.cuda.is_available() else (*OPTIONS, "--cpu"))
        return _table(host, size, rounds)


def _table(host: Host, size: Size, rounds: int) -> list[str]:
    start, counter, meter = started(host, size)
    jobs = nodes(start)
    measure(counter, jobs, 1, meter)  # warms up
    costs = measure(counter, jobs, rounds, meter)
    on = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return [
        f"{size.name}, random weights, {size.steps} steps, on {on}; the fewest seconds of {rounds} rounds in "
        "turn. Per call: time against as many calls of KSampler of the same size. Edit: time against the "
        "plain EtaSampler's. MB: the highest above the loaded model.",
        "",
        *nodes_table(costs),
    ]


def started(host: Host, size: Size) -> tuple[Start, Counter, Meter]:
    """A smooth random latent inverted by a network of that size."""
    import comfy.model_management

    device = comfy.model_management.get_torch_device()
    meter = GpuMeter() if device.type == "cuda" else ProcessMeter()
    studio, counter = counted(TrueSizeStudio(host, *size.load(device), defaults=Defaults(*TEXTS)))
    studio.scheduler = size.scheduler
    coarse = torch.randn(1, size.channels, 8, 8, generator=torch.Generator().manual_seed(1))
    latent = {"samples": 2 * torch.nn.functional.interpolate(coarse, (size.side,) * 2, mode="bicubic")}
    source, target = map(studio.prompt, TEXTS)
    inversion = invert(studio, source, latent, size.steps)
    return Start(studio, None, size.steps, TEXTS, source, target, latent, inversion), counter, meter
