"""The embedded flow model in the host: what is shipped is what was trained, and its words find things."""

import pytest
import torch

from devtools.demo import pack, scenes
from devtools.demo.studio import FlowDemoStudio, pixels_of
from devtools.demo.words import encode_caption
from eta_core.evidence import metrics

PROMPT = "a photo of a red heart on the sand"


@pytest.fixture(scope="module")
def model(host) -> FlowDemoStudio:
    return FlowDemoStudio(host)


@torch.no_grad()
def test_the_host_runs_the_very_network_that_was_trained(model):
    networks, mean, std = pack.read_flow()
    rows, weights = encode_caption([PROMPT])
    z, sigma = torch.randn(1, 16, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0.4])
    wide = model.model.model.diffusion_model.float()
    found = wide(z, 1000 * sigma, context=model.prompt(PROMPT)[0][0].float().clone())
    expected = networks["flow"](z, sigma, pack.read()[0]["text"](rows), weights)
    assert type(model.model.model).__name__ == "SD3"
    assert (found - expected).abs().max() < 0.01 * expected.std()
    latent = model.model.model.process_latent_in(model.latent["samples"])
    expected = (networks["encoder"](model.picture.movedim(-1, 1)) - mean) / std
    torch.testing.assert_close(latent, expected, rtol=0, atol=0.01)


def test_a_picture_is_played_back_and_its_word_found(model):
    scene = scenes.render(scenes.VALIDATION + 5, "panda", "grass")
    prompt, latent = model.prompt(scene.prompt), model.encode(pixels_of([scene]))
    inversion = model.invert(positive=prompt, latent_image=latent, steps=10, inverter="warm")
    back = model.edit(inversion, positive=prompt, cfg=1.0, eta=model.eta(preset="constant", end_eta=0.0))
    assert (back - latent["samples"]).square().mean().sqrt() < 0.2 * latent["samples"].std()
    mask, _ = model.region(inversion, "panda", threshold=0.4, source_prompt=scene.prompt)
    truth = torch.from_numpy(scene.mask.copy())[None] > 127
    assert metrics.iou(mask > 0.5, truth) > 0.4


def test_half_of_the_blocks_at_a_step_find_the_word_as_all_do(model, monkeypatch, blocks_read):
    joint = model.host.module("host.families.joint")
    scene = scenes.render(scenes.VALIDATION + 5, "panda", "grass")
    given = {"positive": model.prompt(scene.prompt), "latent_image": model.encode(pixels_of([scene]))}
    counts, masks = [], []
    for most in (4, 2):
        monkeypatch.setattr(joint, "MOST_READ", most)
        inversion = model.invert(**given, steps=20)
        masks.append(model.region(inversion, "panda", threshold=0.3, source_prompt=scene.prompt)[0] > 0.5)
        counts.append(len(blocks_read))
        blocks_read.clear()
    assert counts == [80, 40] and metrics.iou(*masks) > 0.97
