"""What a user can get wrong, and what the node says to it."""

import logging
import re
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from devtools.golden import build
from devtools.studio import SOURCE, STEPS, left_half, picture

SUFFIX = ".eta.safetensors"


def raises(*words: str):
    """ValueError whose message has all the words, in order."""
    return pytest.raises(ValueError, match="(?s)" + ".*".join(map(re.escape, words)))


def patched(studio, node: str, **inputs):
    return studio.host.call(node, model=studio.model, **inputs)[0]


# --- EtaInversion ---------------------------------------------------------------------------------


def test_guidance_without_a_negative_prompt(studio):
    with raises("cfg is 3", "negative", "set cfg to 1"):
        studio.invert(cfg=3.0)


def test_a_guidance_that_wants_a_negative_prompt_at_any_cfg(studio):
    model = patched(studio, "SelfAttentionGuidance", scale=0.5, blur_sigma=2.0)
    with raises("`negative` is not connected", "Self-Attention Guidance", "connect a negative prompt"):
        studio.invert(model=model)
    assert studio.invert(model=model, negative=studio.prompt("")).trajectory.x.isfinite().all()


def test_no_prompt_at_all(studio):
    with raises("positive is empty"):
        studio.invert(positive=[])


def test_more_steps_than_noise_levels(studio):
    with raises("steps = 1000", "1000 noise levels", "use 1 to 999"):
        studio.invert(steps=1000)


def test_a_scheduler_without_levels_for_the_steps(studio):
    with raises(
        "the scheduler kl_optimal has no noise levels for 1 steps", "use more steps, or another scheduler"
    ):
        studio.invert(steps=1, scheduler="kl_optimal")


def test_a_scheduler_that_repeats_a_level_names_it(studio):
    (few,) = studio.host.call("ModelSamplingDiscrete", model=studio.model, sampling="lcm", zsnr=False)
    with raises("noise levels must ascend strictly", "use fewer steps, or another scheduler") as told:
        studio.invert(model=few, steps=900, scheduler="simple")
    assert len(str(told.value)) < 300


def test_steps_that_end_far_from_the_noise(studio, caplog):
    studio.invert(steps=2)
    assert (
        "2 steps of ddim_uniform end at t = 0.50" in caplog.text and "use the scheduler normal" in caplog.text
    )
    caplog.clear()
    studio.invert(steps=2, scheduler="normal")
    assert "end at t" not in caplog.text


@pytest.mark.parametrize("node", ["EasyCache", "LazyCache"])
def test_a_model_that_reuses_predictions(studio, inversion, node):
    model = patched(studio, node, reuse_threshold=0.2, start_percent=0.15, end_percent=0.95, verbose=False)
    for run in (lambda: studio.invert(model=model), lambda: studio.edit(inversion, model=model)):
        with raises("EasyCache (LazyCache) is on this model", "Connect the model from before it"):
            run()


def test_weights_that_overflow_in_half_precision(host, studio, checkpoint):
    import comfy.sd

    path = str(host.base / "models/checkpoints" / checkpoint)
    model = comfy.sd.load_diffusion_model(path, model_options={"dtype": torch.float16})
    model.model.manual_cast_dtype = None  # the tests' host casts up
    assert bool(torch.isfinite(studio.invert(model=model).trajectory.x).all())
    with raises("step 1 of 4", "torch.float16 overflows", "--bf16-unet"):
        studio.invert(model=model, latent_image={"samples": 1e6 * picture()["samples"]})


EDM = dict(sampling="edm", sigma_max=80.0, sigma_min=0.002)


def test_an_edm_model(studio):
    with raises("predicts by EDM", "needs a diffusion model", "or a flow model"):
        studio.invert(model=patched(studio, "ModelSamplingContinuousEDM", **EDM))


@pytest.mark.parametrize("kind", ["IMG_TO_IMG", "V_PREDICTION_DDPM", "IMG_TO_IMG_FLOW", "COSMOS_RFLOW"])
def test_a_model_of_a_kind_that_no_formula_here_is_for(studio, kind):
    import comfy.model_sampling

    if not hasattr(comfy.model_sampling, kind):
        pytest.skip(f"this host has no {kind}")
    of_kind = type(
        kind, (comfy.model_sampling.ModelSamplingDiscrete, getattr(comfy.model_sampling, kind)), {}
    )
    model = studio.model.clone()
    model.add_object_patch("model_sampling", of_kind(studio.model.model.model_config))
    with raises(f"predicts by {kind}", "needs a diffusion model", "or a flow model"):
        studio.invert(model=model)


def test_a_model_on_several_gpus(studio):
    model = studio.model.clone()
    model.set_additional_models("multigpu", [studio.model.clone()])
    with raises("several GPUs at once (MultiGPU CFG Split)", "connect the model from before it"):
        studio.invert(model=model)


@pytest.mark.parametrize("shape", [(1, 16, 8, 8), (1, 3, 8, 8), (1, 4, 2, 8, 8)])
def test_a_latent_of_another_kind_of_model(studio, shape):
    with raises("latent_image has shape", "takes [batch, 4, height, width]", "VAE"):
        studio.invert(latent_image={"samples": torch.ones(shape)})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_latent_that_overflowed(studio, value):
    samples = picture()["samples"].clone()
    samples[0, 0, 0, 0] = value
    with raises("NaN or infinite", "--fp32-vae"):
        studio.invert(latent_image={"samples": samples})


def test_an_inpaint_latent_is_inverted_with_a_warning(studio, caplog):
    with caplog.at_level(logging.WARNING):
        studio.invert(latent_image=picture() | {"noise_mask": left_half()}, steps=1)
    assert "noise_mask is not used" in caplog.text


# --- EtaSchedule ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "curve, words",
    [
        ("0.6-0", ("curve point '0.6-0'", "t:eta")),
        ("0:0, 1:x", ("curve point '1:x'",)),
        ("0.5:0, 0.2:1", ("must ascend",)),
        ("0:0, 1:1.5", ("eta = 1.5",)),
        ("0:0, 2:1", ("t = 2.0",)),
    ],
)
def test_a_bad_curve(studio, curve, words):
    with raises(*words):
        studio.eta(preset="custom", curve=curve)


def test_a_start_behind_the_end(studio):
    with raises("must ascend"):
        studio.eta(preset="linear", start_t=0.8, end_t=0.2)


# --- AttentionMask --------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["", "  ", ", ,\n"])
def test_no_words(studio, inversion, words):
    with raises("words is empty", "type", "cat"):
        studio.region(inversion, words)


@pytest.mark.parametrize(
    "words, expected",
    [
        ("cat:much", ("'much'", "not a number")),
        ("cat:-1", ("weight -1", "above 0")),
        (":0.5", ("no word before the colon",)),
    ],
)
def test_words_with_a_bad_weight(studio, inversion, words, expected):
    with raises(*expected):
        studio.region(inversion, words)


def test_a_word_that_is_not_there(studio, inversion):
    with raises("dog", "its words are: a, cat, sitting, on, bench"):
        studio.region(inversion, "dog")


def test_a_threshold_that_leaves_nothing(studio, inversion):
    with raises("no pixel of 'cat'", "threshold 1", "reaches", "lower threshold"):
        studio.region(inversion, "cat", threshold=1.0)


def test_a_source_of_two_prompts_has_no_maps_and_says_so(studio):
    two = studio.host.call(
        "ConditioningCombine", conditioning_1=studio.prompt(SOURCE), conditioning_2=studio.prompt("a bench")
    )[0]
    with raises("no attention maps", "2 entries", "mask of your own"):
        studio.region(studio.invert(positive=two, steps=1), "cat")


BAD_MASKS = [
    (left_half(64, 128), ("128x64 pixels", "64x64", "same shape")),
    (left_half().repeat(3, 1, 1), ("3 pictures", "the latent 1")),
    (left_half() * 2, ("runs from 0 to 2", "0..1")),
    (left_half() * float("nan"), ("0..1",)),
]


@pytest.mark.parametrize("mask, words", BAD_MASKS)
def test_a_mask_that_does_not_fit_the_words(studio, inversion, mask, words):
    with raises(*words):
        studio.region(inversion, "cat", mask=mask)


# --- EtaSampler -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mask, words", BAD_MASKS)
def test_a_mask_that_does_not_fit_the_picture(studio, inversion, mask, words):
    with raises(*words):
        studio.edit(inversion, mask=mask)


def test_a_mask_of_another_size_is_resized_with_a_warning(studio, inversion, caplog):
    with caplog.at_level(logging.WARNING):
        small = studio.edit(inversion, mask=left_half(32, 32), noise_candidates=1)
    assert "32x32 pixels and was resized to the picture's 64x64" in caplog.text
    assert torch.equal(small, studio.edit(inversion, mask=left_half(), noise_candidates=1))


def test_a_background_lock_without_a_mask(studio, inversion):
    with raises("background_lock is 0.5", "connect a mask"):
        studio.edit(inversion, background_lock=0.5)


def test_an_inversion_of_another_prediction_type(studio, inversion):
    with raises("another kind of model", "prediction EPS against V_PREDICTION"):
        studio.edit(
            inversion, model=patched(studio, "ModelSamplingDiscrete", sampling="v_prediction", zsnr=False)
        )


def test_an_inversion_of_another_noise_range(studio, inversion):
    with raises("another kind of model", "noise levels"):
        studio.edit(inversion, model=patched(studio, "ModelSamplingDiscrete", sampling="eps", zsnr=True))


def test_other_weights_are_a_loud_warning(studio, inversion, add_checkpoint, caplog):
    name = add_checkpoint("other", lambda: build.small(other=True))
    other = studio.host.call("CheckpointLoaderSimple", ckpt_name=name)[0]
    with caplog.at_level(logging.WARNING):
        studio.edit(inversion, model=other, noise_candidates=1)
    assert re.search("made with another model .weights .* against", caplog.text)


def with_bias(studio, value: float):
    """The model under a LoRA-like patch of the output's bias."""
    model = studio.model.clone()
    model.add_patches({"diffusion_model.out.2.bias": (torch.full((4,), value),)}, 0.5)
    return model


def test_a_lora_is_a_loud_warning(studio, inversion, caplog):
    with caplog.at_level(logging.WARNING):
        studio.edit(inversion, model=with_bias(studio, 0.1), noise_candidates=1)
    assert "LoRA patches none against" in caplog.text


def test_another_lora_of_the_same_strength_is_a_loud_warning(studio, caplog):
    first, second = with_bias(studio, 0.1), with_bias(studio, 0.2)
    inverted = studio.invert(model=first, steps=1)
    with caplog.at_level(logging.WARNING):
        studio.edit(inverted, model=second, noise_candidates=1)
    assert "another model (LoRA patches" in caplog.text


def test_the_same_model_is_no_warning(studio, inversion, caplog):
    with caplog.at_level(logging.WARNING):
        studio.edit(inversion, model=studio.model.clone(), noise_candidates=1)
    assert "Warning" not in caplog.text and "another model" not in caplog.text


# --- EtaSamplerSelect -----------------------------------------------------------------------------


def custom(studio, sigmas: list[float], model=None, mask=None):
    call = studio.host.call
    (guider,) = call("BasicGuider", model=model or studio.model, conditioning=studio.prompt(SOURCE))
    (sampler,) = call("EtaSamplerSelect", eta=studio.eta(), mask=mask)
    return call(
        "SamplerCustomAdvanced",
        noise=call("DisableNoise")[0],
        guider=guider,
        sampler=sampler,
        sigmas=torch.tensor(sigmas),
        latent_image=picture(),
    )


def test_sigmas_that_rise(studio):
    with raises("do not fall", "from noise to image"):
        custom(studio, [1.0, 2.0])


def test_an_edm_model_in_the_custom_sampler(studio):
    with raises("predicts by EDM"):
        custom(studio, [1.0, 0.5], model=patched(studio, "ModelSamplingContinuousEDM", **EDM))


@pytest.mark.parametrize("mask", [mask for mask, _ in BAD_MASKS], ids=["shape", "batch", "range", "NaN"])
def test_a_mask_that_does_not_fit_the_custom_sampler(studio, mask):
    with raises("the mask"):
        custom(studio, [2.0, 1.0], mask=mask)


# --- files ----------------------------------------------------------------------------------------


@pytest.fixture
def saved(studio, inversion):
    """A saved inversion's file."""
    studio.host.call("EtaSaveInversion", inversion=inversion, filename_prefix="errors/inversion")
    return max((studio.host.base / "output/errors").glob(f"*{SUFFIX}"))


def load(studio, name: str):
    return studio.host.call("EtaLoadInversion", file=name)[0]


def annotated(path) -> str:
    return f"errors/{path.name} [output]"


def test_a_truncated_file(studio, saved):
    saved.write_bytes(saved.read_bytes()[:-100])
    with raises(saved.name, "damaged"):
        load(studio, annotated(saved))


def test_a_file_that_is_no_safetensors(studio, saved):
    saved.write_text("hello")
    with raises(saved.name, "damaged or not a safetensors file"):
        load(studio, annotated(saved))


def test_a_foreign_safetensors_file(studio, saved):
    save_file({"x": torch.zeros(3)}, saved)
    with raises(saved.name, "not a saved inversion", "eta-inversion-1"):
        load(studio, annotated(saved))


def rewrite(path, change) -> None:
    """The file again, under its own metadata, with what `change` makes of its tensors."""
    with safe_open(path, "pt") as file:
        about = file.metadata()
    save_file(change(load_file(path)), path, about)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors | {"x": torch.zeros(2, 1, 4, 8, 8)},
        lambda tensors: tensors | {"x": tensors["x"] * float("nan")},
        lambda tensors: tensors | {"extra.0.cond": tensors["extra.0.cond"] + 1},
        lambda tensors: {name: value for name, value in tensors.items() if name != "x"},
        lambda tensors: {name: value for name, value in tensors.items() if name != "extra.0.cond"},
    ],
    ids=["fewer points", "not numbers", "another prompt", "no trajectory", "no prompt"],
)
def test_a_file_whose_tensors_were_changed(studio, saved, change):
    rewrite(saved, change)
    with raises("damaged"):
        load(studio, annotated(saved))


def test_a_file_that_is_not_there(studio):
    with raises("errors/none", "does not exist"):
        load(studio, f"errors/none{SUFFIX} [output]")


@pytest.mark.parametrize(
    "name", ["../../secret{} [output]", "/etc/passwd", "/etc/hostname{} [input]", "../user/x{} [temp]"]
)
def test_a_file_outside_the_hosts_folders(studio, name):
    with raises("outside the host's"):
        load(studio, name.format(SUFFIX))


def test_a_link_that_leads_out_of_the_folder(studio, saved, tmp_path):
    secret = tmp_path / f"secret{SUFFIX}"
    secret.write_bytes(saved.read_bytes())
    saved.unlink()
    saved.symlink_to(secret)
    with raises("outside the host's"):
        load(studio, annotated(saved))


def test_a_prefix_that_leads_out_of_the_output_folder(studio, inversion):
    with pytest.raises(Exception, match="(?i)outside"):
        studio.host.call("EtaSaveInversion", inversion=inversion, filename_prefix="../outside")
    assert not list(studio.host.base.glob("outside*"))


def test_conditioning_that_no_file_can_hold(studio, inversion):
    prompt = [[cond, extras | {"control": object()}] for cond, extras in studio.prompt(SOURCE)]
    with raises("'control'", "cannot hold"):
        studio.host.call(
            "EtaSaveInversion",
            inversion=replace(inversion, positive=prompt),
            filename_prefix="errors/control",
        )


# --- as a user sees them: through the executor ----------------------------------------------------


@pytest.fixture(scope="module")
def refusal(host, checkpoint):
    """The executor's message for a graph that inverts, masks and edits an empty picture with some inputs
    changed.
    """

    def refusal(more: dict | None = None, **changes: dict) -> str:
        prompt = {"clip": ["loader", 1], "text": SOURCE}
        nodes = {
            "loader": ("CheckpointLoaderSimple", dict(ckpt_name=checkpoint)),
            "prompt": ("CLIPTextEncode", prompt),
            "picture": ("EmptyLatentImage", dict(width=64, height=64, batch_size=1)),
            "invert": (
                "EtaInversion",
                dict(
                    model=["loader", 0],
                    positive=["prompt", 0],
                    latent_image=["picture", 0],
                    steps=STEPS,
                    cfg=1.0,
                    scheduler="ddim_uniform",
                ),
            ),
            "words": (
                "AttentionMask",
                dict(
                    inversion=["invert", 0],
                    clip=["loader", 1],
                    words="cat",
                    threshold=0.2,
                    grow=0,
                    blur=0.0,
                    invert=False,
                ),
            ),
            "eta": (
                "EtaSchedule",
                dict(preset="paper_strong", start_t=0.0, start_eta=0.0, end_t=1.0, end_eta=0.4, power=1.0),
            ),
            "edit": (
                "EtaSampler",
                dict(
                    model=["loader", 0],
                    inversion=["invert", 0],
                    eta=["eta", 0],
                    positive=["prompt", 0],
                    negative=["prompt", 0],
                    cfg=3.0,
                    seed=0,
                    noise_candidates=1,
                    noise_blend=0.0,
                    mask=["words", 0],
                ),
            ),
            "save": ("SaveLatent", dict(samples=["edit", 0], filename_prefix="errors/edited")),
            **(more or {}),
        }
        graph = {
            name: {"class_type": kind, "inputs": inputs | changes.get(name, {})}
            for name, (kind, inputs) in nodes.items()
        }
        outcome = host.run(graph)
        assert not outcome.success
        return outcome.error

    return refusal


def test_the_user_reads_that_words_are_empty(refusal):
    assert "words is empty: type one or more words" in refusal(words=dict(words=""))


def test_the_user_reads_the_words_that_are_there(refusal):
    assert "its words are: a, cat, sitting, on, bench" in refusal(words=dict(words="dog"))


def test_the_user_reads_that_a_negative_prompt_is_missing(refusal):
    assert "`negative` is not connected" in refusal(invert=dict(cfg=2.0))


def test_the_user_reads_that_an_edm_model_will_not_do(refusal):
    edm = {"edm": ("ModelSamplingContinuousEDM", dict(model=["loader", 0], **EDM))}
    assert "predicts by EDM" in refusal(edm, invert=dict(model=["edm", 0]))


def test_the_user_reads_that_the_mask_has_another_shape(refusal):
    mask = {"mask": ("SolidMask", dict(value=1.0, width=128, height=64))}
    assert "the mask is 128x64 pixels, the picture 64x64" in refusal(mask, edit=dict(mask=["mask", 0]))


def test_the_user_reads_what_differs_between_two_models(refusal):
    other = {
        "other": ("ModelSamplingDiscrete", dict(model=["loader", 0], sampling="v_prediction", zsnr=False))
    }
    assert "prediction EPS against V_PREDICTION" in refusal(other, edit=dict(model=["other", 0]))


def test_the_user_reads_that_the_steps_are_too_many(refusal):
    assert "Value 1000 bigger than max of 999" in refusal(invert=dict(steps=1000))


def test_the_user_reads_that_a_file_is_not_there(refusal):
    loaded = {"loaded": ("EtaLoadInversion", dict(file=f"none{SUFFIX} [output]"))}
    assert "does not exist" in refusal(loaded, edit=dict(inversion=["loaded", 0]))


# --- masks ----------------------------------------------------------------------------------------


def test_a_mask_of_the_whole_picture_is_cut_as_the_vae_cuts_it(studio, inversion, caplog):
    whole = torch.zeros(1, 69, 67)  # of which the VAE encodes 64 x 64 in the middle
    whole[:, 2 : 2 + 32, 1 : 1 + 64] = 1
    top = torch.zeros(1, 64, 64)
    top[:, :32] = 1
    assert torch.equal(
        studio.edit(inversion, mask=whole, background_lock=1.0),
        studio.edit(inversion, mask=top, background_lock=1.0),
    )
    assert "resized" not in caplog.text


def test_an_empty_mask_of_load_image_is_told_by_what_it_is(studio):
    wide = studio.invert(latent_image=picture(size=(8, 16)))
    with raises("64x64 pixels and empty", "Load Image", "disconnect the mask"):
        studio.edit(wide, mask=torch.zeros(1, 64, 64))


@pytest.mark.parametrize("value, right", [(1.0000001, True), (-1e-6, True), (1.1, False), (-0.01, False)])
def test_a_mask_a_rounding_error_outside_the_range_is_taken(studio, inversion, value, right):
    mask = left_half()
    mask[0, 0, 0] = value
    if right:
        assert torch.equal(studio.edit(inversion, mask=mask), studio.edit(inversion, mask=mask.clamp(0, 1)))
        return
    with raises("the mask runs from", f"{value:g}", "must lie in 0..1"):
        studio.edit(inversion, mask=mask)


@pytest.mark.parametrize("shape", [(1, 0, 0), (0, 64, 64), (1, 64, 0)])
def test_a_mask_without_a_pixel(studio, inversion, shape):
    with raises("the mask has no pixel", str(list(shape))):
        studio.edit(inversion, mask=torch.zeros(shape))


# --- what comes by a link, which the host does not check ------------------------------------------

NAN = float("nan")


@pytest.mark.parametrize(
    "inputs, words",
    [
        (dict(background_lock=2.0), ("background_lock = 2.0", "from 0.0 to 1.0")),
        (dict(variants=0), ("variants = 0", "from 1 to 64")),
        (dict(cfg=-2.0), ("cfg = -2.0", "from 0.0 to 100.0")),
        (dict(cfg=NAN), ("cfg is nan", "must be a number")),
        (dict(seed=-1), ("seed = -1",)),
        (dict(seed=0.5), ("seed is 0.5", "whole number")),
        (dict(noise_blend=True), ("noise_blend is True", "must be a number")),
    ],
)
def test_a_number_outside_its_range_for_an_edit(studio, inversion, inputs, words):
    with raises(*words):
        studio.edit(inversion, **inputs)


@pytest.mark.parametrize("steps", [-3, 0])
@pytest.mark.parametrize("scheduler", ["ddim_uniform", "normal", "karras"])
def test_steps_that_are_none(studio, steps, scheduler):
    with raises(f"steps = {steps}", "at least 1 step"):
        studio.invert(steps=steps, scheduler=scheduler)


@pytest.mark.parametrize("blur", [-3.0, NAN])
def test_a_blur_that_is_none(studio, inversion, blur):
    with raises("blur", f"{blur:g}"):
        studio.region(inversion, "cat", blur=blur)


@pytest.mark.parametrize(
    "inputs, words",
    [
        (dict(inverter="ddpm"), ("inverter is 'ddpm'", "ddim, fixed_point")),
        (dict(scheduler="fast"), ("scheduler is 'fast'", "ddim_uniform")),
    ],
)
def test_a_choice_that_is_not_in_the_list(studio, inputs, words):
    with raises(*words):
        studio.invert(**inputs)


def test_a_preset_of_another_version(studio):
    with raises("preset is 'paper'", "use one of paper_strong, paper_gentle"):
        studio.eta(preset="paper")


@pytest.mark.parametrize("shape", [(0, 4, 8, 8), (1, 4, 8, 0)])
def test_a_latent_without_a_picture(studio, shape):
    with raises("latent_image is empty", str(list(shape))):
        studio.invert(latent_image={"samples": torch.zeros(shape)})


def test_prompts_of_two_encoders(studio, inversion):
    ((cond, extra),) = studio.prompt("a dog")
    with raises("vectors have", "the CLIP of this model"):
        studio.edit(inversion, positive=[[cond[..., :3], extra]])
