"""ControlNet and LoRA of the host beside inversion, edit and methods, on the embedded model."""

import numpy as np
import pytest
import torch

from devtools.demo import scenes
from devtools.demo.prepare import LORA
from devtools.demo.studio import DemoStudio
from devtools.demo.train_lora import FRAME
from devtools.studio import Defaults
from tests.host.test_methods import prompt_to_prompt
from tests.host.test_sampling import close

SOURCE, TARGET = "a cat on the grass", "a dog on the grass"
STEPS = 4


class ControlStudio(DemoStudio):
    """The embedded model with its ControlNet."""

    def __init__(self, host):
        super().__init__(host, Defaults(SOURCE, TARGET, steps=STEPS, cfg=5.0))
        self.control = self.load_control()

    def controlled(self, text: str, hint: torch.Tensor, strength: float = 1.0) -> tuple[list, list]:
        """(positive, negative) with the ControlNet on them."""
        return self.host.call(
            "ControlNetApplyAdvanced",
            positive=self.prompt(text),
            negative=self.prompt(""),
            control_net=self.control,
            image=hint,
            strength=strength,
            start_percent=0.0,
            end_percent=1.0,
        )


@pytest.fixture(scope="module")
def demo(host) -> DemoStudio:
    return ControlStudio(host)


@pytest.fixture(scope="module")
def inverted(demo):
    return demo.invert()


@pytest.fixture(scope="module")
def plain(demo, inverted) -> torch.Tensor:
    """The edit without a ControlNet."""
    return demo.edit(inverted)


@pytest.fixture(scope="module")
def hint() -> torch.Tensor:
    """The outline of a thing that stands elsewhere than the picture's."""
    mask = scenes.render(scenes.TEST + 3, "dog", "grass").mask
    return torch.from_numpy(np.repeat(mask[None, ..., None], 3, -1).copy()).float() / 255


def test_a_controlnet_on_the_target_steers_the_edit(demo, inverted, hint):
    """All noise renewed: what the two edits differ in is where the ControlNet wants its thing."""
    eta = demo.eta(end_eta=1.0)
    positive, negative = demo.controlled(TARGET, hint)
    steered = demo.edit(inverted, positive=positive, negative=negative, eta=eta)
    free = demo.edit(inverted, eta=eta)
    changed = (demo.decode(steered) - demo.decode(free)).abs().mean(-1)[0]
    inside = hint[0, ..., 0] > 0.5
    assert changed[inside].mean() > 1.5 * changed[~inside].mean() and changed[inside].mean() > 0.05


def test_a_controlnet_of_strength_0_is_none(demo, inverted, plain, hint):
    positive, negative = demo.controlled(TARGET, hint, strength=0.0)
    assert close(demo.edit(inverted, positive=positive, negative=negative), plain, 1e-4)


def test_a_controlnet_on_the_source_steers_the_inversion_alone(demo, inverted, hint):
    positive, _ = demo.controlled(SOURCE, hint)
    steered = demo.invert(positive=positive)
    assert steered.trajectory.maps is not None
    assert not close(steered.trajectory.x[1:], inverted.trajectory.x[1:], 1e-2)
    unread = demo.edit(steered, eta=demo.eta(end_eta=0.0))
    read = demo.edit(steered, eta=demo.eta(end_eta=1e-9))
    assert close(read, unread, 1e-4), "the source's ControlNet has leaked into the target"


def test_a_controlnet_on_both_works_with_a_method(demo, hint):
    source, negative = demo.controlled(SOURCE, hint)
    target, _ = demo.controlled(TARGET, hint)
    steered = demo.invert(positive=source)
    method = prompt_to_prompt(demo, steered, TARGET, positive=target, source_prompt=SOURCE)
    inputs = dict(positive=target, negative=negative)
    both = demo.edit(steered, edit=method, **inputs)
    assert bool(both.isfinite().all())
    assert not close(both, demo.edit(steered, **inputs), 1e-2), (
        "the method has no effect beside the ControlNet"
    )
    assert not close(both, demo.edit(steered, edit=method), 1e-2), (
        "the ControlNet has no effect beside the method"
    )


def test_the_model_forgets_a_controlnet(demo, inverted, plain, hint):
    positive, negative = demo.controlled(TARGET, hint)
    demo.edit(inverted, positive=positive, negative=negative)
    assert torch.equal(demo.edit(inverted), plain)


def border(pictures: torch.Tensor) -> float:
    """Mean brightness where the LoRA puts its white frame."""
    inner = torch.zeros(pictures.shape[1:3], dtype=torch.bool)
    inner[FRAME:-FRAME, FRAME:-FRAME] = True
    return pictures[:, ~inner].mean().item()


def test_a_lora_frames_the_edit_and_works_with_a_method(demo, inverted):
    """The LoRA on the edit alone, all noise renewed: the picture gets its white frame, with a method too."""
    (model,) = demo.host.call("LoraLoaderModelOnly", model=demo.model, lora_name=LORA, strength_model=1.0)
    inputs = dict(eta=demo.eta(end_eta=0.8), noise_candidates=1)
    plain = border(demo.decode(demo.edit(inverted, **inputs)))
    method = prompt_to_prompt(demo, inverted, TARGET, source_prompt=SOURCE)
    for edit in (None, method):
        framed = border(demo.decode(demo.edit(inverted, model=model, edit=edit, **inputs)))
        assert framed > plain + 0.2


def test_a_lora_on_both_inverts_and_plays_back(demo):
    (model,) = demo.host.call("LoraLoaderModelOnly", model=demo.model, lora_name=LORA, strength_model=1.0)
    inverted = demo.invert(model=model, inverter="fixed_point")
    inputs = dict(model=model, positive=demo.prompt(SOURCE), cfg=1.0, eta=demo.eta(end_eta=0.0))
    edited, source = demo.edit_both(inverted, **inputs)
    assert float((edited - source).square().mean().sqrt() / source.std()) < 0.3
