"""The UNet families with seeded random weights: networks of the host's own class, in files that the stock
loader takes for the family, as narrow and shallow as its detection lets them be; and text encoders of the
family's own classes with few layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from safetensors.torch import save_file

from devtools import random_networks
from devtools.random_networks import text_encoder, unet_weights

LAYERS = dict(num_hidden_layers=3)
SHALLOW = dict(
    num_res_blocks=[1, 1],
    channel_mult=(1, 1),
    transformer_depth=[1, 1],
    transformer_depth_output=[1, 1, 1, 1],
    transformer_depth_middle=1,
)
WHOLE = dict(  # every block of SD2: the host tells v-prediction by its last one
    num_res_blocks=[2, 2, 2, 2],
    channel_mult=(1, 1, 1, 1),
    transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0],
    transformer_depth_output=[1] * 9 + [0] * 3,
    transformer_depth_middle=1,
)
SDXL = random_networks.SDXL | dict(channel_mult=(1, 1, 1))
REFINER = dict(
    model_channels=384,
    num_res_blocks=[2, 2, 2, 2],
    channel_mult=(1, 1, 1, 1),
    transformer_depth=[0, 0, 4, 4, 4, 4, 0, 0],
    transformer_depth_output=[0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0],
    transformer_depth_middle=4,
    context_dim=1280,
    num_classes="sequential",
    adm_in_channels=2560,
)
HEADS_OF_SD1 = dict(num_heads=8, num_head_channels=-1)


class Family(NamedTuple):
    """detected: the host's class for its model. network: what differs from SD2's. sampling: what
    ModelSamplingDiscrete sets.
    """

    detected: str
    network: dict
    clip: Callable
    v_prediction: bool = False
    sampling: dict = {}


def clip_l():
    from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer

    return text_encoder(SD1Tokenizer, SD1ClipModel, clip_l=LAYERS)


def clip_h():
    from comfy.text_encoders.sd2_clip import SD2ClipModel, SD2Tokenizer

    return text_encoder(SD2Tokenizer, SD2ClipModel, clip_h=LAYERS)


def clip_lg():
    from comfy.sdxl_clip import SDXLClipModel, SDXLTokenizer

    return text_encoder(SDXLTokenizer, SDXLClipModel, clip_l=LAYERS, clip_g=LAYERS)


def clip_g():
    from comfy.sdxl_clip import SDXLRefinerClipModel, SDXLTokenizer

    return text_encoder(SDXLTokenizer, SDXLRefinerClipModel, clip_g=LAYERS)


FAMILIES = {
    "SD1.5 inpainting": Family(
        "SD15",
        SHALLOW | HEADS_OF_SD1 | dict(in_channels=9, context_dim=768, use_linear_in_transformer=False),
        clip_l,
    ),
    "SD2.0": Family("SD20", SHALLOW, clip_h),
    "SD2.1 v": Family("SD20", WHOLE, clip_h, v_prediction=True),
    "zero-terminal SNR": Family("SD20", SHALLOW, clip_h, sampling=dict(sampling="v_prediction", zsnr=True)),
    "LCM": Family("SD20", SHALLOW, clip_h, sampling=dict(sampling="lcm", zsnr=False)),
    "SDXL": Family("SDXL", SDXL, clip_lg),
    "SDXL inpainting": Family("SDXL", SDXL | dict(in_channels=9), clip_lg),
    "SDXL refiner": Family("SDXLRefiner", REFINER, clip_g),
}


def weights(network: dict, v_prediction: bool) -> dict[str, torch.Tensor]:
    state = unet_weights(network)
    if v_prediction:
        state["output_blocks.11.1.transformer_blocks.0.norm1.bias"] *= 10
    return state


def load(host, name: str):
    """(MODEL, CLIP) of a family, the MODEL through the stock loader."""
    family = FAMILIES[name]
    path = host.base / "models/diffusion_models" / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        save_file(weights(family.network, family.v_prediction), path)
    (model,) = host.call("UNETLoader", unet_name=path.name, weight_dtype="default")
    assert type(model.model.model_config).__name__ == family.detected
    if family.sampling:
        (model,) = host.call("ModelSamplingDiscrete", model=model, **family.sampling)
    return model, family.clip()
