"""A loaded checkpoint in the booted host, and one call for each node of this pack.

Every call takes the node's own inputs by name and needs only those that differ from the studio's defaults.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .host import Host

SOURCE, TARGET, STEPS = "a cat sitting on a bench", "a dog sitting on a bench", 4


@dataclass(frozen=True)
class Defaults:
    """What a studio's calls use where nothing else is said. eta: inputs of EtaSchedule."""

    source: str = SOURCE
    target: str = TARGET
    steps: int = STEPS
    cfg: float = 3.0
    seed: int = 7
    noise_candidates: int = 3
    eta: dict[str, object] = field(
        default_factory=lambda: dict(
            preset="constant", start_t=0.0, start_eta=0.0, end_t=1.0, end_eta=0.4, power=1.0
        )
    )


QUICK = Defaults()  # for the tests' small random model


class Studio:
    def __init__(self, host: Host, model, clip, vae=None, defaults: Defaults = QUICK):
        self.host, self.model, self.clip, self.vae, self.defaults = host, model, clip, vae, defaults
        self._prompts: dict[str, list] = {}

    def on(self, model):
        """The same studio with another MODEL, such as one that carries a patch."""
        other = copy(self)
        other.model = model
        return other

    def prompt(self, text: str) -> list:
        """CLIPTextEncode's conditioning."""
        if text not in self._prompts:
            self._prompts[text] = self.host.call("CLIPTextEncode", clip=self.clip, text=text)[0]
        return self._prompts[text]

    @property
    def negative(self) -> list:
        return self.prompt("")

    def encode(self, pictures: Tensor) -> dict:
        """The LATENT of pictures [B, H, W, 3] in 0..1."""
        return self.host.call("VAEEncode", vae=self.vae, pixels=pictures)[0]

    def decode(self, latent: dict | Tensor) -> Tensor:
        """The pictures [B, H, W, 3] in 0..1 of a LATENT, or of its samples."""
        latent = latent if isinstance(latent, dict) else {"samples": latent}
        return self.host.call("VAEDecode", vae=self.vae, samples=latent)[0].clamp(0, 1).cpu()

    # --- this pack's nodes ------------------------------------------------------------------------

    def eta(self, **inputs):
        """EtaSchedule's output."""
        return self.host.call("EtaSchedule", **self.defaults.eta | inputs)[0]

    def flow_edit(self, latent: dict, **inputs) -> Tensor:
        """EtaFlowEdit's edited latent of a LATENT, between the studio's prompts."""
        given = dict(
            source=self.prompt(self.defaults.source),
            positive=self.prompt(self.defaults.target),
            negative=self.negative,
            steps=self.defaults.steps,
            scheduler="normal",
            source_cfg=1.5,
            cfg=self.defaults.cfg,
            seed=self.defaults.seed,
            start=1.0,
        )
        found = self.host.call("EtaFlowEdit", model=self.model, latent_image=latent, **given | inputs)
        return found[0]["samples"]

    def invert_both(self, **inputs):
        """EtaInversion's two outputs."""
        given = dict(
            model=self.model,
            latent_image=picture(),
            steps=self.defaults.steps,
            cfg=1.0,
            scheduler="ddim_uniform",
        )
        given |= {} if "positive" in inputs else {"positive": self.prompt(self.defaults.source)}
        return self.host.call("EtaInversion", **given | inputs)

    def invert(self, **inputs):
        """EtaInversion's inversion."""
        return self.invert_both(**inputs)[0]

    def region(self, inversion, words: str, **inputs) -> tuple[Tensor, Tensor]:
        """AttentionMask's two outputs, mask and heatmap."""
        given = dict(
            clip=self.clip, threshold=0.2, grow=0, blur=0.0, invert=False, source_prompt=self.defaults.source
        )
        return self.host.call("AttentionMask", inversion=inversion, words=words, **given | inputs)

    def edit_mask(self, inversion, **inputs) -> tuple[Tensor, Tensor]:
        """EtaEditMask's two outputs, mask and heatmap."""
        given = dict(model=self.model, evaluations=4, auto_threshold=True, threshold=0.3, grow=0, blur=0.0)
        given |= {} if "positive" in inputs else {"positive": self.prompt(self.defaults.target)}
        return self.host.call("EtaEditMask", inversion=inversion, **given | inputs)

    def edit_all(self, inversion, **inputs) -> tuple[Tensor, Tensor, Tensor]:
        """The samples of EtaSampler's edit and reconstruction, and its mask."""
        defaults = self.defaults
        given = dict(model=self.model, cfg=defaults.cfg, seed=defaults.seed, noise_blend=0.0)
        given |= dict(noise_candidates=defaults.noise_candidates)
        if "positive" not in inputs:
            given["positive"] = self.prompt(defaults.target)
        if "negative" not in inputs:
            given["negative"] = self.negative
        if "eta" not in inputs:
            given["eta"] = self.eta()
        edited, source, mask = self.host.call("EtaSampler", inversion=inversion, **given | inputs)
        return edited["samples"], source["samples"], mask

    def edit_both(self, inversion, **inputs) -> tuple[Tensor, Tensor]:
        """The samples of EtaSampler's edit and reconstruction."""
        return self.edit_all(inversion, **inputs)[:2]

    def edit(self, inversion, **inputs) -> Tensor:
        """The samples of EtaSampler's edit."""
        return self.edit_both(inversion, **inputs)[0]

    def prompt_to_prompt(self, inversion, **inputs):
        """EtaPromptToPrompt's ETA_EDIT; positive, source_prompt and target_prompt follow the defaults."""
        defaults = self.defaults
        given = PROMPT_TO_PROMPT | dict(source_prompt=defaults.source, target_prompt=defaults.target)
        given |= {} if "positive" in inputs else {"positive": self.prompt(defaults.target)}
        return self.host.call("EtaPromptToPrompt", inversion=inversion, clip=self.clip, **given | inputs)[0]

    def target_words(self, words: str, **inputs):
        """EtaTargetWords' ETA_EDIT, for the studio's target prompt."""
        given = dict(read=0.5, auto_threshold=False, threshold=0.5, grow=0, blur=0.0)
        given |= dict(target_prompt=self.defaults.target)
        given |= {} if "positive" in inputs else {"positive": self.prompt(self.defaults.target)}
        return self.host.call("EtaTargetWords", clip=self.clip, words=words, **given | inputs)[0]

    def masactrl(self, **inputs):
        """EtaMasaCtrl's ETA_EDIT."""
        return self.host.call("EtaMasaCtrl", **dict(start=0.08, start_layer=0.625) | inputs)[0]

    def plug_and_play(self, **inputs):
        """EtaPlugAndPlay's ETA_EDIT."""
        return self.host.call("EtaPlugAndPlay", **dict(feature_end=0.8, attention_end=0.5) | inputs)[0]

    # --- the host's -------------------------------------------------------------------------------

    def ksampler(self, **inputs) -> Tensor:
        """The samples of the host's own KSampler."""
        given = dict(model=self.model, seed=3, steps=3, cfg=5.0, sampler_name="euler", scheduler="normal")
        given |= dict(negative=self.negative, latent_image=picture(), denoise=1.0)
        given |= {} if "positive" in inputs else {"positive": self.prompt(self.defaults.target)}
        return self.host.call("KSampler", **given | inputs)[0]["samples"]


# EtaPromptToPrompt's own defaults, for a node called without the page.
PROMPT_TO_PROMPT: dict[str, object] = {
    "mode": "auto",
    "cross_replace_start": 0.0,
    "cross_replace_end": 0.4,
    "self_replace_start": 0.0,
    "self_replace_end": 0.6,
    "word_steps": "",
    "equalizer": 2.0,
    "equalizer_words": "",
    "local_blend": True,
    "blend_words": "",
    "blend_threshold": 0.3,
    "blend_start": 0.2,
}


def picture(seed: int = 1, batch: int = 1, size: tuple[int, int] = (8, 8)) -> dict:
    """A LATENT of smooth random shapes, in the host's scale."""
    coarse = torch.randn(batch, 4, 4, 4, generator=torch.Generator().manual_seed(seed))
    return {"samples": 4 * torch.nn.functional.interpolate(coarse, size, mode="bicubic")}


def left_half(height: int = 64, width: int = 64) -> Tensor:
    mask = torch.zeros(1, height, width)
    mask[..., : width // 2] = 1
    return mask
