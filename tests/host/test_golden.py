"""Parity with the paper authors' program on a seeded network; tests/golden/README.md says how its numbers
were made.
"""

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from devtools.golden import build
from devtools.studio import SOURCE, TARGET, Studio

GOLDEN = Path(__file__).parents[1] / "golden"
SCALE = 0.18215  # of SD1's LATENT against the model's own latents
TOLERANCE = 5e-4  # of the reference's deviation


def case(name: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / f"{name}.s5.safetensors")


@pytest.fixture(scope="module", autouse=True)
def all_cores():
    """This network is large enough to be quicker on more than one thread, unless tests run beside it."""
    threads = torch.get_num_threads()
    if "PYTEST_XDIST_WORKER" not in os.environ:
        torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def studio(host, add_checkpoint) -> Studio:
    name = add_checkpoint("golden", build.golden)
    return Studio(host, *host.call("CheckpointLoaderSimple", ckpt_name=name)[:2])


@pytest.fixture(scope="module")
def inverted(studio):
    return studio.invert_both(latent_image={"samples": case("direct_simple")["z0"] / SCALE}, steps=5)


@pytest.fixture
def near(record_property):
    """Compares to the tolerance and keeps the figure for the report."""

    def check(name: str, ours: torch.Tensor, reference: torch.Tensor) -> None:
        error = float((ours - reference).abs().max() / reference.std())
        record_property(name, f"{error:.2e}")
        print(f"{name}: max error {error:.2e} x std")
        assert error <= TOLERANCE

    return check


def edit(studio, inversion, **changes):
    """(edited, source) in the model's own latents, as the reference's settings make them."""
    inputs = dict(cfg=7.5, noise_candidates=10, seed=0, parity=True)
    return [samples * SCALE for samples in studio.edit_both(inversion, **inputs | changes)]


def word_mask(place: int, threshold: float) -> torch.Tensor:
    region = (case("eta_paper_mask06_simple")["attn_mean"][place] > threshold).float()
    return F.interpolate(region[None, None], scale_factor=8, mode="nearest")[0]


def test_prompts_are_encoded_as_the_reference_encodes_them(studio, near):
    reference = case("direct_simple")
    near("source prompt", studio.prompt(SOURCE)[0][0][0], reference["ctx_src"])
    near("target prompt", studio.prompt(TARGET)[0][0][0], reference["ctx_tgt"])


def test_the_trajectory_is_the_references(inverted, near):
    near("trajectory", inverted[0].trajectory.latents[:, 0], case("direct_simple")["trajectory"])


ONCE = [(i, word) for i, word in enumerate(SOURCE.split()) if SOURCE.split().count(word) == 1]


@pytest.mark.parametrize("threshold", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
@pytest.mark.parametrize(("place", "word"), ONCE, ids=[word for _, word in ONCE])
def test_the_mask_of_a_word_is_the_references_pixel_for_pixel(studio, inverted, place, word, threshold):
    """Of words that stand once: where one stands twice the reference keeps one map for both places."""
    region, _ = studio.region(inverted[0], word, threshold=threshold)
    assert torch.equal(region, word_mask(place, threshold))


def test_an_edit_without_eta_is_the_references(studio, inverted, near):
    edited, source = edit(studio, inverted[0], eta=studio.eta(end_eta=0.0))
    near("direct_simple edited", edited, case("direct_simple")["edited"])
    near("direct_simple source", source, case("direct_simple")["source"])


def test_an_edit_with_eta_everywhere_is_the_references(studio, inverted, near):
    edited, _ = edit(studio, inverted[0], eta=studio.eta(preset="linear"))
    near("eta_linear_nomask_simple edited", edited, case("eta_linear_nomask_simple")["edited"])


def test_an_edit_with_the_papers_eta_in_a_mask_is_the_references(studio, inverted, near):
    region, _ = studio.region(inverted[0], "cat", threshold=0.6)
    edited, _ = edit(studio, inverted[0], eta=studio.eta(preset="paper_strong"), mask=region, seed=5)
    near("eta_paper_mask06_simple edited", edited, case("eta_paper_mask06_simple")["edited"])


def test_prompt_to_prompt_refinement_is_the_references(studio, inverted, near):
    (method,) = studio.host.call(
        "EtaPromptToPrompt",
        inversion=inverted[0],
        clip=studio.clip,
        positive=studio.prompt(TARGET),
        mode="refine",
        source_prompt=SOURCE,
        target_prompt=TARGET,
        **PAPERS_PROMPT_TO_PROMPT,
    )
    region, _ = studio.region(inverted[0], "cat", threshold=0.2)
    edited, _ = edit(
        studio, inverted[0], eta=studio.eta(preset="paper_gentle"), mask=region, seed=3, edit=method
    )
    near("eta_paper_mask_ptp_refine edited", edited, case("eta_paper_mask_ptp_refine")["edited"])


UGLY = "ugly, blurry, black, low res, unrealistic"  # the program's negative prompt with Plug-and-Play


@pytest.mark.parametrize(("name", "negative"), [("eta_paper_pnp", UGLY), ("eta_paper_pnp_noneg", "")])
def test_plug_and_play_is_the_references(studio, inverted, near, name, negative):
    """Parity makes the source's row under the empty prompt the one giver, and lets it choose the noise."""
    prompt = studio.prompt(negative)
    if negative:
        near("negative prompt", prompt[0][0][0], case(name)["ctx_neg"])
    method = studio.plug_and_play(source_negative=studio.prompt(""))
    same = dict(eta=studio.eta(preset="paper_gentle"), seed=7, edit=method, negative=prompt)
    edited, _ = edit(studio, inverted[0], **same)
    near(f"{name} edited", edited, case(name)["edited"])


def test_masactrl_is_the_references(studio, inverted, near):
    """Step 4 of 5: it acts in the last step only."""
    method = studio.masactrl(start=0.8)
    edited, _ = edit(studio, inverted[0], eta=studio.eta(preset="paper_gentle"), seed=7, edit=method)
    near("eta_paper_masactrl edited", edited, case("eta_paper_masactrl")["edited"])


def test_edit_friendly_inversion_is_the_references(studio, near):
    """Its noise was recorded at guidance 1, 36 % of the steps are skipped, the source branch runs freely."""
    reference = case("ef_simple")
    inversion = studio.invert(
        latent_image={"samples": reference["z0"] / SCALE}, steps=5, inverter="edit_friendly", inversion_seed=0
    )
    near("ef_simple trajectory", inversion.trajectory.latents[:, 0], reference["trajectory"])
    edited, source = edit(studio, inversion, eta=studio.eta(end_eta=0.0), cfg=9.0, source_cfg=3.5, start=0.64)
    near("ef_simple edited", edited, reference["edited"])
    near("ef_simple source", source, reference["source"])


PAPERS_PROMPT_TO_PROMPT = dict(
    cross_replace_start=0.0,
    cross_replace_end=0.4,
    self_replace_start=0.0,
    self_replace_end=0.6,
    word_steps="",
    equalizer=2.0,
    equalizer_words="dog",
    local_blend=True,
    blend_words="cat, dog",
    blend_threshold=0.3,
    blend_start=0.2,
)


def play_back(studio, inversion, latent: dict, prompt: str, cfg: float) -> torch.Tensor:
    """Plain DDIM from the noise end through the host's SamplerCustomAdvanced, in the model's own latents."""
    call = studio.host.call
    (sigmas,) = call("EtaSigmas", inversion=inversion)
    (guider,) = call(
        "CFGGuider", model=studio.model, positive=studio.prompt(prompt), negative=studio.prompt(""), cfg=cfg
    )
    (sampler,) = call("EtaSamplerSelect", eta=studio.eta(end_eta=0.0))
    (noise,) = call("DisableNoise")
    played, _ = call(
        "SamplerCustomAdvanced",
        noise=noise,
        guider=guider,
        sampler=sampler,
        sigmas=sigmas,
        latent_image=latent,
    )
    return played["samples"] * SCALE / float(1 + sigmas[-1] ** 2) ** 0.5


def test_plain_ddim_through_the_hosts_sampler_drifts_as_the_references(studio, inverted, near):
    played = play_back(studio, *inverted, SOURCE, 7.5)
    near("ddim_simple source", played, case("ddim_simple")["source"])
