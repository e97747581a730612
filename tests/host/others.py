"""Flow and diffusion transformers whose attention this pack does not read: very small ones of the host's own
classes, with random prompts of the form that each takes.
"""

from __future__ import annotations

from collections.abc import Callable

import comfy.supported_models as models
import torch

from tests.host.flow import WIDTH, Flow, newer, patcher

ROWS = 8
HEADS = dict(num_layers=1, num_attention_heads=4, attention_head_dim=16, axes_dims_rope=(4, 6, 6))
OMNI = dict(hidden_size=WIDTH, num_layers=2, num_refiner_layers=1, num_attention_heads=4, num_kv_heads=2)
OMNI |= dict(multiple_of=32, axes_dim_rope=(4, 6, 6), axes_lens=(64, 64, 64))
ALL = dict(attention_mask=torch.ones(1, ROWS, dtype=torch.long))  # every row is a token


def rows(*shape: int) -> torch.Tensor:
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(2))


def prompt(width: int = WIDTH, **extra) -> list:
    return [[rows(ROWS, width), extra]]


def hidream():
    network = dict(patch_size=2, in_channels=16, out_channels=16, num_layers=1, num_single_layers=1)
    network |= dict(attention_head_dim=32, num_attention_heads=2, axes_dims_rope=(8, 12, 12))
    network |= dict(caption_channels=[WIDTH, WIDTH], text_emb_dim=WIDTH, llama_layers=[0, 1])
    network |= dict(num_routed_experts=2, num_activated_experts=1)
    extra = dict(pooled_output=rows(WIDTH), conditioning_llama3=rows(2, 6, WIDTH))
    return models.HiDream(network), prompt(**extra)


def hunyuan_image():
    from comfy.ldm.hunyuan_video.model import HunyuanVideoParams

    network = dict(image_model="hunyuan_video", in_channels=64, out_channels=64, vec_in_dim=None)
    network |= dict(context_in_dim=WIDTH, hidden_size=WIDTH, mlp_ratio=4.0, num_heads=2, depth=1, theta=256)
    network |= dict(depth_single_blocks=1, axes_dim=[16, 16], patch_size=[1, 1], qkv_bias=True, byt5=False)
    fields = dict(meanflow=False, use_cond_type_embedding=False, vision_in_dim=None, meanflow_sum=False)
    network |= dict(guidance_embed=False) | newer(HunyuanVideoParams, **fields)
    return models.HunyuanImage21(network), prompt()


def hunyuan_dit():
    network = dict(image_model="hydit", depth=2, hidden_size=WIDTH, num_heads=2, mlp_ratio=2.0, text_len=ROWS)
    network |= dict(text_states_dim=WIDTH, text_states_dim_t5=WIDTH, text_len_t5=6)
    network |= dict(size_cond=True, use_style_cond=True)
    extra = ALL | dict(conditioning_mt5xl=rows(6, WIDTH), attention_mask_mt5xl=torch.ones(1, 6))
    return models.HunyuanDiT(network), prompt(**extra)


def omnigen():
    return models.Omnigen2(OMNI | dict(text_feat_dim=WIDTH)), prompt(**ALL)


def boogu():
    return models.Boogu(OMNI | dict(instruction_feat_dim=WIDTH, num_double_stream_layers=1)), prompt(**ALL)


def kandinsky():
    network = dict(in_text_dim=WIDTH, in_text_dim2=WIDTH, time_dim=32, model_dim=WIDTH, ff_dim=WIDTH)
    network |= dict(visual_embed_dim=WIDTH, num_text_blocks=1, num_visual_blocks=1, axes_dims=(4, 6, 6))
    return models.Kandinsky5Image(network), prompt(pooled_output=rows(WIDTH))


def ideogram():
    config = models.Ideogram4({})
    config.unet_config |= dict(num_layers=1, num_attention_heads=2, attention_head_dim=48, adaln_dim=32)
    config.unet_config |= dict(intermediate_size=WIDTH, llm_features_dim=WIDTH, mrope_section=(8, 8, 8))
    return config, prompt()


def ernie():
    network = dict(hidden_size=WIDTH, num_attention_heads=2, num_layers=1, ffn_hidden_size=WIDTH)
    return models.ErnieImage(network | dict(text_in_dim=WIDTH, rope_axes_dim=(8, 12, 12))), prompt()


def lens():
    network = HEADS | dict(enc_hidden_dim=WIDTH, selected_layer_index=(0, 1))
    return models.Lens(network), prompt(2 * WIDTH, **ALL)


def mage():
    return models.MageFlow(HEADS | dict(joint_attention_dim=WIDTH)), prompt()


def joy():
    config = models.JoyImage(dict(hidden_size=WIDTH, num_attention_heads=4, text_dim=WIDTH, num_layers=1))
    config.unet_config["rope_dim_list"] = [4, 6, 6]
    return config, prompt()


def pixeldit():
    network = dict(num_groups=2, hidden_size=WIDTH, pixel_hidden_size=8, pixel_attn_hidden_size=32)
    network |= dict(pixel_num_groups=2, patch_depth=1, pixel_depth=1, patch_size=2, txt_embed_dim=WIDTH)
    return models.PixelDiTT2I(network | dict(txt_max_length=16)), prompt()


OTHERS: dict[str, Callable] = {
    "HiDream": hidream,
    "HunyuanImage21": hunyuan_image,
    "HunyuanDiT": hunyuan_dit,
    "Omnigen2": omnigen,
    "Boogu": boogu,
    "Kandinsky5Image": kandinsky,
    "Ideogram4": ideogram,
    "ErnieImage": ernie,
    "Lens": lens,
    "MageFlow": mage,
    "JoyImage": joy,
    "PixelDiTT2I": pixeldit,
}


def made(name: str) -> tuple[Flow, list] | None:
    """A model by the host's name for its class, and a prompt for it; None where this host has none."""
    if not hasattr(models, name):
        return None
    config, positive = OTHERS[name]()
    return Flow(patcher(config), None), positive
