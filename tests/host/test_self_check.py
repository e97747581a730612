"""EtaInversion's self_check: how well the trajectory plays back."""

import logging

import pytest
import torch

from devtools.studio import SOURCE, STEPS, picture


def check(studio, **changes):
    """The node's whole output, run as the executor runs it."""
    inputs = dict(
        model=studio.model, positive=studio.prompt(SOURCE), latent_image=picture(), steps=STEPS, cfg=1.0
    )
    inputs |= dict(scheduler="ddim_uniform", self_check=True)
    node = studio.host.nodes.NODE_CLASS_MAPPINGS["EtaInversion"]
    with torch.inference_mode():
        return node.PREPARE_CLASS_CLONE({}).EXECUTE_NORMALIZED(**inputs | changes)


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, "eta-inversion")
    return caplog


def drift_in(text: str) -> float:
    return float(text.split("drifts by ")[1].split()[0])


def test_it_changes_nothing_in_the_inversion(studio, inversion):
    assert torch.equal(check(studio).result[0].trajectory.x, inversion.trajectory.x)


def test_it_costs_nothing_when_it_is_off(studio, said):
    assert check(studio, self_check=False).ui is None
    assert "drifts" not in said.text and "4 rows" in said.text


def test_it_draws_the_drift_of_every_step(studio):
    (shown,) = check(studio).ui.as_dict()["images"]
    assert (studio.host.base / shown["type"] / shown["subfolder"] / shown["filename"]).stat().st_size > 1000


def test_the_drift_it_says_is_what_an_edit_without_change_loses(studio, said):
    """Eta 0, the source prompt for target: EtaSampler then plays back the same trajectory."""
    inverted = check(studio).result[0]
    source = picture()["samples"]
    played = studio.edit(inverted, positive=studio.prompt(SOURCE), eta=studio.eta(end_eta=0.0), cfg=1.0)
    expected = float((played - source).square().mean().sqrt() / source.std())
    assert drift_in(said.text) == pytest.approx(expected, abs=0.006)


def test_a_guidance_too_high_is_warned_of_loudly(studio, said):
    check(studio, cfg=20.0, negative=studio.prompt(""))
    assert drift_in(said.text) > 0.5
    (record,) = [r for r in said.records if r.levelname == "WARNING" and "hardly this picture's" in r.message]
    assert "Set cfg to 1" in record.message


def test_edit_friendly_needs_no_check(studio, said):
    assert check(studio, inverter="edit_friendly").ui is None
    assert "plays back exactly" in said.text


@pytest.mark.parametrize(
    "latent", [torch.zeros(1, 4, 8, 8), 1e-4 * picture()["samples"]], ids=["flat", "nearly flat"]
)
def test_a_flat_latent_is_not_measured(studio, said, latent):
    assert check(studio, latent_image={"samples": latent}).ui is None
    assert "the latent is flat" in said.text


def test_a_vae_of_another_model_is_refused_before_the_inversion(studio, said):
    from types import SimpleNamespace

    with pytest.raises(ValueError, match="vae makes latents of 16 channels, the model takes 4"):
        check(studio, vae=SimpleNamespace(latent_channels=16))
    assert "rows" not in said.text
