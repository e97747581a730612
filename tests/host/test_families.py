"""Every UNet family through the pack's nodes: what works on one works on all."""

import pytest
import torch

from devtools.studio import SOURCE, TARGET, Studio, left_half, picture
from tests.host import families
from tests.host.test_methods import masa_ctrl, plug_and_play, prompt_to_prompt
from tests.host.test_sampling import close, pack

ODD = (9, 13)


class Quick(Studio):
    """Two steps to the noise, as these networks are large."""

    def invert_both(self, **changes):
        return super().invert_both(**dict(steps=2, scheduler="normal") | changes)

    def neutral(self):
        return self.eta(end_eta=0.0)


@pytest.fixture(scope="module")
def family_studio(host):
    made = {}

    def of(name: str) -> Quick:
        if name not in made:
            made.clear()  # one at a time: they are large
            made[name] = Quick(host, *families.load(host, name))
        return made[name]

    return of


@pytest.fixture(scope="module", params=families.FAMILIES)
def family(family_studio, request) -> Quick:
    return family_studio(request.param)


@pytest.fixture(scope="module")
def inverted(family):
    return family.invert()


def test_noise_that_aims_at_the_source_ends_nearer_to_it_than_random_noise(family, inverted):
    """Measured over the families: the blended noise ends 2 to 8 % nearer."""
    source = picture()["samples"]
    same = dict(positive=family.prompt(SOURCE), cfg=1.0, eta=family.eta(end_eta=1.0))
    random = family.edit(inverted, noise_candidates=1, **same)
    aimed = family.edit(inverted, noise_blend=1.0, **same)
    assert (aimed - source).square().mean() < 0.98 * (random - source).square().mean()


def test_an_edit_friendly_inversion_plays_back_exactly(family):
    inversion = family.invert(inverter="edit_friendly")
    played = family.edit(inversion, positive=family.prompt(SOURCE), eta=family.neutral())
    assert close(played, picture()["samples"], 1e-3)


def test_words_have_regions_of_their_own(family, inverted):
    cat, bench = (family.region(inverted, words, threshold=0.0)[0] for words in ("cat", "bench"))
    assert cat.shape == (1, 64, 64) and float((cat - bench).abs().max()) > 0.05
    with pytest.raises(ValueError, match="its words are: a, cat, sitting, on, bench"):
        family.region(inverted, "dog")


def test_outside_a_locked_mask_nothing_changes(family, inverted):
    edited, source = family.edit(inverted, mask=left_half(), background_lock=1.0), picture()["samples"]
    assert close(edited[..., 4:], source[..., 4:]) and not close(edited[..., :4], source[..., :4], 0.01)


@pytest.fixture(scope="module")
def two_pictures(family):
    """Their inversion in one step, and its edits without a method by their prompts."""
    inverted = family.invert(latent_image=picture(batch=2), steps=1)
    return inverted, {text: family.edit(inverted, positive=family.prompt(text)) for text in (SOURCE, TARGET)}


@pytest.mark.parametrize(
    "method, inputs",
    [
        (prompt_to_prompt, dict(cross_replace_end=1.0, self_replace_end=1.0, equalizer=1.0)),
        (masa_ctrl, {}),
        (plug_and_play, dict(feature_end=1.0, attention_end=1.0)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_method_injects_what_is_the_pictures_own_source(family, two_pictures, method, inputs):
    """In the first step both branches stand on the same point: where both prompts are equal, the source
    injects what the target has already. Rows of another picture would differ even then.
    """
    inverted, plain = two_pictures

    def effect(text: str) -> float:
        steered = method(family, inverted, target=text, **inputs) if method is prompt_to_prompt else None
        edit = steered or method(family, inverted, **inputs)
        edited = family.edit(inverted, positive=family.prompt(text), edit=edit)
        return float((edited - plain[text]).abs().max() / plain[text].std())

    assert effect(SOURCE) < 1e-4 and effect(TARGET) > 0.05


@pytest.fixture(scope="module")
def plain(family, inverted):
    return family.edit(inverted)


def test_a_batch_of_an_odd_size_is_each_picture_alone(family):
    batch = picture(batch=2, size=ODD)["samples"]

    def edited(latent):
        inversion = family.invert(latent_image={"samples": latent})
        assert inversion.trajectory.maps is not None
        return family.edit(inversion, noise_candidates=2)

    together = edited(batch)
    assert together.shape == batch.shape
    assert close(together[1:], edited(batch[1:]), 1e-3)


def test_one_call_for_both_branches_gives_what_two_give(family, inverted, plain, host, monkeypatch):
    monkeypatch.setattr(pack(host, "host.sampling").BranchGuider, "_can_join", lambda *names: False)
    assert close(family.edit(inverted), plain, 1e-4)


# --- inpainting checkpoints -----------------------------------------------------------------------

INPAINTING = ["SD1.5 inpainting", "SDXL inpainting"]


def told(studio, texts: tuple[str, ...]) -> list:
    """Conditionings as InpaintModelConditioning leaves them: the picture, its left half unknown."""
    conditions = [[[cond, dict(extra)] for cond, extra in studio.prompt(text)] for text in texts]
    for condition in conditions:
        for _, extra in condition:
            extra["concat_latent_image"], extra["concat_mask"] = (
                picture(seed=2)["samples"],
                left_half()[:, None],
            )
    return conditions


@pytest.mark.parametrize("name", INPAINTING)
def test_an_inpainting_model_sees_the_same_hole_in_both_branches(family_studio, name, caplog):
    studio = family_studio(name)
    source, target, negative = told(studio, (SOURCE, TARGET, ""))
    inversion = studio.invert(positive=source)
    edited = studio.edit(inversion, positive=target, negative=negative)
    assert not close(edited, studio.edit(studio.invert()), 0.01)
    same = studio.edit(inversion, positive=source, negative=negative, cfg=1.0, eta=studio.neutral())
    other = studio.edit(inversion, positive=studio.prompt(SOURCE), cfg=1.0, eta=studio.neutral())
    source_latent = picture()["samples"]
    assert (same - source_latent).abs().mean() < (other - source_latent).abs().mean()
    assert "InpaintModelConditioning" in caplog.text


def test_the_same_hole_is_not_warned_of(family_studio, caplog):
    studio = family_studio("SD1.5 inpainting")
    source, target, negative = told(studio, (SOURCE, TARGET, ""))
    studio.edit(studio.invert(positive=source), positive=target, negative=negative)
    assert "InpaintModelConditioning" not in caplog.text


def test_every_variant_of_a_batch_sees_its_own_picture(family_studio):
    studio = family_studio("SD1.5 inpainting")
    prompts = told(studio, (SOURCE, TARGET, ""))
    for prompt in prompts:
        prompt[0][1]["concat_latent_image"] = torch.cat([picture(seed=seed)["samples"] for seed in (2, 3)])
        prompt[0][1]["concat_mask"] = torch.cat([left_half(), 1 - left_half()])[:, None]
    source, target, negative = prompts
    inversion = studio.invert(positive=source, latent_image=picture(batch=2))
    both = dict(positive=target, negative=negative)
    together = studio.edit(inversion, variants=2, **both)
    assert close(together, torch.cat([studio.edit(inversion, seed=7 + i, **both) for i in range(2)]), 1e-4)


# --- forms of one network -------------------------------------------------------------------------


def sampled(studio, **inputs):
    return studio.host.call("ModelSamplingDiscrete", model=studio.model, **inputs)[0]


FORMS = {  # the picture that a network's output stands for at x, sigma
    "v_prediction": (
        "V_PREDICTION",
        lambda v, x, sigma: x / (1 + sigma**2) - v * sigma / (1 + sigma**2) ** 0.5,
    ),
    "x0": ("X0", lambda x0, x, sigma: x0),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_form_of_a_network_and_its_eps_form_have_the_same_trajectory(family_studio, form):
    studio = family_studio("SD2.1 v")
    eps, other = (sampled(studio, sampling=name, zsnr=False) for name in ("eps", form))
    kind, denoised = FORMS[form]

    def as_other(apply_model, arguments):
        """What the host takes for eps is the other form's output."""
        x, sigma = arguments["input"], arguments["timestep"].view(-1, 1, 1, 1)
        output = (x - apply_model(x, arguments["timestep"], **arguments["c"])) / sigma
        return denoised(output, x, sigma)

    eps.set_model_unet_function_wrapper(as_other)
    ours, theirs = studio.invert(model=other).trajectory, studio.invert(model=eps).trajectory
    assert (ours.signature["prediction"], theirs.signature["prediction"]) == (kind, "EPS")
    assert close(ours.x, theirs.x, 1e-4)


def test_a_zero_terminal_snr_model_begins_at_pure_noise(family_studio):
    studio = family_studio("SD2.1 v")
    model = sampled(studio, sampling="v_prediction", zsnr=True)
    inversion = studio.invert(model=model)
    assert inversion.trajectory.grid.sigmas[-1] > 4000
    assert bool(studio.edit(inversion, model=model).isfinite().all())
    friendly = studio.invert(model=model, inverter="edit_friendly")
    played = studio.edit(friendly, model=model, positive=studio.prompt(SOURCE), eta=studio.neutral())
    assert close(played, picture()["samples"], 1e-3)


@pytest.mark.parametrize("scheduler", ["ddim_uniform", "sgm_uniform"])
def test_a_distilled_model_of_few_steps(family_studio, scheduler):
    studio = family_studio("SD2.1 v")
    model = sampled(studio, sampling="lcm", zsnr=False)
    inversion = studio.invert(model=model, steps=4, scheduler=scheduler)
    edited = studio.edit(inversion, model=model, eta=studio.eta(end_eta=1.0), cfg=1.5)
    assert bool(edited.isfinite().all())
    friendly = studio.invert(model=model, steps=4, scheduler=scheduler, inverter="edit_friendly")
    played = studio.edit(friendly, model=model, positive=studio.prompt(SOURCE), eta=studio.neutral())
    assert close(played, picture()["samples"], 1e-4)


# --- precision and memory -------------------------------------------------------------------------


def agreement(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_near_single(host, studio, checkpoint, inversion, dtype):
    import comfy.sd

    path = str(host.base / "models/checkpoints" / checkpoint)
    model = comfy.sd.load_diffusion_model(path, model_options={"dtype": dtype})
    model.model.manual_cast_dtype = None  # the tests' host casts up
    half = studio.invert(model=model).trajectory
    assert agreement(half.x[-1], inversion.trajectory.x[-1]) > 0.99
    assert not torch.equal(half.x, inversion.trajectory.x)


def test_weights_in_8_bits_are_near_single(family_studio):
    studio = family_studio("SD2.0")
    (model,) = studio.host.call("UNETLoader", unet_name="SD2.0.safetensors", weight_dtype="fp8_e4m3fn")
    eighth, single = studio.invert(model=model).trajectory, studio.invert().trajectory
    assert agreement(eighth.x[-1], single.x[-1]) > 0.98
    assert not torch.equal(eighth.x, single.x)


def test_a_large_inversion_of_sdxl_keeps_less_than_60_mb(family_studio):
    """1024 px, 50 steps, three chunks of prompt: the recorder's maps and the 51 points, in float32."""
    studio = family_studio("SDXL")
    size, prompt = (128, 128), studio.prompt("a cat on a bench " * 40)
    assert prompt[0][0].shape[1] == 231
    recorder = pack(studio.host, "host").MapRecorder(studio.model, prompt, size)
    maps = 4 * prompt[0][0].shape[1] * recorder._reader.grid[0] * recorder._reader.grid[1]
    points = 4 * 51 * 4 * size[0] * size[1]
    assert maps + points < 60e6
