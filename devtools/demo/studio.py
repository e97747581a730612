"""The embedded model in the booted host, with one unseen picture to work on."""

from __future__ import annotations

import atexit
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from ..host import Host, boot
from ..studio import Defaults, Studio
from . import scenes
from .build import build_flow
from .pack import FLOW
from .prepare import CAT, CHECKPOINT, CONTROL, SOURCES, prepare

CAT_TO_DOG = Defaults(
    "a cat on the grass", "a dog on the grass", steps=20, cfg=2.0, seed=0, noise_candidates=10
)


class DemoStudio(Studio):
    """picture: the cat on grass [1, 128, 128, 3] in 0..1; latent: its LATENT."""

    def __init__(self, host: Host, defaults: Defaults = CAT_TO_DOG):
        prepare(host.base)
        super().__init__(host, *host.call("CheckpointLoaderSimple", ckpt_name=CHECKPOINT), defaults=defaults)
        self.picture = pixels_of([scenes.render(*SOURCES[CAT])])
        self.latent = self.encode(self.picture)
        self._apart: float | None = None

    def invert_both(self, **inputs):
        return super().invert_both(**{"latent_image": self.latent} | inputs)

    def load_control(self):
        """The embedded model's ControlNet."""
        return self.host.call("ControlNetLoader", control_net_name=CONTROL)[0]

    def narrow(self) -> float:
        """From here on sample with the trained width, some ten times faster; returns how far the two networks
        differ.
        """
        from ..bench.narrow import difference, narrow_unet

        if self._apart is None:
            wide, narrow = self.model.model.diffusion_model, narrow_unet()
            self.model.model.diffusion_model = narrow
            self._apart = difference(wide, narrow, self.prompt("a cat on the grass")[0][0])
        return self._apart


class FlowDemoStudio(Studio):
    """The embedded flow model, likewise: picture and latent of the cat on grass."""

    def __init__(self, host: Host, weights: Path = FLOW, defaults: Defaults = CAT_TO_DOG):
        out = host.base / "models" / "checkpoints" / "embedded_flow.safetensors"
        out.parent.mkdir(parents=True, exist_ok=True)
        build_flow(out, weights)
        super().__init__(host, *host.call("CheckpointLoaderSimple", ckpt_name=out.name), defaults=defaults)
        self.picture = pixels_of([scenes.render(*SOURCES[CAT])])
        self.latent = self.encode(self.picture)

    def invert_both(self, **inputs):
        return super().invert_both(**{"latent_image": self.latent, "scheduler": "simple"} | inputs)


def pixels_of(batch: list[scenes.Scene]) -> Tensor:
    """The scenes' pictures [B, H, W, 3] in 0..1."""
    return torch.stack([torch.from_numpy(scene.image.copy()) for scene in batch]).float() / 255


def open_studio() -> DemoStudio:
    """A studio in a host booted on a temporary base directory, which goes when the process ends."""
    return DemoStudio(_booted())


def open_flow_studio(weights: Path = FLOW) -> FlowDemoStudio:
    """The same with the flow model."""
    return FlowDemoStudio(_booted(), weights)


def _booted() -> Host:
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return boot(Path(folder.name))
