"""Flow models: inversion along the flow, edits by eta, and regions from joint attention."""

from copy import copy

import pytest
import torch

from devtools.studio import SOURCE, TARGET, Studio, left_half
from tests.host.flow import FAMILIES
from tests.host.test_sampling import close

SIZE = (8, 6)


class FlowStudio(Studio):
    """The usual inputs for latents of 16 channels, tall and with an odd number of patches."""

    def picture(self, batch: int = 1) -> dict:
        channels = self.model.get_model_object("latent_format").latent_channels
        coarse = torch.randn(batch, channels, 4, 4, generator=torch.Generator().manual_seed(1))
        return {"samples": torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic")}

    def invert_both(self, **changes):
        inputs = dict(latent_image=self.picture(), steps=6, scheduler="simple")
        return super().invert_both(**inputs | changes)


@pytest.fixture(scope="module", params=FAMILIES)
def flow(host, request) -> FlowStudio:
    return FlowStudio(host, *FAMILIES[request.param](host))


@pytest.fixture(scope="module")
def inverted(flow):
    return flow.invert_both()


@pytest.fixture(scope="module")
def mmdit(host) -> FlowStudio:
    return FlowStudio(host, *FAMILIES["SD3"](host))


def half() -> torch.Tensor:
    return left_half(SIZE[0] * 8, SIZE[1] * 8)


def test_the_inversion_has_the_flows_own_times(inverted):
    grid = inverted[0].trajectory.grid
    assert grid.times[0] == 0 and grid.times[-1] == 1 - 2**-10 and grid.frame.name == "flow"


def test_the_source_prompt_leads_back_to_the_source_and_the_targets_away(flow):
    inversion, source = flow.invert(inverter="fixed_point", iterations=5), flow.picture()["samples"]
    same = dict(cfg=1.0, eta=flow.eta(end_eta=0.0))
    back, away = (flow.edit(inversion, positive=flow.prompt(text), **same) for text in (SOURCE, TARGET))
    # AuraFlow's random network hardly hears its prompt: 0.81. The others: 0.13 and 0.04.
    assert (back - source).abs().mean() < 0.9 * (away - source).abs().mean()


def test_the_hosts_euler_sampler_plays_the_inversion_on_as_eta_0_does(flow, inverted):
    inversion, noise = inverted
    (guider,) = flow.host.call("BasicGuider", model=flow.model, conditioning=flow.prompt(TARGET))
    (sampler,) = flow.host.call("KSamplerSelect", sampler_name="euler")
    (sigmas,) = flow.host.call("EtaSigmas", inversion=inversion)
    (silence,) = flow.host.call("DisableNoise")
    stock, _ = flow.host.call(
        "SamplerCustomAdvanced",
        noise=silence,
        guider=guider,
        sampler=sampler,
        sigmas=sigmas,
        latent_image=noise,
    )
    ours = flow.edit(inversion, eta=flow.eta(end_eta=0.0), cfg=1.0)
    assert close(ours, stock["samples"], 1e-3)


def test_eta_0_as_a_sampler_is_the_hosts_euler(flow):
    (eta,) = flow.host.call("EtaSamplerSelect", eta=flow.eta(end_eta=0.0))
    (euler,) = flow.host.call("KSamplerSelect", sampler_name="euler")
    results = []
    for sampler in (eta, euler):
        (guider,) = flow.host.call("BasicGuider", model=flow.model, conditioning=flow.prompt(TARGET))
        (noise,) = flow.host.call("RandomNoise", noise_seed=4)
        sampled, _ = flow.host.call(
            "SamplerCustomAdvanced",
            noise=noise,
            guider=guider,
            sampler=sampler,
            sigmas=torch.tensor([1.0, 0.8, 0.5, 0.0]),
            latent_image=flow.picture(),
        )
        results.append(sampled["samples"])
    assert close(*results, 1e-4)


def test_more_iterations_play_back_closer(flow):
    same = dict(positive=flow.prompt(SOURCE), cfg=1.0, eta=flow.eta(end_eta=0.0))
    source = flow.picture()["samples"]
    errors = [
        (flow.edit(flow.invert(inverter="fixed_point", iterations=n), **same) - source).abs().mean()
        for n in (1, 5)
    ]
    assert errors[1] < 0.5 * errors[0]


def test_a_warm_start_plays_back_closer(flow):
    same = dict(positive=flow.prompt(SOURCE), cfg=1.0, eta=flow.eta(end_eta=0.0))
    source = flow.picture()["samples"]
    plain, warm = (
        (flow.edit(flow.invert(inverter=inverter), **same) - source).abs().mean()
        for inverter in ("ddim", "warm")
    )
    assert warm < plain


def test_an_edit_friendly_inversion_plays_back_exactly(flow):
    inversion = flow.invert(inverter="edit_friendly")
    same = dict(positive=flow.prompt(SOURCE), eta=flow.eta(end_eta=0.0))
    assert close(flow.edit(inversion, **same), flow.picture()["samples"], 1e-4)


def test_outside_a_locked_mask_nothing_changes(flow, inverted):
    edited = flow.edit(inverted[0], mask=half(), background_lock=1.0, noise_blend=0.2)
    source = flow.picture()["samples"]
    assert close(edited[..., 3:], source[..., 3:]) and not close(edited[..., :3], source[..., :3], 0.05)


def test_the_seed_matters_as_far_as_eta_reaches(flow, inverted):
    still, other = (flow.edit(inverted[0], eta=flow.eta(end_eta=0.0), seed=seed) for seed in (1, 2))
    moved, elsewhere = (flow.edit(inverted[0], seed=seed) for seed in (1, 2))
    assert torch.equal(still, other) and not close(moved, elsewhere, 0.01)


def test_a_batch_is_inverted_and_edited_picture_by_picture(flow):
    batch = flow.picture(2)
    together = flow.edit(flow.invert(latent_image=batch))
    for i in range(2):
        alone = flow.edit(flow.invert(latent_image={"samples": batch["samples"][i : i + 1]}))
        assert close(together[i : i + 1], alone, 1e-4)


def test_words_are_found_in_joint_attention_where_it_can_be_read(flow, inverted):
    inversion = inverted[0]
    if type(flow.model.model).__name__ == "AuraFlow":
        with pytest.raises(ValueError, match="AuraFlow, MMDiT.*cannot be read; connect a mask of your own"):
            flow.region(inversion, "cat")
        return
    mask, _ = flow.region(inversion, "cat", threshold=0.0)
    other, _ = flow.region(inversion, "bench", threshold=0.0)
    assert mask.shape == (1, SIZE[0] * 8, SIZE[1] * 8)
    assert not torch.equal(mask, other)
    with pytest.raises(ValueError, match="its words are: a, cat, sitting, on, bench"):
        flow.region(inversion, "dog")


def test_reading_joint_attention_changes_no_bit_and_leaves_the_other_packs_in_force(mmdit):
    seen = []

    def theirs(attend, q, k, v, *args, **kwargs):
        seen.append(q.shape)
        return attend(q, k, 2 * v, *args, **kwargs)

    plain, model = mmdit.invert().trajectory, mmdit.model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = theirs
    changed = mmdit.invert(model=model).trajectory
    assert len(seen) == 6 and changed.maps is not None
    assert not close(changed.x, plain.x, 1e-3)
    model.model_options["transformer_options"]["optimized_attention_override"] = lambda attend, *a, **k: (
        attend(*a, **k)
    )
    assert torch.equal(mmdit.invert(model=model).trajectory.x, plain.x)


def test_the_map_of_a_word_is_its_column_of_the_networks_own_attention(mmdit):
    """One step, one block: the attention is formed again here, whole, from the q and k that the network asked
    with.
    """
    asked, model = [], mmdit.model.clone()

    def theirs(attend, q, k, v, heads, *args, **kwargs):
        asked.append((q, k, heads))
        return attend(q, k, v, heads, *args, **kwargs)

    model.model_options["transformer_options"]["optimized_attention_override"] = theirs
    maps = mmdit.invert(model=model, steps=1).trajectory.maps
    ((q, k, heads),) = asked
    q, k = (t.unflatten(-1, (heads, -1)).transpose(1, 2).double() for t in (q, k))
    whole = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1).mean(1)[:, 77:, :77]
    expected = (whole / whole.amax(1, keepdim=True)).transpose(1, 2).unflatten(-1, (4, 3)).float()
    torch.testing.assert_close(maps.cpu(), expected.cpu(), rtol=0, atol=1e-4)


def test_a_methods_node_is_refused_by_name(host):
    aura = FlowStudio(host, *FAMILIES["AuraFlow"](host))
    (edit,) = host.call("EtaMasaCtrl", start=0.0, start_layer=0.0)
    with pytest.raises(ValueError, match="the attention of AuraFlow cannot be steered"):
        aura.edit(aura.invert(), edit=edit)


def test_a_flows_inversion_is_not_taken_by_a_diffusion_model(mmdit, studio):
    with pytest.raises(ValueError, match="prediction CONST against EPS"):
        studio.edit(mmdit.invert())


def test_a_flow_trained_with_louder_noise_has_it_in_its_sigmas(mmdit):
    """Some models start from noise of another deviation than 1 (HiDream-O1), or of one that grows with the
    picture (SenseNova: the root of its tokens by 64).
    """
    model, expected = mmdit.model.clone(), (SIZE[0] * SIZE[1]) ** 0.5
    louder = copy(model.get_model_object("model_sampling"))

    class BySize(type(louder)):
        def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
            scale = (noise.shape[-2] * noise.shape[-1]) ** 0.5
            return super().noise_scaling(sigma, scale * noise, latent_image, max_denoise)

    louder.__class__ = BySize
    model.add_object_patch("model_sampling", louder)
    plain, scaled = mmdit.invert().trajectory, mmdit.invert(model=model).trajectory
    assert plain.grid.frame.noise_scale == 1.0
    assert scaled.grid.frame.noise_scale == pytest.approx(expected, rel=1e-6)
    sigmas = [expected * sigma for sigma in plain.grid.sigmas[1:]]
    assert scaled.grid.sigmas[1:] == pytest.approx(sigmas, rel=1e-6)
    # the inversion's own path does not know the deviation of other noise; what eta renews does
    assert close(scaled.latents, plain.latents, 1e-4)
    ends = [
        mmdit.edit(mmdit.invert(model=each), model=each, eta=mmdit.eta(end_eta=1.0), start=0.5, cfg=1.0)
        for each in (mmdit.model, model)
    ]
    assert not close(*ends, 0.05)


def test_a_saved_flow_is_a_flow_again(mmdit):
    inversion = mmdit.invert()
    mmdit.host.call("EtaSaveInversion", inversion=inversion, filename_prefix="flow/a")
    (loaded,) = mmdit.host.call("EtaLoadInversion", file="flow/a_00001_.eta.safetensors [output]")
    assert loaded.trajectory.grid == inversion.trajectory.grid


def test_the_workflow_runs_in_the_executor(mmdit):
    host = mmdit.host

    class Given:
        RETURN_TYPES, FUNCTION, CATEGORY = ("CLIP",), "give", "test"
        INPUT_TYPES = classmethod(lambda cls: {"required": {}})

        def give(self):
            return (mmdit.clip,)

    host.nodes.NODE_CLASS_MAPPINGS["TestGivenCLIP"] = Given
    try:
        outcome = host.run(
            {
                "model": node("UNETLoader", unet_name="tiny_sd3.safetensors", weight_dtype="default"),
                "clip": node("TestGivenCLIP"),
                "source": node("CLIPTextEncode", clip=["clip", 0], text=SOURCE),
                "target": node("CLIPTextEncode", clip=["clip", 0], text=TARGET),
                "empty": node("CLIPTextEncode", clip=["clip", 0], text=""),
                "latent": node("EmptySD3LatentImage", width=64, height=96, batch_size=1),
                "invert": node(
                    "EtaInversion",
                    model=["model", 0],
                    positive=["source", 0],
                    latent_image=["latent", 0],
                    steps=4,
                    cfg=1.0,
                    scheduler="simple",
                ),
                "mask": node(
                    "AttentionMask",
                    inversion=["invert", 0],
                    clip=["clip", 0],
                    words="cat",
                    threshold=0.0,
                    grow=0,
                    blur=0.0,
                    invert=False,
                ),
                "eta": node(
                    "EtaSchedule",
                    preset="paper_strong",
                    start_t=0.0,
                    start_eta=0.0,
                    end_t=1.0,
                    end_eta=0.4,
                    power=1.0,
                ),
                "edit": node(
                    "EtaSampler",
                    model=["model", 0],
                    inversion=["invert", 0],
                    eta=["eta", 0],
                    positive=["target", 0],
                    negative=["empty", 0],
                    cfg=3.0,
                    seed=1,
                    noise_candidates=3,
                    noise_blend=0.0,
                    mask=["mask", 0],
                ),
                "save": node("SaveLatent", samples=["edit", 0], filename_prefix="flow/edited"),
            }
        )
    finally:
        del host.nodes.NODE_CLASS_MAPPINGS["TestGivenCLIP"]
    assert outcome.success, outcome.error
    assert list((host.base / "output/flow").glob("edited*.latent"))


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


@pytest.fixture(scope="module")
def flux(host) -> FlowStudio:
    return FlowStudio(host, *FAMILIES["Flux"](host))


def test_a_word_of_t5_is_a_whole_word(flux):
    prompt = "a catfish and a dog"
    inversion = flux.invert(positive=flux.prompt(prompt), steps=2)
    with pytest.raises(ValueError, match="'cat'.*its words are: a, catfish, and, dog"):
        flux.region(inversion, "cat", source_prompt=prompt)


def test_a_word_of_t5_is_found_however_it_is_written(flux):
    prompt = "a Cat and a dog"
    inversion = flux.invert(positive=flux.prompt(prompt), steps=2)
    regions = [
        flux.region(inversion, word, threshold=0.0, source_prompt=prompt)[0] for word in ("Cat", "cat", "CAT")
    ]
    assert regions[0].any() and all(region.equal(regions[0]) for region in regions)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ('a sign that says "OPEN" now', 'a sign that says "CLOSED" now'),
        ("a red-haired girl", "a red-nosed girl"),
        ("a cat/dog", "a cat/bird"),
    ],
)
def test_a_word_of_t5_beside_punctuation_has_its_region(flux, source, target):
    positive, _, words, *_ = flux.host.call(
        "EtaPromptPair", clip=flux.clip, source_prompt=source, target_prompt=target
    )
    inversion = flux.invert(positive=positive, steps=2)
    assert flux.region(inversion, words, threshold=0.0, source_prompt=source)[0].any()


def test_what_t5_has_no_token_for_is_refused(flux):
    prompt = "a \u732b and a \u72ac"
    inversion = flux.invert(positive=flux.prompt(prompt), steps=2)
    with pytest.raises(ValueError, match="not in the source prompt; its words are: a, and"):
        flux.region(inversion, "\u732b", source_prompt=prompt)


@pytest.mark.parametrize("family", ["SD3", "Flux"])
def test_a_negative_of_another_length_takes_no_map_away(host, mmdit, flux, family):
    studio = {"SD3": mmdit, "Flux": flux}[family]
    long = studio.prompt("bad " * 300)
    assert long[0][0].shape[1] != studio.prompt(SOURCE)[0][0].shape[1]
    inversion = studio.invert(cfg=2.0, negative=long, steps=2)
    assert studio.region(inversion, "cat", threshold=0.0)[0].any()


def test_a_latent_of_zeros_is_a_picture_like_any_other(flux):
    """The host leaves exact zeros out of its scaling; those of Flux stand for 0.1159."""
    empty = {"samples": torch.zeros(1, 16, *SIZE)}
    inversion = flux.invert(latent_image=empty, steps=2)
    assert flux.edit_both(inversion)[1].abs().max() < 1e-6


def test_a_prediction_that_is_not_finite_stops_the_sampler_too(flux, inverted_flux):
    inversion, noise = inverted_flux
    model = flux.model.clone()
    model.set_model_unet_function_wrapper(
        lambda apply, call: apply(call["input"], call["timestep"], **call["c"]) * float("nan")
    )
    sigmas, sampler = (
        flux.host.call("EtaSigmas", inversion=inversion)[0],
        flux.host.call("EtaSamplerSelect", eta=flux.eta())[0],
    )
    guider = flux.host.call("BasicGuider", model=model, conditioning=flux.prompt(TARGET))[0]
    with pytest.raises(ValueError, match="NaN or infinite values at step 1 of 2"):
        flux.host.call(
            "SamplerCustomAdvanced",
            noise=flux.host.call("DisableNoise")[0],
            guider=guider,
            sampler=sampler,
            sigmas=sigmas,
            latent_image=noise,
        )


@pytest.fixture(scope="module")
def inverted_flux(flux):
    return flux.invert_both(steps=2)
