"""EtaFlowEdit in the host, on a diffusion model and on flow models."""

import logging
import re

import pytest
import torch

from devtools.studio import left_half, picture
from tests.host.flow import FAMILIES
from tests.host.test_errors import raises
from tests.host.test_flow import FlowStudio
from tests.host.test_methods import region_edit
from tests.host.test_sampling import close


@pytest.fixture(scope="module", params=["SD1", *FAMILIES])
def any_studio(request, host):
    if request.param == "SD1":
        return request.getfixturevalue("studio")
    return FlowStudio(host, *FAMILIES[request.param](host))


def latent_of(studio) -> dict:
    return studio.picture() if isinstance(studio, FlowStudio) else picture()


def mask_of(latent: dict) -> torch.Tensor:
    return left_half(*(8 * side for side in latent["samples"].shape[-2:]))


def test_the_source_prompt_and_guidance_on_both_sides_change_nothing(any_studio):
    latent = latent_of(any_studio)
    same = dict(positive=any_studio.prompt(any_studio.defaults.source), source_cfg=3.0, cfg=3.0)
    assert close(any_studio.flow_edit(latent, **same), latent["samples"], 2e-3)
    assert not close(any_studio.flow_edit(latent), latent["samples"], 0.05)


def test_outside_the_mask_the_picture_is_the_source_and_inside_it_is_not(any_studio):
    latent = latent_of(any_studio)
    edited, source = any_studio.flow_edit(latent, mask=mask_of(latent)), latent["samples"]
    middle = source.shape[-1] // 2
    assert close(edited[..., middle:], source[..., middle:])
    assert not close(edited[..., :middle], source[..., :middle], 0.05)


def test_a_region_has_its_own_prompt(studio):
    latent = picture()
    mask, unchanged = mask_of(latent), dict(positive=studio.prompt(studio.defaults.source), source_cfg=3.0)
    edit = region_edit(studio, "a red fox in the snow", mask)
    edited = studio.flow_edit(latent, edit=edit, cfg=3.0, background_lock=0.0, **unchanged)
    moved = (edited - latent["samples"]).abs().mean((0, 1, 2))
    assert moved[: len(moved) // 2].mean() > 3 * moved[len(moved) // 2 :].mean()


def test_a_later_start_asks_the_network_less_often_and_changes_less(studio, caplog):
    latent, rows, moves = picture(), [], []
    for start in (1.0, 0.5):
        caplog.clear()
        with caplog.at_level(logging.INFO, "eta-inversion"):
            edited = studio.flow_edit(latent, start=start)
        rows.append(int(re.search(r"(\d+) rows through the network", caplog.text)[1]))
        moves.append(float((edited - latent["samples"]).square().mean()))
    assert rows == [16, 8]  # 4 steps, two prompts with their negative
    assert moves[0] > moves[1] > 0


def test_the_seed_and_eta_matter(studio):
    latent = picture()
    plain = studio.flow_edit(latent)
    assert torch.equal(plain, studio.flow_edit(latent))
    assert torch.equal(plain, studio.flow_edit(latent, eta=studio.eta(end_eta=1.0)))
    assert not close(plain, studio.flow_edit(latent, seed=8), 1e-3)
    assert not close(plain, studio.flow_edit(latent, eta=studio.eta(end_eta=0.0)), 1e-3)


def test_a_missing_source_prompt_is_told(studio):
    with raises("source is empty", "connect the prompt that describes the picture"):
        studio.flow_edit(picture(), source=[])
