"""ControlNet and LoRA of the host beside inversion, edit and methods, on the embedded model."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "demo"))
import scenes  # noqa: E402
from prepare import CHECKPOINT, CONTROL, LORA, SOURCES, prepare  # noqa: E402
from train_lora import FRAME  # noqa: E402

from tests.host.studio import Studio  # noqa: E402
from tests.host.test_methods import prompt_to_prompt  # noqa: E402
from tests.host.test_sampling import close  # noqa: E402

SOURCE, TARGET = "a cat on the grass", "a dog on the grass"
STEPS = 6


class DemoStudio(Studio):
    """The embedded model, with its ControlNet, its LoRA and one unseen picture."""

    def __init__(self, host):
        prepare(host.base)
        model, clip, self.vae = host.call("CheckpointLoaderSimple", ckpt_name=CHECKPOINT)
        super().__init__(host, model, clip)
        (self.control,) = host.call("ControlNetLoader", control_net_name=CONTROL)
        scene = scenes.render(*SOURCES["eta_demo_cat.png"])
        self.picture = torch.from_numpy(scene.image.copy())[None].float() / 255
        (self.latent,) = host.call("VAEEncode", vae=self.vae, pixels=self.picture)

    def controlled(self, text: str, hint: torch.Tensor, strength: float = 1.0) -> tuple[list, list]:
        """(positive, negative) with the ControlNet on them."""
        return self.host.call(
            "ControlNetApplyAdvanced",
            positive=self.encode(text),
            negative=self.encode(""),
            control_net=self.control,
            image=hint,
            strength=strength,
            start_percent=0.0,
            end_percent=1.0,
        )

    def invert(self, **changes):
        return super().invert(
            **dict(positive=self.encode(SOURCE), latent_image=self.latent, steps=STEPS) | changes
        )

    def edit(self, inversion, **changes):
        return super().edit(inversion, **dict(positive=self.encode(TARGET), cfg=5.0) | changes)

    def decode(self, samples: torch.Tensor) -> torch.Tensor:
        (pictures,) = self.host.call("VAEDecode", vae=self.vae, samples={"samples": samples})
        return pictures.clamp(0, 1).cpu()


@pytest.fixture(scope="module")
def demo(host) -> DemoStudio:
    return DemoStudio(host)


@pytest.fixture(scope="module")
def inverted(demo):
    return demo.invert()


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


def test_a_controlnet_of_strength_0_is_none(demo, inverted, hint):
    positive, negative = demo.controlled(TARGET, hint, strength=0.0)
    assert close(demo.edit(inverted, positive=positive, negative=negative), demo.edit(inverted), 1e-4)


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


def test_the_model_forgets_a_controlnet(demo, inverted, hint):
    before = demo.edit(inverted)
    positive, negative = demo.controlled(TARGET, hint)
    demo.edit(inverted, positive=positive, negative=negative)
    assert torch.equal(demo.edit(inverted), before)


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
    inputs = dict(model=model, positive=demo.encode(SOURCE), cfg=1.0, eta=demo.eta(end_eta=0.0))
    edited, source = demo.edit_both(inverted, **inputs)
    assert float((edited - source).square().mean().sqrt() / source.std()) < 0.3
