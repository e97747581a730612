"""The inversion and the edit inside the host's own sampling."""

import pytest
import torch

from devtools.studio import SOURCE, STEPS, TARGET, left_half, picture


def pack(host, module: str):
    """A module of the pack, as the host imported it."""
    return host.module(module)


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-5) -> bool:
    """Largest difference against the deviation of `b`."""
    return bool((a - b).abs().max() <= tolerance * b.std())


# --- the model is only looked at ------------------------------------------------------------------


@pytest.fixture
def blind(host, monkeypatch):
    """Switches the recording of attention off."""
    return lambda: monkeypatch.setattr(
        pack(host, "host").MapRecorder, "install", lambda self, options, rows, short: options
    )


def test_recording_attention_changes_no_bit_of_the_trajectory(studio, inversion, blind):
    blind()
    unseen = studio.invert().trajectory
    assert unseen.maps is None and inversion.trajectory.maps is not None
    assert torch.equal(unseen.x, inversion.trajectory.x)


def doubled(q, k, v, extra_options):
    from comfy.ldm.modules.attention import optimized_attention

    return optimized_attention(q, k, 2 * v, extra_options["n_heads"])


@pytest.mark.parametrize("index", [None, 0], ids=["(name, number)", "(name, number, index)"])
def test_attention_replaced_by_another_pack_stays_in_force(studio, inversion, blind, index):
    model = studio.model.clone()
    model.set_model_attn2_replace(doubled, "input", 1, index)
    seen = studio.invert(model=model).trajectory
    assert seen.maps is not None
    assert not close(seen.x, inversion.trajectory.x, 1e-3)
    blind()
    assert torch.equal(studio.invert(model=model).trajectory.x, seen.x)


def test_a_short_prompt_beside_a_long_negative_one_has_the_same_maps(studio, inversion):
    """The host repeats the 77 positions of the short one to the 154 of the long one."""
    model = studio.model.clone()
    model.model_options["disable_cfg1_optimization"] = True
    beside = studio.invert(model=model, negative=studio.prompt("a dog " * 40)).trajectory
    assert beside.maps.shape == inversion.trajectory.maps.shape
    torch.testing.assert_close(beside.maps, inversion.trajectory.maps, atol=1e-4, rtol=0)


def test_perturbed_attention_guidance_leaves_the_maps_alone(studio, inversion):
    """It asks the network again after guidance, with its self-attention switched off."""
    (model,) = studio.host.call("PerturbedAttentionGuidance", model=studio.model, scale=1e-6)
    guided = studio.invert(model=model).trajectory
    assert close(guided.x, inversion.trajectory.x, 1e-4)
    torch.testing.assert_close(guided.maps, inversion.trajectory.maps, atol=1e-4, rtol=0)


# --- pictures -------------------------------------------------------------------------------------


def test_a_batch_of_two_is_each_picture_alone(studio):
    pictures = [picture(seed) for seed in (1, 2)]
    mask = torch.cat([left_half(), 1 - left_half()])
    both = studio.invert(latent_image={"samples": torch.cat([p["samples"] for p in pictures])})
    edited = studio.edit(both, mask=mask, noise_blend=0.3)
    for i, alone in enumerate(studio.invert(latent_image=p) for p in pictures):
        assert close(both.trajectory.x[:, i : i + 1], alone.trajectory.x)
        assert close(both.trajectory.maps[i : i + 1], alone.trajectory.maps, 1e-4)
        assert close(edited[i : i + 1], studio.edit(alone, mask=mask[i : i + 1], noise_blend=0.3), 1e-4)


@pytest.mark.parametrize("size", [(16, 24), (24, 8), (9, 7)], ids=str)
def test_a_picture_may_have_any_shape(studio, size):
    inverted = studio.invert(latent_image=picture(size=size), steps=2)
    region, heatmap = studio.region(inverted, "cat")
    assert region.shape == (1, 8 * size[0], 8 * size[1]) and heatmap.shape == (*region.shape, 3)
    edited = studio.edit(inverted, mask=region)
    assert edited.shape == (1, 4, *size) and not close(edited, picture(size=size)["samples"], 0.01)


def test_eta_0_gives_the_picture_back_better_the_more_steps(studio):
    def error(steps: int) -> float:
        inverted = studio.invert(steps=steps)
        edited, source = studio.edit_both(
            inverted, eta=studio.eta(end_eta=0.0), positive=studio.prompt(SOURCE), cfg=1.0
        )
        return float((edited - source).square().mean().sqrt() / source.std())

    coarse, fine = error(8), error(32)
    print(f"reproduction error: {coarse:.3f} of the deviation at 8 steps, {fine:.3f} at 32")
    assert fine < 0.12 and fine < 0.7 * coarse


def test_a_full_background_lock_keeps_the_source_outside_the_mask(studio, inversion):
    edited, source = studio.edit_both(inversion, mask=left_half(), background_lock=1.0)
    assert close(edited[..., 4:], source[..., 4:], 1e-6)
    assert not close(edited[..., :4], source[..., :4], 0.1)


def test_a_mask_of_nothing_is_eta_0(studio, inversion):
    assert torch.equal(
        studio.edit(inversion, mask=0 * left_half()), studio.edit(inversion, eta=studio.eta(end_eta=0.0))
    )


def test_a_mask_of_everything_is_no_mask(studio, inversion):
    assert close(studio.edit(inversion, mask=torch.ones(1, 64, 64)), studio.edit(inversion), 1e-6)


def test_a_soft_mask_lies_between(studio, inversion):
    nothing, half, everything = (
        studio.edit(inversion, mask=torch.full((1, 64, 64), value), noise_candidates=1)
        for value in (0.0, 0.5, 1.0)
    )
    weaker_eta = studio.edit(inversion, eta=studio.eta(end_eta=0.2), noise_candidates=1)
    assert close(half, weaker_eta, 1e-4)
    assert not close(half, nothing, 1e-2) and not close(half, everything, 1e-2)


def test_a_seed_means_the_same_picture_and_another_seed_another(studio, inversion):
    first = studio.edit(inversion, seed=1)
    assert torch.equal(first, studio.edit(inversion, seed=1))
    assert not close(first, studio.edit(inversion, seed=2), 0.01)


def test_the_source_prompt_leads_back_to_the_source_and_the_targets_away(studio):
    """What changes under the source's own prompt is the inversion's error alone."""
    inverted, source = studio.invert(inverter="fixed_point", iterations=5), picture()["samples"]
    same = dict(cfg=1.0, eta=studio.eta(end_eta=0.0))
    back, away = (studio.edit(inverted, positive=studio.prompt(text), **same) for text in (SOURCE, TARGET))
    assert (back - source).abs().mean() < 0.05 * (away - source).abs().mean()


# --- schedules and predictions --------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", ["karras", "normal", "sgm_uniform", "beta", "simple"])
def test_the_hosts_schedules_are_its_own_noise_levels(studio, scheduler):
    import comfy.samplers

    inverted = studio.invert(scheduler=scheduler)
    expected = comfy.samplers.calculate_sigmas(
        studio.model.get_model_object("model_sampling"), scheduler, STEPS
    )
    (sigmas,) = studio.host.call("EtaSigmas", inversion=inverted)
    assert torch.equal(sigmas, expected)
    assert bool(studio.edit(inverted).isfinite().all())


def test_a_v_prediction_model_inverts_and_edits(studio, inversion):
    (model,) = studio.host.call(
        "ModelSamplingDiscrete", model=studio.model, sampling="v_prediction", zsnr=False
    )
    inverted = studio.invert(model=model)
    assert not close(inverted.trajectory.x, inversion.trajectory.x, 1e-3)
    assert bool(studio.edit(inverted, model=model).isfinite().all())


@pytest.mark.parametrize("prediction", ["eps", "v_prediction"])
def test_an_inverted_step_lands_on_the_noise_the_model_predicts(studio, prediction):
    """One step of a picture: x1 - x0 = (sigma1 - sigma0) eps, eps as the host's own prediction at the noise
    end.
    """
    (model,) = studio.host.call("ModelSamplingDiscrete", model=studio.model, sampling=prediction, zsnr=False)
    inverted = studio.invert(model=model, steps=1).trajectory
    low, high = inverted.grid.sigmas
    x = inverted.x[0] * ((1 + high**2) / (1 + low**2)) ** 0.5
    denoised = one_prediction(studio, model, x, high)
    assert close(inverted.x[1], inverted.x[0] + (high - low) * (x - denoised) / high, 1e-4)


def one_prediction(studio, model, x: torch.Tensor, sigma: float) -> torch.Tensor:
    """x0 of the stock sampler: one Euler step to sigma 0."""
    call = studio.host.call
    (guider,) = call("BasicGuider", model=model, conditioning=studio.prompt(SOURCE))
    latent = {"samples": model.model.process_latent_out(x)}
    sigmas = torch.tensor([sigma, 0.0])
    played = call(
        "SamplerCustomAdvanced",
        noise=call("DisableNoise")[0],
        guider=guider,
        sampler=call("KSamplerSelect", sampler_name="euler")[0],
        sigmas=sigmas,
        latent_image=latent,
    )
    return model.model.process_latent_in(played[0]["samples"])


# --- the parts for SamplerCustomAdvanced ----------------------------------------------------------


def custom(studio, sampler, sigmas, latent: dict, seed: int = 5) -> torch.Tensor:
    call = studio.host.call
    (guider,) = call(
        "CFGGuider", model=studio.model, positive=studio.prompt(TARGET), negative=studio.prompt(""), cfg=3.0
    )
    (noise,) = call("DisableNoise") if seed is None else call("RandomNoise", noise_seed=seed)
    return call(
        "SamplerCustomAdvanced",
        noise=noise,
        guider=guider,
        sampler=sampler,
        sigmas=sigmas,
        latent_image=latent,
    )[0]["samples"]


def eta_select(studio, end_eta: float, mask=None):
    return studio.host.call("EtaSamplerSelect", eta=studio.eta(end_eta=end_eta), mask=mask)[0]


@pytest.fixture(scope="module")
def sigmas(studio):
    return studio.host.call(
        "BasicScheduler", model=studio.model, scheduler="normal", steps=STEPS, denoise=1.0
    )[0]


def test_the_eta_sampler_without_eta_is_the_hosts_euler(studio, sigmas):
    (euler,) = studio.host.call("KSamplerSelect", sampler_name="euler")
    assert close(
        custom(studio, eta_select(studio, 0.0), sigmas, picture()), custom(studio, euler, sigmas, picture())
    )


def test_the_eta_sampler_draws_noise_from_the_runs_seed(studio, sigmas):
    sampler = eta_select(studio, 0.7)
    first = custom(studio, sampler, sigmas, picture())
    assert torch.equal(first, custom(studio, sampler, sigmas, picture()))
    assert not close(first, custom(studio, sampler, sigmas, picture(), seed=6), 0.01)


def test_a_step_of_the_eta_sampler_brings_noise_only_into_the_mask(studio, sigmas):
    plain, masked = (
        custom(studio, eta_select(studio, eta, left_half()), sigmas[:2], picture()) for eta in (0.0, 0.7)
    )
    assert close(masked[..., 4:], plain[..., 4:], 1e-6)
    assert not close(masked[..., :4], plain[..., :4], 0.01)


def test_an_inversion_is_played_back_from_its_latent_as_the_eta_sampler_node_plays_it(studio):
    inverted, noise_end = studio.invert_both()
    (sigmas,) = studio.host.call("EtaSigmas", inversion=inverted)
    played = (
        custom(studio, eta_select(studio, 0.0), sigmas, noise_end, seed=None)
        / float(1 + sigmas[-1] ** 2) ** 0.5
    )
    assert close(played, studio.edit(inverted, eta=studio.eta(end_eta=0.0)), 1e-4)


# --- cost -----------------------------------------------------------------------------------------


@pytest.fixture
def counted(studio):
    """A clone of the model that counts the rows its network evaluates."""
    model, rows = studio.model.clone(), []

    def count(apply_model, args):
        rows.append(len(args["input"]))
        return apply_model(args["input"], args["timestep"], **args["c"])

    model.set_model_unet_function_wrapper(count)
    return model, rows


def test_an_inversion_costs_one_evaluation_a_step(studio, counted):
    model, rows = counted
    studio.invert(model=model, steps=10)
    assert rows == [1] * 10


def test_a_guided_inversion_costs_two(studio, counted):
    model, rows = counted
    studio.invert(model=model, cfg=2.0, negative=studio.prompt(""))
    assert sum(rows) == 2 * STEPS


@pytest.fixture(scope="module")
def in_five_steps(studio):
    return studio.invert(steps=5)


@pytest.mark.parametrize(
    "changes, source_steps",
    [
        pytest.param({}, 5, id="candidates"),
        pytest.param(dict(noise_candidates=1), 0, id="one candidate"),
        pytest.param(dict(noise_candidates=1, noise_blend=0.5), 5, id="blend"),
        pytest.param(dict(eta=dict(preset="paper_strong")), 2, id="eta only above t 0.6"),
        pytest.param(dict(eta=dict(end_eta=0.0)), 0, id="no eta"),
        pytest.param(dict(mask=torch.zeros(1, 64, 64)), 0, id="empty mask"),
    ],
)
@pytest.mark.parametrize("parity", [True, False])
def test_the_source_branch_is_evaluated_where_its_noise_is_mixed_in_and_under_parity_where_noise_is_chosen(
    studio, in_five_steps, counted, changes, source_steps, parity
):
    model, rows = counted
    eta = {"eta": studio.eta(**changes["eta"])} if "eta" in changes else {}
    studio.edit(in_five_steps, model=model, parity=parity, **changes | eta)
    asked = source_steps if parity or "noise_blend" in changes else 0
    assert sum(rows) == 2 * (asked + 5)


def test_progress_counts_every_step_to_its_end(studio, monkeypatch):
    import comfy.utils

    seen = []
    monkeypatch.setattr(
        comfy.utils,
        "PROGRESS_BAR_HOOK",
        lambda value, total, preview, node_id=None: seen.append((value, total)),
    )
    inverted = studio.invert()
    assert seen[-1] == (STEPS, STEPS) and seen == sorted(seen)
    seen.clear()
    studio.edit(inverted, eta=studio.eta(preset="paper_strong"))
    total = seen[-1][1]
    assert seen[-1] == (total, total) and STEPS <= total <= 2 * STEPS and seen == sorted(seen)


# --- conditioning of the host ---------------------------------------------------------------------


def test_a_target_of_two_prompts_is_edited(studio, inversion):
    (two,) = studio.host.call(
        "ConditioningCombine", conditioning_1=studio.prompt(TARGET), conditioning_2=studio.prompt("a bench")
    )
    assert not close(studio.edit(inversion, positive=two), studio.edit(inversion), 1e-3)


def test_a_source_with_an_area_is_inverted_without_maps(studio):
    (area,) = studio.host.call(
        "ConditioningSetArea", conditioning=studio.prompt(SOURCE), width=32, height=64, x=0, y=0, strength=1.0
    )
    (both,) = studio.host.call(
        "ConditioningCombine", conditioning_1=studio.prompt("a bench"), conditioning_2=area
    )
    inverted = studio.invert(positive=both)
    assert inverted.trajectory.maps is None and inverted.trajectory.no_maps
    assert bool(studio.edit(inverted).isfinite().all())


def test_a_lora_is_part_of_the_inversion(studio, inversion):
    model = studio.model.clone()
    weight = studio.model.model.diffusion_model.out[2].weight
    model.add_patches({"diffusion_model.out.2.weight": (torch.ones_like(weight),)}, 0.01)
    assert not close(studio.invert(model=model).trajectory.x, inversion.trajectory.x, 1e-3)


# --- graphs, caching and files --------------------------------------------------------------------


@pytest.fixture
def graph(checkpoint):
    """One inversion, edited by two samplers."""

    def sampler(seed: int) -> tuple:
        return "EtaSampler", dict(
            model=["loader", 0],
            inversion=["invert", 0],
            eta=["eta", 0],
            positive=["target", 0],
            negative=["empty", 0],
            cfg=3.0,
            seed=seed,
            noise_candidates=2,
            noise_blend=0.0,
        )

    def build(seed: int) -> dict:
        nodes = {
            "loader": ("CheckpointLoaderSimple", dict(ckpt_name=checkpoint)),
            **{
                name: ("CLIPTextEncode", dict(clip=["loader", 1], text=text))
                for name, text in (("source", SOURCE), ("target", TARGET), ("empty", ""))
            },
            "picture": ("EmptyLatentImage", dict(width=64, height=64, batch_size=1)),
            "invert": (
                "EtaInversion",
                dict(
                    model=["loader", 0],
                    positive=["source", 0],
                    latent_image=["picture", 0],
                    steps=STEPS,
                    cfg=1.0,
                    scheduler="ddim_uniform",
                ),
            ),
            "eta": (
                "EtaSchedule",
                dict(preset="linear", start_t=0.0, start_eta=0.0, end_t=1.0, end_eta=0.4, power=1.0),
            ),
            "first": sampler(1),
            "second": sampler(seed),
            "save 1": ("SaveLatent", dict(samples=["first", 0], filename_prefix="graph/first")),
            "save 2": ("SaveLatent", dict(samples=["second", 0], filename_prefix="graph/second")),
        }
        return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}

    return build


def cached(outcome) -> set:
    return {
        node
        for event, data in outcome.executor.status_messages
        if event == "execution_cached"
        for node in data["nodes"]
    }


def saved(host, name: str) -> list[torch.Tensor]:
    from safetensors.torch import load_file

    return [
        load_file(path)["latent_tensor"]
        for path in sorted((host.base / "output/graph").glob(f"{name}*.latent"))
    ]


def test_an_inversion_serves_several_samplers_and_survives_the_hosts_cache(host, graph):
    executor = host.executor()
    for seed in (1, 2):
        outcome = host.run_on(executor, graph(seed))
        assert outcome.success, outcome.error
    assert {"invert", "first"} <= cached(outcome) and "second" not in cached(outcome)
    (first,), (same, other) = saved(host, "first"), saved(host, "second")
    assert torch.equal(first, same) and not close(other, same, 0.01)


def test_a_saved_inversion_edits_to_the_same_bits(studio, inversion):
    studio.host.call("EtaSaveInversion", inversion=inversion, filename_prefix="sampling/inversion")
    path = max((studio.host.base / "output/sampling").glob("*.eta.safetensors"))
    (loaded,) = studio.host.call("EtaLoadInversion", file=f"sampling/{path.name} [output]")
    assert torch.equal(studio.edit(loaded), studio.edit(inversion))
    assert torch.equal(studio.region(loaded, "cat")[0], studio.region(inversion, "cat")[0])


def test_a_saved_inversion_keeps_its_size_small(studio, inversion):
    """The maps of 77 tokens and the trajectory: a few hundred kB, without the pooled text twice."""
    studio.host.call("EtaSaveInversion", inversion=inversion, filename_prefix="size/inversion")
    assert max((studio.host.base / "output/size").glob("*")).stat().st_size < 400_000


def test_the_loader_lists_what_was_saved(host, studio, inversion):
    studio.host.call("EtaSaveInversion", inversion=inversion, filename_prefix="listed/inversion")
    files = host.nodes.NODE_CLASS_MAPPINGS["EtaLoadInversion"].GET_NODE_INFO_V1()["input"]["required"][
        "file"
    ][1]["options"]
    assert "listed/inversion_00001_.eta.safetensors [output]" in files
