"""Loaders of other packs, on stand-ins of the same shape: neither GGUF's nor Nunchaku's is installed here.

Read for them: city96/ComfyUI-GGUF (ops.py, nodes.py) and nunchaku-ai/ComfyUI-nunchaku (wrappers, models).
"""

import logging
from types import SimpleNamespace

import pytest
import torch

from tests.host.flow import FAMILIES as FLOWS
from tests.host.test_adapters import Studio, _adapters
from tests.host.test_sampling import close


class Packed(torch.Tensor):
    """As GGUF's tensors: bytes that say the shape they stand for, and whose copies are themselves."""

    def __new__(cls, weight: torch.Tensor):
        largest = weight.abs().amax(1, keepdim=True)
        self = (weight / largest * 127).round().to(torch.int8).flatten().as_subclass(cls)
        self.tensor_type, self.tensor_shape, self.largest = "Q8", weight.shape, largest
        return self

    @property
    def shape(self) -> torch.Size:
        return self.tensor_shape

    def to(self, *args, **kwargs):
        return self

    def clone(self, *args, **kwargs):
        return self

    def detach(self):
        return self

    def whole(self, dtype: torch.dtype) -> torch.Tensor:
        return self.as_subclass(torch.Tensor).view(self.tensor_shape).to(dtype) / 127 * self.largest


def packed_model(studio: Studio, factor: float):
    """The model with the layers of its block packed and computed as GGUF's are, in a patcher of its own."""
    import comfy.ops
    import comfy.sd

    class Linear(comfy.ops.manual_cast.Linear):
        def _load_from_state_dict(self, state, prefix, *args):
            weight = state[f"{prefix}weight"]
            if not isinstance(weight, Packed):
                return super()._load_from_state_dict(state, prefix, *args)
            self.weight = torch.nn.Parameter(weight, requires_grad=False)
            self.bias = torch.nn.Parameter(state[f"{prefix}bias"], requires_grad=False)
            return None

        def forward(self, x):
            if isinstance(self.weight, Packed):
                return torch.nn.functional.linear(x, self.weight.whole(x.dtype), self.bias.to(x.dtype))
            return super().forward(x)

    class Operations(comfy.ops.manual_cast):
        pass

    Operations.Linear = Linear
    state = {}
    for name, weight in studio.model.model.diffusion_model.state_dict().items():
        is_packed = name.startswith("joint_blocks") and weight.ndim == 2
        state[f"model.diffusion_model.{name}"] = Packed(factor * weight) if is_packed else weight.clone()
    with torch.inference_mode():
        model = comfy.sd.load_diffusion_model_state_dict(state, {"custom_operations": Operations})
    model.__class__ = type("GGUFModelPatcher", (type(model),), {})
    assert any(type(weight) is Packed for weight in model.model.diffusion_model.parameters())
    return model


def test_a_gguf_model_is_inverted_edited_and_told_from_another(host, caplog):
    plain = Studio(host, *FLOWS["SD3"](host))
    studio, other = (plain.on(packed_model(plain, factor)) for factor in (1.0, -1.0))
    inversion = studio.invert()
    assert close(inversion.trajectory.x, plain.invert().trajectory.x, 0.05)
    assert not torch.equal(inversion.trajectory.x, plain.invert().trajectory.x)
    assert studio.region(inversion, "cat", threshold=0.0)[0].max() > 0.5
    with caplog.at_level(logging.WARNING):
        assert bool(studio.edit(inversion).isfinite().all())
    assert "another model" not in caplog.text
    other.edit(inversion)
    assert "another model (weights" in caplog.text


def test_nunchakus_qwen_image_leaves_no_words_and_is_edited_by_a_mask(host, monkeypatch):
    """Its attention does not pass on the options by which others act in it."""
    from comfy.ldm.qwen_image import model

    attend = model.optimized_attention_masked
    alone = {"transformer_options": {}}
    monkeypatch.setattr(
        model, "optimized_attention_masked", lambda *args, **options: attend(*args, **options | alone)
    )
    studio = Studio(host, *_adapters()["Qwen-Image"](host))
    inversion = studio.invert()
    with pytest.raises(ValueError, match=r"computes its attention where it cannot be read \(Nunchaku\)"):
        studio.region(inversion, "cat")
    edited, source = (
        studio.edit(inversion, mask=studio.half(), background_lock=1.0),
        studio.picture()["samples"],
    )
    assert close(edited[..., 3:], source[..., 3:]) and not close(edited[..., :3], source[..., :3], 0.05)


def nunchaku_flux(studio: Studio, threshold: float):
    """As Nunchaku's loader leaves a Flux: its own network behind a wrapper in the place of the host's."""

    class Wrapper(torch.nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network, self.dtype = network, network.dtype
            self.model = SimpleNamespace(residual_diff_threshold_multi=threshold)

        def forward(self, x, timestep, context, transformer_options=None, **more):
            return self.network(x, timestep, context, **more)

    model = studio.model.clone()
    model.add_object_patch("diffusion_model", Wrapper(model.model.diffusion_model))
    return model


def test_nunchakus_flux_is_edited_by_a_mask_and_its_cache_is_refused(host):
    studio = Studio(host, *_adapters()["Flux.1"](host))
    wrapped = studio.on(nunchaku_flux(studio, 0.0))
    inversion = wrapped.invert()
    assert close(inversion.trajectory.x, studio.invert().trajectory.x)
    with pytest.raises(ValueError, match="the attention of this model .* cannot be read; connect a mask"):
        wrapped.region(inversion, "cat")
    edited, source = (
        wrapped.edit(inversion, mask=studio.half(), background_lock=1.0),
        studio.picture()["samples"],
    )
    assert close(edited[..., 3:], source[..., 3:]) and not close(edited[..., :3], source[..., :3], 0.05)
    cached = studio.on(nunchaku_flux(studio, 0.12))
    for run in (cached.invert, lambda: cached.edit(inversion)):
        with pytest.raises(ValueError, match="first-block cache is on .cache_threshold 0.12.*Set cache_thr"):
            run()
