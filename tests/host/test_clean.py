"""Whatever ends a run, the model is as it was: the stock KSampler gives the bits it gave before."""

import pytest
import torch

from devtools.studio import left_half
from tests.host.test_methods import blended, masa_ctrl, plug_and_play

BOOM = "boom in the middle of sampling"


class At:
    """A model's unet wrapper that does something at its n-th network call."""

    def __init__(self, model, call: int, act):
        self.calls, self.model = 0, model.clone()
        self._call, self._act = call, act
        self.model.set_model_unet_function_wrapper(self._wrap)

    def _wrap(self, apply_model, args):
        self.calls += 1
        predicted = apply_model(args["input"], args["timestep"], **args["c"])
        return self._act(predicted) if self.calls == self._call else predicted


def explode(predicted):
    raise RuntimeError(BOOM)


def spoil(predicted):
    return predicted * float("nan")


def cancel(predicted):
    import comfy.model_management

    comfy.model_management.interrupt_current_processing()
    return predicted


def cancelled():
    import comfy.model_management

    return pytest.raises(comfy.model_management.InterruptProcessingException)


@pytest.fixture(scope="module")
def before(studio):
    return studio.ksampler()


def options_of(model) -> str:
    """Every key of the model's options, down to the values' identity."""

    def walk(value):
        return (
            {key: walk(v) for key, v in value.items()}
            if isinstance(value, dict)
            else id(value)
            if not isinstance(value, list)
            else list(map(id, value))
        )

    return repr(
        (walk(model.model_options), sorted(map(str, model.object_patches)), sorted(map(str, model.patches)))
    )


@pytest.fixture
def unharmed(studio, before):
    """After the test: nothing of the run is left on the model."""
    options = options_of(studio.model)
    yield
    assert options_of(studio.model) == options
    assert torch.equal(studio.ksampler(), before)


ENDINGS = [
    pytest.param(explode, lambda: pytest.raises(RuntimeError, match=BOOM), id="an error"),
    pytest.param(
        spoil,
        lambda: pytest.raises(ValueError, match="predicted NaN or infinite values at step [23] of 4"),
        id="NaN",
    ),
    pytest.param(cancel, cancelled, id="Cancel"),
]


@pytest.mark.parametrize("act, ends", ENDINGS)
def test_the_model_survives_an_inversion_that_ends_in(studio, unharmed, act, ends):
    run = At(studio.model, 3, act)
    with ends():
        studio.invert(model=run.model)
    assert run.calls - 3 in (0, act is cancel)  # the host looks for Cancel when a call begins


@pytest.mark.parametrize("act, ends", ENDINGS)
@pytest.mark.parametrize("methods", [False, True], ids=["plain", "with every method"])
def test_the_model_survives_an_edit_that_ends_in(studio, inversion, unharmed, act, ends, methods):
    run = At(studio.model, 2, act)
    edit = every_method(studio, inversion) if methods else None
    with ends():
        studio.edit(inversion, model=run.model, edit=edit)
    assert run.calls - 2 in (0, act is cancel)


def every_method(studio, inversion):
    return plug_and_play(studio, edit=masa_ctrl(studio, edit=blended(studio, inversion)))


def test_no_method_leaves_anything_on_the_model(studio, inversion, unharmed):
    network = studio.model.model.diffusion_model
    studio.edit(inversion, edit=every_method(studio, inversion))
    assert not any(module._forward_hooks for module in network.modules())


def test_an_error_inside_the_network_takes_the_methods_hooks_with_it(studio, inversion, unharmed):
    """Raised by another pack's patch, while the feature hook of Plug-and-Play is on the layer."""
    model = studio.model.clone()
    model.set_model_attn2_replace(lambda *args: explode(None), "output", 3)
    with pytest.raises(RuntimeError, match=BOOM):
        studio.edit(inversion, model=model, edit=every_method(studio, inversion))
    assert not any(module._forward_hooks for module in studio.model.model.diffusion_model.modules())


def test_the_model_is_unchanged_by_a_run_that_succeeds(studio, inversion, unharmed):
    studio.invert()
    studio.edit(inversion, mask=left_half(), background_lock=0.5)


def test_a_run_after_a_failed_one_is_the_run_it_would_have_been(studio, inversion):
    expected = studio.edit(inversion)
    with pytest.raises(RuntimeError, match=BOOM):
        studio.edit(inversion, model=At(studio.model, 3, explode).model)
    assert torch.equal(studio.edit(inversion), expected)


def test_an_inversion_is_not_changed_by_the_edits_made_from_it(studio, inversion):
    x, maps = inversion.trajectory.x.clone(), inversion.trajectory.maps.clone()
    studio.edit(inversion, mask=left_half(), noise_blend=0.5, background_lock=1.0)
    assert torch.equal(inversion.trajectory.x, x) and torch.equal(inversion.trajectory.maps, maps)


def test_cancel_in_a_graph_is_an_interruption_and_not_an_error(studio, host, checkpoint, monkeypatch):
    """The user's Cancel comes while the sampler runs: here from the progress bar's hook."""
    import comfy.utils

    graph = {
        "loader": ("CheckpointLoaderSimple", dict(ckpt_name=checkpoint)),
        "prompt": ("CLIPTextEncode", dict(clip=["loader", 1], text="a cat")),
        "picture": ("EmptyLatentImage", dict(width=64, height=64, batch_size=1)),
        "invert": (
            "EtaInversion",
            dict(
                model=["loader", 0],
                positive=["prompt", 0],
                latent_image=["picture", 0],
                steps=4,
                cfg=1.0,
                scheduler="ddim_uniform",
            ),
        ),
        "save": ("EtaSaveInversion", dict(inversion=["invert", 0], filename_prefix="cancelled/inversion")),
    }
    monkeypatch.setattr(
        comfy.utils,
        "PROGRESS_BAR_HOOK",
        lambda value, total, preview, node_id=None: value >= 1 and cancel(None),
    )
    outcome = host.run(
        {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in graph.items()}
    )
    events = [event for event, _ in outcome.executor.status_messages]
    assert not outcome.success and outcome.error == ""
    assert "execution_interrupted" in events
    assert not (host.base / "output/cancelled").exists() or not list(
        (host.base / "output/cancelled").iterdir()
    )
