"""Very small flow models from the host's own classes, with seeded random weights, and text encoders for them.

SD3 is saved as a file that the stock loader reads. Flux and AuraFlow have their width in the host's loader,
too wide for a test: their networks are built narrow from the same classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file

from devtools.random_networks import FLUX, patcher, seeded, t5_xxl, text_encoder

WIDTH = 64
CLIP = dict(hidden_size=WIDTH, intermediate_size=WIDTH, num_attention_heads=4, num_hidden_layers=3)
T5 = dict(d_model=WIDTH, d_ff=WIDTH, d_kv=16, num_heads=4, num_layers=1)


class Flow(NamedTuple):
    model: object
    clip: object


def sd3(host, layers: int = 1, alone: tuple[int, ...] = ()) -> Flow:
    """alone: the blocks whose image attends to itself once more, as in SD3.5 medium."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper
    from comfy.text_encoders.sd3_clip import SD3Tokenizer, sd3_clip

    network = OpenAISignatureMMDITWrapper(
        input_size=None,
        patch_size=2,
        in_channels=16,
        depth=layers,
        adm_in_channels=WIDTH + 1280,
        context_embedder_config={
            "target": "torch.nn.Linear",
            "params": {"in_features": 4096, "out_features": WIDTH * layers},
        },
        num_patches=16 * 16,
        pos_embed_max_size=16,
        qk_norm="rms",
        x_block_self_attn_layers=list(alone),
        device="cpu",
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
    )
    name = "tiny_sd3" if layers == 1 else f"tiny_sd3_{layers}"
    path = Path(host.base) / f"models/diffusion_models/{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({f"model.diffusion_model.{name}": value for name, value in seeded(network).items()}, path)
    (model,) = host.call("UNETLoader", unet_name=path.name, weight_dtype="default")
    return Flow(model, text_encoder(SD3Tokenizer, sd3_clip(clip_l=True, clip_g=False, t5=False), clip_l=CLIP))


def newer(parameters: type, **fields) -> dict:
    """Those of `fields` that this host's dataclass of parameters has."""
    return {name: value for name, value in fields.items() if name in parameters.__dataclass_fields__}


def t5() -> dict:
    """The configuration of a small T5."""
    return t5_xxl(**T5)


def flux(host) -> Flow:
    import comfy.supported_models
    from comfy.ldm.flux.model import FluxParams
    from comfy.text_encoders import flux as encoders

    model = patcher(
        comfy.supported_models.Flux(
            FLUX
            | dict(
                vec_in_dim=WIDTH,
                context_in_dim=WIDTH,
                hidden_size=WIDTH,
                num_heads=2,
                depth=1,
                depth_single_blocks=1,
                axes_dim=[4, 14, 14],
                **newer(FluxParams, txt_ids_dims=[]),
            )
        )
    )
    clip = text_encoder(
        encoders.FluxTokenizer, encoders.flux_clip(dtype_t5=torch.float32), clip_l=CLIP, t5xxl=t5()
    )
    return Flow(model, clip)


def aura(host) -> Flow:
    """Its words come from the encoder of Flux: the network only sees rows."""
    import comfy.supported_models

    config = dict(
        cond_seq_dim=WIDTH, dim=WIDTH, global_conddim=WIDTH, n_heads=4, n_layers=2, n_double_layers=1
    )
    return Flow(patcher(comfy.supported_models.AuraFlow(config | dict(max_seq=32 * 32))), flux(host).clip)


FAMILIES = {"SD3": sd3, "Flux": flux, "AuraFlow": aura}
