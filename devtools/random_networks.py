"""Networks of the host's own classes with seeded random weights.

What a network call costs does not depend on what its weights have learnt.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

TAMED = 0.2  # of the output layer: a network that predicts little, so that its inversion can be played back
SD15 = dict(
    num_res_blocks=[2, 2, 2, 2],
    channel_mult=(1, 2, 4, 4),
    transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0],
    transformer_depth_output=[1] * 9 + [0] * 3,
    transformer_depth_middle=1,
    context_dim=768,
    num_heads=8,
    num_head_channels=-1,
    use_linear_in_transformer=False,
)
SDXL = dict(
    num_res_blocks=[2, 2, 2],
    channel_mult=(1, 2, 4),
    transformer_depth=[0, 0, 2, 2, 10, 10],
    transformer_depth_output=[0, 0, 0, 2, 2, 2, 10, 10, 10],
    transformer_depth_middle=10,
    context_dim=2048,
    num_classes="sequential",
    adm_in_channels=2816,
)
FLUX = dict(
    image_model="flux",
    guidance_embed=True,
    in_channels=16,
    out_channels=16,
    vec_in_dim=768,
    context_in_dim=4096,
    hidden_size=3072,
    mlp_ratio=4.0,
    num_heads=24,
    depth=19,
    depth_single_blocks=38,
    axes_dim=[16, 56, 56],
    theta=10000,
    patch_size=2,
    qkv_bias=True,
)


def unet_weights(network: dict, device: torch.device | None = None) -> dict[str, torch.Tensor]:
    """The state of a UNet in half precision. network: what differs from SD2's."""
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from comfy.ops import disable_weight_init

    common = dict(image_size=32, in_channels=4, out_channels=4, model_channels=320, context_dim=1024)
    common |= dict(
        use_spatial_transformer=True, use_linear_in_transformer=True, legacy=False, num_head_channels=64
    )
    unet = UNetModel(**common | network, dtype=torch.float16, device="meta", operations=disable_weight_init)
    generator, state = torch.Generator(device or "cpu").manual_seed(11), {}
    for name, shape in ((name, value.shape) for name, value in unet.state_dict().items()):
        random = torch.randn(shape, generator=generator, device=device)
        if len(shape) > 1:
            random *= (6.0 if name.endswith("attn2.to_q.weight") else 1.0) / random[0].numel() ** 0.5
        elif name.endswith("weight"):
            random = 1 + 0.1 * random
        else:
            random *= 0.02
        state[name] = random.half()
    state["out.2.weight"] *= TAMED
    return state


def seeded(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state of any other network, on its own device and in its own precision."""
    state, generators = {}, {}
    for name, value in network.state_dict().items():
        generator = generators.setdefault(value.device, torch.Generator(value.device).manual_seed(5))
        random = torch.randn(value.shape, generator=generator, device=value.device)
        if value.ndim > 1:
            random /= value[0].numel() ** 0.5
        else:
            random = 0.02 * random if name.endswith("bias") else 1 + 0.1 * random
        state[name] = random.to(value.dtype) if value.is_floating_point() else random
    return state


def text_encoder(tokenizer, model, **configs):
    """A CLIP of the host's classes; configs: what differs from each of its encoders' own configuration."""
    import comfy.sd
    from comfy.supported_models_base import ClipTarget

    options = {f"{name}_model_config": config for name, config in configs.items()}
    clip = comfy.sd.CLIP(ClipTarget(tokenizer, model), model_options=options)
    clip.cond_stage_model.load_state_dict(seeded(clip.cond_stage_model))
    return clip


def patcher(config, dtype: torch.dtype = torch.float32, device: torch.device | None = None):
    """A MODEL of one of the host's configurations, its weights made where they stay."""
    import comfy.model_management
    import comfy.model_patcher

    config.set_inference_dtype(dtype, None)
    model = config.get_model({}, "", device=device or "cpu")
    model.diffusion_model.load_state_dict(seeded(model.diffusion_model))
    load, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    return comfy.model_patcher.ModelPatcher(model, load, offload)


def t5_xxl(**changed) -> dict:
    """The configuration of T5 XXL with something changed."""
    from comfy.text_encoders import flux

    return json.loads((Path(flux.__file__).parent / "t5_config_xxl.json").read_text()) | changed
