"""Checkpoints with quantized weights, as people get them: inverted, edited, told from others, saved."""

import json
import logging

import pytest
import torch

from tests.host.flow import FAMILIES as FLOWS
from tests.host.test_adapters import Studio
from tests.host.test_sampling import close


@pytest.fixture(scope="module")
def plain(host) -> Studio:
    return Studio(host, *FLOWS["SD3"](host))


def kinds() -> list[str]:
    return ["float8_e4m3fn", "float8_e5m2", "mxfp8", "nvfp4", "int8_tensorwise", "convrot_w4a4"]


def quantized(plain, kind: str) -> Studio:
    """The model with every layer of its block in this kind, through the host's loader."""
    import comfy.sd
    from comfy import quant_ops

    if kind not in quant_ops.QUANT_ALGOS:
        pytest.skip(f"this host has no {kind}")
    layout = quant_ops.QUANT_ALGOS[kind]["comfy_tensor_layout"]
    state, layers = {}, {}
    for name, weight in plain.model.model.diffusion_model.state_dict().items():
        layer = name.removesuffix(".weight")
        if not name.startswith("joint_blocks") or weight.ndim != 2 or weight.shape[1] % 256:
            state[name] = weight
            continue
        if hasattr(quant_ops.QuantizedTensor, "state_dict"):
            packed = quant_ops.QuantizedTensor.from_float(weight, layout, **scale_of(kind, weight))
            state |= packed.state_dict(name)
        else:  # 0.3.75
            largest = weight.abs().max() / 448
            state |= {name: (weight / largest).to(torch.float8_e4m3fn), f"{layer}.weight_scale": largest}
        layers[layer] = {"format": kind}
        if kind in quant_ops.QUANT_ALGOS and hasattr(quant_ops.QuantizedTensor, "state_dict"):
            told = json.dumps({"format": kind}).encode()
            state[f"{layer}.comfy_quant"] = torch.tensor(list(told), dtype=torch.uint8)
    assert layers
    state = {f"model.diffusion_model.{name}": value for name, value in state.items()}
    metadata = {"_quantization_metadata": json.dumps({"layers": layers})}
    options = {} if hasattr(quant_ops.QuantizedTensor, "state_dict") else {"metadata": metadata}
    with torch.inference_mode():  # as the host's executor loads
        return plain.on(comfy.sd.load_diffusion_model_state_dict(state, **options))


def scale_of(kind: str, weight: torch.Tensor) -> dict:
    return {"scale": weight.abs().max() / 448} if kind.startswith("float8") else {}


@pytest.mark.parametrize("kind", kinds())
def test_a_quantized_checkpoint_is_inverted_and_edited(plain, kind, caplog):
    studio = quantized(plain, kind)
    inversion = studio.invert()
    assert inversion.trajectory.maps is not None
    x = studio.invert().trajectory.x
    assert not torch.equal(x, plain.invert().trajectory.x)
    assert (
        torch.corrcoef(torch.stack([x[-1].flatten(), plain.invert().trajectory.x[-1].flatten()]))[0, 1] > 0.9
    )
    with caplog.at_level(logging.WARNING):
        assert bool(studio.edit(inversion).isfinite().all())
    assert "another model" not in caplog.text
    plain.edit(inversion)
    assert "another model (weights" in caplog.text


def test_a_plain_models_identity_is_that_of_earlier_versions(plain):
    """Saved inversions name it: 64 values of every so many weights, in the order of their names."""
    import hashlib

    state = plain.model.model.diffusion_model.state_dict()
    names = sorted(name for name in state if name.endswith("weight"))
    digest = hashlib.sha256()
    for name in names[:: max(1, len(names) // 24)]:
        digest.update(state[name].flatten()[:64].float().numpy().tobytes())
    assert plain.invert().trajectory.signature["weights"] == digest.hexdigest()[:16]


def test_a_weight_that_is_not_there_is_not_asked_for(plain):
    """Lazy or offloaded weights have a shape and a type, and no values."""
    model = plain.model.clone()
    from tests.host.test_sampling import pack

    signature = pack(plain.host, "host").signature
    layer = model.model.diffusion_model.joint_blocks[0].x_block.attn.proj
    kept, before = layer.weight, signature(model)
    layer.weight = torch.nn.Parameter(kept.to("meta"), requires_grad=False)
    try:
        assert signature(model)["weights"] != before["weights"]
    finally:
        layer.weight = kept
    assert signature(model) == before
    assert close(plain.edit(plain.invert()), plain.edit(plain.invert()))
