"""A loaded model and the pack's nodes with the tests' usual inputs: name only what a test changes."""

from __future__ import annotations

import torch

SOURCE, TARGET = "a cat sitting on a bench", "a dog sitting on a bench"
STEPS = 4


def picture(seed: int = 1, batch: int = 1, size: tuple[int, int] = (8, 8)) -> dict:
    """A LATENT of smooth random shapes, in the host's scale."""
    coarse = torch.randn(batch, 4, 4, 4, generator=torch.Generator().manual_seed(seed))
    return {"samples": 4 * torch.nn.functional.interpolate(coarse, size, mode="bicubic")}


def left_half(height: int = 64, width: int = 64) -> torch.Tensor:
    mask = torch.zeros(1, height, width)
    mask[..., : width // 2] = 1
    return mask


class Studio:
    def __init__(self, host, model, clip):
        self.host, self.model, self.clip = host, model, clip
        self._encoded = {}

    def encode(self, text: str) -> list:
        if text not in self._encoded:
            self._encoded[text] = self.host.call("CLIPTextEncode", clip=self.clip, text=text)[0]
        return self._encoded[text]

    def eta(self, **changes):
        inputs = dict(preset="constant", start_t=0.0, start_eta=0.0, end_t=1.0, end_eta=0.4, power=1.0)
        return self.host.call("EtaSchedule", **inputs | changes)[0]

    def invert_both(self, **changes):
        """EtaInversion's two outputs."""
        inputs = dict(
            model=self.model, latent_image=picture(), steps=STEPS, cfg=1.0, scheduler="ddim_uniform"
        )
        inputs |= {} if "positive" in changes else {"positive": self.encode(SOURCE)}
        return self.host.call("EtaInversion", **inputs | changes)

    def invert(self, **changes):
        return self.invert_both(**changes)[0]

    def region(self, inversion, words: str, **changes):
        """AttentionMask's two outputs."""
        inputs = dict(clip=self.clip, threshold=0.2, grow=0, blur=0.0, invert=False, source_prompt=SOURCE)
        return self.host.call("AttentionMask", inversion=inversion, words=words, **inputs | changes)

    def edit_both(self, inversion, **changes) -> tuple[torch.Tensor, torch.Tensor]:
        """The samples of EtaSampler's two outputs."""
        inputs = dict(model=self.model, cfg=3.0, seed=7, noise_candidates=3, noise_blend=0.0)
        inputs |= {
            name: self.encode(text)
            for name, text in (("positive", TARGET), ("negative", ""))
            if name not in changes
        }
        inputs |= {} if "eta" in changes else {"eta": self.eta()}
        edited, source = self.host.call("EtaSampler", inversion=inversion, **inputs | changes)
        return edited["samples"], source["samples"]

    def edit(self, inversion, **changes) -> torch.Tensor:
        return self.edit_both(inversion, **changes)[0]

    def stock(self, model=None, steps: int = 3) -> torch.Tensor:
        """The host's own KSampler."""
        (sampled,) = self.host.call(
            "KSampler",
            model=model or self.model,
            seed=3,
            steps=steps,
            cfg=5.0,
            sampler_name="euler",
            scheduler="normal",
            positive=self.encode(TARGET),
            negative=self.encode(""),
            latent_image=picture(),
            denoise=1.0,
        )
        return sampled["samples"]
