"""What another pack does by a picture's place in the batch, or by torch's own generators, it does as it would
alone.
"""

from types import SimpleNamespace

import pytest
import torch

from devtools.studio import SOURCE, TARGET, Studio, picture
from tests.host.test_errors import raises
from tests.host.test_methods import blended
from tests.host.test_sampling import close


def by_row(studio: Studio, *factors: float) -> Studio:
    """The studio with a patch like IPAdapter's on a batch: row i of each half is scaled by factor i."""

    def patch(out: torch.Tensor, extra_options: dict) -> torch.Tensor:
        halves = len(extra_options["cond_or_uncond"])
        place = torch.arange(len(out) // halves) % len(factors)
        return out * torch.tensor(factors)[place].repeat(halves)[:, None, None]

    model = studio.model.clone()
    model.set_model_attn2_output_patch(patch)
    return studio.on(model)


def one(latent: dict, i: int) -> dict:
    return {"samples": latent["samples"][i : i + 1]}


FACTORS = (1.4, 0.7)
METHODS = {"no method": None, "a local blend": blended}


@pytest.mark.parametrize("method", METHODS)
def test_a_patch_that_counts_rows_gives_each_picture_its_own(studio, method):
    both = picture(batch=2)

    def edited(studio: Studio, latent: dict) -> torch.Tensor:
        inversion = studio.invert(latent_image=latent, steps=2)
        edit = METHODS[method] and METHODS[method](studio, inversion)
        return studio.edit(inversion, edit=edit, variants=2)

    together = edited(by_row(studio, *FACTORS), both)
    for i, factor in enumerate(FACTORS):
        assert close(together[i::2], edited(by_row(studio, factor), one(both, i)), 1e-4)


def test_a_conditioning_for_each_picture_stays_with_it(studio):
    both = picture(batch=2)
    texts = [studio.prompt(text) for text in (TARGET, "a red dog on a bench")]
    pooled = [extra["pooled_output"] for ((_, extra),) in texts]
    each = [[torch.cat([cond for ((cond, _),) in texts]), {"pooled_output": torch.cat(pooled)}]]
    together = studio.edit(studio.invert(latent_image=both, steps=2), positive=each, variants=2)
    for i, text in enumerate(texts):
        alone = studio.edit(studio.invert(latent_image=one(both, i), steps=2), positive=text, variants=2)
        assert close(together[i::2], alone, 1e-4)


@pytest.mark.parametrize(
    "node, inputs",
    [
        ("TomePatchModel", dict(ratio=0.5)),
        ("HyperTile", dict(tile_size=1, swap_size=3, max_depth=3, scale_depth=False)),
    ],
)
def test_patches_that_draw_give_one_seed_one_picture(studio, node, inputs):
    drawing = studio.on(studio.host.call(node, model=studio.model, **inputs)[0])
    latent = picture(size=(16, 24))

    def twice(run):
        found = []
        for noise in (1, 2):
            torch.manual_seed(noise)  # whatever ran before
            found.append(run())
        return found

    first, second = twice(lambda: drawing.invert(latent_image=latent, steps=2))
    assert torch.equal(first.trajectory.x, second.trajectory.x)
    assert torch.equal(*twice(lambda: drawing.edit(first)))
    variants = drawing.edit(first, variants=2)
    assert torch.equal(variants[1:], drawing.edit(first, seed=drawing.defaults.seed + 1))


def test_a_guidance_that_remembers_is_refused(studio, inversion):
    def guided(momentum: float):
        inputs = dict(eta=1.0, norm_threshold=0.0, momentum=momentum)
        return studio.on(studio.host.call("APG", model=studio.model, **inputs)[0])

    for run in (guided(-0.5).invert, lambda: guided(-0.5).edit(inversion)):
        with raises("APG", "momentum of -0.5", "Set momentum to 0"):
            run()
    assert torch.equal(guided(0.0).edit(inversion), guided(0.0).edit(inversion))


def test_a_controlnet_with_keyframes_is_for_the_target_alone(studio):
    frames = SimpleNamespace(keyframes=[0.0, 0.5])
    control = SimpleNamespace(timestep_keyframes=frames, previous_controlnet=None)
    ((cond, extra),) = studio.prompt(SOURCE)
    with raises("the source prompt's ControlNet has 2 timestep keyframes", "Take them off the source prompt"):
        studio.invert(positive=[[cond, extra | {"control": control}]])


def test_a_compiled_model_takes_no_local_blend(studio, inversion):
    (compiled,) = studio.host.call("TorchCompileModel", model=studio.model, backend="inductor")
    with raises("torch.compile is on this model", "from before torch.compile"):
        studio.on(compiled).edit(inversion, edit=blended(studio, inversion))


def test_attention_that_sees_more_rows_costs_the_maps_and_not_the_inversion(studio):
    """As Attention Couple: every row once more, beside another prompt."""
    other = studio.prompt("a dog")[0][0]

    def couple(q, k, v, extra_options):
        more = other.repeat(len(k), 1, 1)[:, : k.shape[1]]
        return q.repeat(2, 1, 1), torch.cat([k, more]), torch.cat([v, more])

    model = studio.model.clone()
    model.set_model_attn2_patch(couple)
    model.set_model_attn2_output_patch(lambda out, extra_options: out.chunk(2)[0])
    trajectory = studio.on(model).invert(steps=2).trajectory
    assert trajectory.maps is None and "2 rows for 1 pictures" in trajectory.no_maps
    assert torch.equal(trajectory.x, studio.invert(steps=2).trajectory.x)


def test_a_network_asked_for_tiles_has_no_maps_for_that_reason(studio):
    def tiles(apply_model, args):
        parts = [apply_model(part, args["timestep"], **args["c"]) for part in args["input"].split(4, -1)]
        return torch.cat(parts, -1)

    model = studio.model.clone()
    model.set_model_unet_function_wrapper(tiles)
    trajectory = studio.on(model).invert(steps=2, latent_image=picture(size=(8, 16))).trajectory
    assert trajectory.maps is None and "in tiles" in trajectory.no_maps
