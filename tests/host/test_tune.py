"""EtaTune on the small model: what it hands out is what EtaSampler and EtaMetrics then give."""

import json
import logging
import math
from types import SimpleNamespace

import pytest
import torch

from devtools.studio import SOURCE, STEPS, TARGET, left_half, picture
from eta_core.evidence.metrics import background_psnr
from eta_core.evidence.tune import PROBES
from tests.host.flow import FAMILIES
from tests.host.test_clean import At, before, cancel, explode, spoil, unharmed  # noqa: F401 (fixtures)
from tests.host.test_flow import FlowStudio
from tests.host.test_methods import area, blended, masa_ctrl, region_edit


def small_vae(channels: int):
    """The host's small autoencoder, seeded."""
    import comfy.sd
    from comfy.taesd.taesd import TAESD

    generator, blank = torch.Generator().manual_seed(0), TAESD(latent_channels=channels).state_dict()
    weights = {
        name: torch.randn(value.shape, generator=generator) / value[0].numel() ** 0.5
        for name, value in blank.items()
        if value.ndim > 1
    }
    rest = {name: torch.zeros_like(value) for name, value in blank.items() if value.ndim <= 1}
    return comfy.sd.VAE(weights | rest | {"vae_scale": torch.tensor(1.0)})


@pytest.fixture(scope="module")
def vae(host):
    return small_vae(4)


@pytest.fixture(scope="module")
def image(host, vae):
    return host.call("VAEDecode", vae=vae, samples=picture())[0]


@pytest.fixture(scope="module")
def example(studio, inversion, image):
    def make(**changes):
        inputs = dict(image=image, inversion=inversion, positive=studio.prompt(TARGET), mask=left_half())
        return studio.host.call("EtaTuneExample", **inputs | changes)[0]

    return make


@pytest.fixture(scope="module")
def tune(studio, vae):
    def run(examples, **changes):
        inputs = dict(
            model=studio.model,
            vae=vae,
            negative=studio.prompt(""),
            cfg=3.0,
            seed=7,
            background_limit=0.0,
            curve="start, peak, power",
            trials=4,
            noise_candidates=3,
        )
        return studio.host.call("EtaTune", examples=examples, **inputs | changes)

    return run


@pytest.fixture(scope="module")
def tuned(example, tune):
    """(eta, picture, settings) of a search of six trials that asks for the source, and what it logged."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("eta-inversion")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        eta, drawn, settings = tune(example(), trials=6, parity=True)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return SimpleNamespace(eta=eta, drawn=drawn, settings=json.loads(settings), lines=lines)


def figures(settings: str) -> list[tuple[float, float]]:
    return [(trial["background_psnr"], trial["edit"]) for trial in json.loads(settings)["trials"]]


def dotted() -> torch.Tensor:
    """A mask of 0 in single pixels, of which nothing is left at the picture's size."""
    mask = torch.ones(1, 128, 128)
    mask[:, ::2, ::2] = 0
    return mask


def measured(studio, vae, image, edited: torch.Tensor, mask: torch.Tensor | None = None) -> float:
    """The background's PSNR by the nodes behind the sampler."""
    (decoded,) = studio.host.call("VAEDecode", vae=vae, samples={"samples": edited})
    found = studio.host.call(
        "EtaMetrics", source=image, edited=decoded, mask=left_half() if mask is None else mask
    )[0]
    return json.loads(found)["pictures"][0]["background_psnr"]


def test_its_curve_gives_the_sampler_the_background_that_was_measured(studio, vae, image, inversion, tuned):
    best = max(tuned.settings["trials"], key=lambda trial: trial["edit"])
    edited = studio.edit(inversion, eta=tuned.eta, mask=left_half(), parity=True)
    assert measured(studio, vae, image, edited) == pytest.approx(best["background_psnr"], abs=0.01)


def test_a_method_is_tuned_as_it_is_sampled(studio, vae, image, inversion, example, tune):
    edit = blended(studio, inversion)
    eta, _, settings = tune(example(edit=edit))
    expected, _ = max(figures(settings), key=lambda trial: trial[1])
    edited = studio.edit(inversion, eta=eta, mask=left_half(), edit=edit)
    assert measured(studio, vae, image, edited) == pytest.approx(expected, abs=0.01)


def test_its_settings_make_the_same_curve_in_eta_schedule(studio, tuned):
    again = studio.eta(**tuned.settings["best"])
    assert [again(t / 50) for t in range(51)] == [tuned.eta(t / 50) for t in range(51)]


def test_it_draws_the_trials_and_the_curve(tuned):
    assert (
        tuple(tuned.drawn.shape) == (1, 288, 1024, 3)
        and 0 <= float(tuned.drawn.min()) < float(tuned.drawn.max()) <= 1
    )


def test_the_source_branch_is_asked_once_for_all_trials(tuned):
    """Its prediction at a step is the same whatever eta is: later trials ask the target alone."""
    rows = [int(line.split()[2]) for line in tuned.lines if "rows through the network" in line]
    edits, probes = rows[::2], rows[1::2]
    assert max(edits[:4]) > 2 * STEPS and edits[4:] == [2 * STEPS] * 2
    assert set(probes) == {2 * len(PROBES)}


def test_it_hands_out_the_most_edit_within_the_limit(example, tune, tuned):
    known = sorted((trial["background_psnr"], trial["edit"]) for trial in tuned.settings["trials"][:4])
    limit = (known[-2][0] + known[-1][0]) / 2
    *_, settings = tune(example(), background_limit=limit)
    (kept,) = [trial for trial in json.loads(settings)["trials"] if trial["background_psnr"] >= limit]
    assert kept["curve"].startswith(f"curve {json.loads(settings)['best']['curve']}, power")
    assert kept["edit"] == pytest.approx(known[-1][1])


def test_several_examples_are_kept_by_the_worst_and_edited_by_the_mean(studio, image, example, tune, tuned):
    other = studio.invert(latent_image=picture(2))
    two = figures(tune(example(inversion=other))[2])
    both = figures(tune(example(inversion=other, examples=example()))[2])
    one = [(trial["background_psnr"], trial["edit"]) for trial in tuned.settings["trials"]]
    for (psnr, edit), (psnr2, edit2), (worst, mean) in zip(one, two, both):
        assert worst == pytest.approx(min(psnr, psnr2), abs=1e-3)
        assert mean == pytest.approx((edit + edit2) / 2, abs=1e-4)


def test_a_free_curve_is_searched_over_a_batch(studio, vae, example, tune):
    batch = picture(batch=2)
    (image,) = studio.host.call("VAEDecode", vae=vae, samples=batch)
    eta, *_ = tune(example(image=image, inversion=studio.invert(latent_image=batch)), curve="free")
    assert len(eta.points) == 5


def test_a_further_region_is_no_background(studio, vae, image, inversion, example, tune):
    quarter = torch.zeros(1, 64, 64)
    quarter[..., 32:48] = 1
    edit = region_edit(studio, "a bird sitting on a bench", quarter)
    _, _, settings = tune(example(edit=edit), trials=4)
    edited = studio.edit(inversion, eta=studio.eta(end_eta=0.0), mask=left_half(), edit=edit)
    expected = measured(studio, vae, image, edited, left_half() + quarter)
    assert figures(settings)[0][0] == pytest.approx(expected, abs=0.01)
    assert abs(measured(studio, vae, image, edited) - expected) > 0.1


def test_a_mask_of_another_size_and_a_method_that_is_left_out_are_told_once_a_search(
    studio, example, tune, caplog
):
    (both,) = studio.host.call(
        "ConditioningCombine",
        conditioning_1=studio.prompt(TARGET),
        conditioning_2=area(studio, "a dog", 0),
    )
    tune(example(mask=left_half(128, 128), positive=both, edit=masa_ctrl(studio)))
    assert caplog.text.count("the mask is 128x128 pixels and was resized") == 1
    assert caplog.text.count("changes the attention's shape") == 1


def test_a_flow_model_is_tuned_in_its_own_frame(host):
    """As above: the curve gives its sampler the background that was measured."""
    flow = FlowStudio(host, *FAMILIES["SD3"](host))
    inversion, vae = flow.invert(), small_vae(16)
    source = {"samples": flow.edit_both(inversion)[1]}
    (image,) = host.call("VAEDecode", vae=vae, samples=source)
    mask = left_half(*image.shape[1:3])
    inputs = dict(image=image, inversion=inversion, positive=flow.prompt(TARGET), mask=mask)
    (examples,) = host.call("EtaTuneExample", **inputs)
    settings = dict(
        cfg=3.0, seed=7, background_limit=0.0, curve="start, peak, power", trials=4, noise_candidates=3
    )
    eta, _, found = host.call(
        "EtaTune", model=flow.model, vae=vae, examples=examples, negative=flow.prompt(""), **settings
    )
    expected, edit = max(figures(found), key=lambda trial: trial[1])
    edited = {"samples": flow.edit(inversion, eta=eta, mask=mask)}
    (decoded,) = host.call("VAEDecode", vae=vae, samples=edited)
    assert background_psnr(image, decoded, mask).item() == pytest.approx(expected, abs=0.01) and -1 < edit < 1


def test_a_limit_that_nothing_keeps_is_told_with_the_nearest(example, tune):
    rule = (
        r"background_limit is 98 dB, and none of 4 curves keeps it: the nearest comes to \d+\.\d+ \(curve 0"
    )
    with pytest.raises(ValueError, match=rule):
        tune(example(), background_limit=98.0)


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            lambda studio: {"positive": studio.prompt(SOURCE)},
            "example 1: the target prompt is the source prompt",
        ),
        (lambda studio: {"mask": torch.ones(1, 64, 64)}, "example 1: the mask, with those .* is nowhere 0"),
        (lambda studio: {"mask": dotted()}, "example 1: the mask, with those .* is nowhere 0"),
        (
            lambda studio: {"edit": region_edit(studio, "a bird", 1 - left_half())},
            "example 1: the mask, with those of the edit's regions, is nowhere 0",
        ),
        (lambda studio: {"image": torch.full((1, 64, 64, 3), math.nan)}, "example 1: image holds NaN"),
        (lambda studio: {"mask": torch.zeros(3, 64, 64)}, "example 1: the mask has 3 pictures, the latent 1"),
        (
            lambda studio: {"image": torch.zeros(1, 48, 64, 3)},
            "example 1: image is 64x48 pixels, the edited picture 64x64",
        ),
        (
            lambda studio: {"image": torch.zeros(3, 64, 64, 3)},
            "example 1: image has 3 pictures, the inversion 1",
        ),
    ],
)
def test_an_example_that_cannot_be_measured_is_refused_before_anything_runs(
    studio, example, tune, caplog, changes, message
):
    caplog.set_level("INFO", "eta-inversion")
    with pytest.raises(ValueError, match=message):
        tune(example(**changes(studio)))
    assert "rows through the network" not in caplog.text


def test_a_vae_of_another_model_is_refused(example, tune):
    with pytest.raises(ValueError, match="vae makes latents of 16 channels, the model takes 4"):
        tune(example(), vae=SimpleNamespace(latent_channels=16))


def test_a_vae_that_overflows_is_named(example, tune, vae):
    broken = SimpleNamespace(latent_channels=4, decode=lambda samples: vae.decode(samples) * float("nan"))
    with pytest.raises(ValueError, match="the VAE gave NaN or infinite pixels"):
        tune(example(), vae=broken)


@pytest.mark.parametrize("act", [explode, spoil, cancel])
@pytest.mark.parametrize("call", [2, STEPS + 2], ids=["in an edit", "in a measure"])
def test_the_model_survives_a_search_that_ends(studio, example, tune, unharmed, act, call):  # noqa: F811 (a fixture)
    import comfy.model_management

    run = At(studio.model, call, act)
    with pytest.raises((RuntimeError, ValueError, comfy.model_management.InterruptProcessingException)):
        tune(example(), model=run.model)
    assert run.calls <= call + 1
