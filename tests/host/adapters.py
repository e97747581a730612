"""Today's transformers, very small, of the host's own classes with seeded random weights.

Their tokenizers are the host's own. Their text encoders are of few layers, and those of Qwen-Image and Krea 2
have no eyes: the host gives these a size that no test can carry.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec

import comfy.supported_models as models
import torch
from comfy import sd1_clip
from comfy.ldm.chroma.model import ChromaParams
from comfy.ldm.flux.model import FluxParams
from comfy.text_encoders import flux, llama, pixart_t5, qwen_image, z_image

from tests.host.flow import WIDTH, Flow, newer, patcher, sd3, t5, text_encoder
from tests.host.flow import flux as flux1

QWEN = dict(
    hidden_size=WIDTH,
    intermediate_size=WIDTH,
    num_hidden_layers=3,
    num_attention_heads=2,
    num_key_value_heads=1,
)
HEADS = dict(attention_head_dim=16, num_attention_heads=4, axes_dims_rope=(4, 6, 6))


class BlindQwen(sd1_clip.SDClipModel):
    """A language model as Qwen-Image's and Krea 2's, without the half that sees pictures."""

    layers: object = "last"

    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__(
            device=device,
            layer=self.layers,
            textmodel_json_config=QWEN,
            dtype=dtype,
            special_tokens={"pad": 151643},
            layer_norm_hidden_state=False,
            model_class=llama.Qwen3_4B,
            enable_attention_masks=True,
            return_attention_masks=True,
            model_options=model_options or {},
        )


class TwoLayers(BlindQwen):
    layers = [0, 1]


def blind(tokenizer, model, name: str, encoder: type):
    """A CLIP whose encoder of that name is `encoder`."""

    class Model(model):
        def __init__(self, device="cpu", dtype=None, model_options=None):
            super().__init__(
                device=device, dtype=dtype, model_options={**(model_options or {}), f"{name}_class": encoder}
            )

    return text_encoder(tokenizer, Model)


def qwen(host, layers: int = 1) -> Flow:
    network = dict(patch_size=2, in_channels=64, num_layers=layers, joint_attention_dim=WIDTH, **HEADS)
    clip = blind(qwen_image.QwenImageTokenizer, qwen_image.QwenImageTEModel, "qwen25_7b", BlindQwen)
    return Flow(patcher(models.QwenImage(network)), clip)


def z(host, layers: int = 1) -> Flow:
    network = dict(patch_size=2, in_channels=16, dim=256, cap_feat_dim=WIDTH, n_layers=layers, qk_norm=True)
    network |= dict(
        n_heads=4, n_kv_heads=4, axes_dims=[16, 24, 24], z_image_modulation=True, time_scale=1000.0
    )
    network |= dict(axes_lens=[300, 512, 512], pad_tokens_multiple=32, n_refiner_layers=1)
    clip = text_encoder(z_image.ZImageTokenizer, z_image.te(), qwen3_4b=QWEN)
    return Flow(patcher(models.ZImage(network)), clip)


def klein(host) -> Flow:
    network = dict(
        in_channels=128, out_channels=128, vec_in_dim=None, context_in_dim=3 * WIDTH, mlp_ratio=3.0
    )
    network |= dict(hidden_size=WIDTH, num_heads=4, depth=1, depth_single_blocks=1, axes_dim=[4, 4, 4, 4])
    network |= dict(theta=2000, patch_size=1, qkv_bias=False, guidance_embed=False, global_modulation=True)
    network |= dict(mlp_silu_act=True, ops_bias=False, default_ref_method="index", ref_index_scale=10.0)
    network |= newer(FluxParams, txt_ids_dims=[3])
    layers = QWEN | dict(num_hidden_layers=28)
    clip = text_encoder(flux.KleinTokenizer, flux.klein_te(), qwen3_4b=layers)
    return Flow(patcher(models.Flux2(network)), clip)


def chroma(host) -> Flow:
    network = dict(in_channels=64, out_channels=64, context_in_dim=WIDTH, hidden_size=WIDTH, mlp_ratio=4.0)
    network |= dict(num_heads=2, depth=1, depth_single_blocks=1, axes_dim=[4, 14, 14], theta=10000)
    network |= dict(patch_size=2, qkv_bias=True, in_dim=64, out_dim=WIDTH, hidden_dim=WIDTH, n_layers=1)
    clip = text_encoder(pixart_t5.PixArtTokenizer, pixart_t5.pixart_te(), t5xxl=t5())
    return Flow(patcher(models.Chroma(network | newer(ChromaParams, txt_ids_dims=[], vec_in_dim=None))), clip)


def radiance(host) -> Flow:
    """Pixels in the place of latents; patches of 2 pixels where the real ones have 16."""
    from comfy.ldm.chroma_radiance.model import ChromaRadianceParams

    network = dict(in_channels=3, out_channels=3, context_in_dim=WIDTH, hidden_size=WIDTH, mlp_ratio=4.0)
    network |= dict(num_heads=2, depth=1, depth_single_blocks=1, axes_dim=[4, 14, 14], theta=10000)
    network |= dict(patch_size=2, qkv_bias=True, in_dim=64, out_dim=WIDTH, hidden_dim=WIDTH, n_layers=1)
    network |= dict(nerf_hidden_size=8, nerf_mlp_ratio=2, nerf_depth=1, nerf_max_freqs=2, nerf_tile_size=0)
    network |= dict(nerf_final_head_type="conv", nerf_embedder_dtype=torch.float32)
    newest = dict(txt_ids_dims=[], vec_in_dim=None, use_x0=False, use_sequential_txt_ids=False)
    network |= newer(ChromaRadianceParams, **newest)
    return Flow(patcher(models.ChromaRadiance(network)), chroma(host).clip)


def longcat(host) -> Flow:
    from comfy.text_encoders import longcat_image

    network = dict(guidance_embed=False, in_channels=16, out_channels=16, vec_in_dim=None)
    network |= dict(context_in_dim=WIDTH, hidden_size=WIDTH, mlp_ratio=4.0, num_heads=2, depth=1)
    network |= dict(depth_single_blocks=1, axes_dim=[4, 14, 14], theta=10000, patch_size=2, qkv_bias=True)
    network |= newer(FluxParams, txt_ids_dims=[1, 2])
    model = longcat_image.LongCatImageTEModel
    clip = blind(longcat_image.LongCatImageTokenizer, model, "qwen25_7b", BlindQwen)
    return Flow(patcher(models.LongCatImage(network)), clip)


def lumina(host) -> Flow:
    """Its own tokenizer is in its checkpoint: words come from the encoder of Z-Image."""
    network = dict(patch_size=2, in_channels=16, dim=256, cap_feat_dim=WIDTH, n_layers=1, qk_norm=True)
    network |= dict(n_heads=4, n_kv_heads=2, axes_dims=[16, 24, 24], axes_lens=[300, 512, 512])
    return Flow(patcher(models.Lumina2(network | dict(n_refiner_layers=1))), z(host).clip)


def wan(host, layers: int = 1) -> Flow:
    """Its own tokenizer is in its checkpoint: words come from the encoder of Flux."""
    network = dict(model_type="t2v", in_dim=16, out_dim=16, dim=WIDTH, ffn_dim=WIDTH, text_dim=WIDTH)
    network |= dict(num_heads=2, num_layers=layers, eps=1e-6)
    return Flow(patcher(models.WAN21_T2V(network)), flux1(host).clip)


def krea(host, layers: int = 1) -> Flow:
    from comfy.text_encoders import krea2

    network = dict(features=WIDTH, tdim=32, txtdim=WIDTH, heads=4, kvheads=2, multiplier=1, layers=layers)
    network |= dict(txtlayers=2, txtheads=4, txtkvheads=4, channels=16)
    clip = blind(krea2.Krea2Tokenizer, krea2.Krea2TEModel, "qwen3vl_4b", TwoLayers)
    return Flow(patcher(models.Krea2(network)), clip)


def anima(host, layers: int = 1) -> Flow:
    from comfy.text_encoders import anima as encoders

    network = dict(max_img_h=64, max_img_w=64, max_frames=8, in_channels=16, out_channels=16, patch_spatial=2)
    network |= dict(
        patch_temporal=1, model_channels=WIDTH, num_blocks=layers, num_heads=2, pos_emb_cls="rope3d"
    )
    network |= dict(crossattn_emb_channels=1024)
    clip = text_encoder(encoders.AnimaTokenizer, encoders.te(), qwen3_06b=QWEN | dict(hidden_size=1024))
    return Flow(patcher(models.Anima(network)), clip)


ADAPTERS = {
    "Qwen-Image": qwen,
    "Z-Image": z,
    "Flux.1": flux1,
    "Chroma": chroma,
    "Chroma Radiance": radiance,
    "Lumina 2": lumina,
    "Wan": wan,
}
if hasattr(flux, "KleinTokenizer"):
    ADAPTERS |= {"Flux.2 Klein": klein}
if hasattr(models, "LongCatImage"):
    ADAPTERS |= {"LongCat": longcat}
if find_spec("comfy.ldm.krea2"):
    ADAPTERS |= {"Krea 2": krea}
if find_spec("comfy.ldm.anima"):
    ADAPTERS |= {"Anima": anima}

ONE_LIST = ("Qwen-Image", "Z-Image", "Wan", "Krea 2", "Anima")
TWO_BLOCKS = {  # what the first block has taken from another shows in the second
    **ADAPTERS,
    **{name: partial(build, layers=2) for name, build in ADAPTERS.items() if name in ONE_LIST},
    "SD3": partial(sd3, layers=2, alone=(0,)),
}
