"""What the templates load: everybody can have these files.

The page offers to download the models, and puts the photographs into the input folder (web/js/pictures.js).
"""

from __future__ import annotations

from typing import NamedTuple

SD15 = "v1-5-pruned-emaonly-fp16.safetensors"
CONTROL = "control_v11p_sd15_canny_fp16.safetensors"
LORA = "epiNoiseoffset_v2.safetensors"
HUGGING_FACE = "https://huggingface.co"
MODELS = {
    SD15: {
        "name": SD15,
        "url": f"{HUGGING_FACE}/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/{SD15}",
        "directory": "checkpoints",
    },
    CONTROL: {
        "name": CONTROL,
        "url": f"{HUGGING_FACE}/comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/{CONTROL}",
        "directory": "controlnet",
    },
    LORA: {
        "name": LORA,
        "url": "https://civitai.com/api/download/models/16576?type=Model&format=SafeTensor&size=full&fp=fp16",
        "directory": "loras",
    },
}

SAM = {
    "name": "sam3.1_multiplex_fp16.safetensors",
    "url": f"{HUGGING_FACE}/Comfy-Org/sam3.1/resolve/main/checkpoints/sam3.1_multiplex_fp16.safetensors",
    "directory": "checkpoints",
}


def split(repository: str, folder: str, name: str) -> dict:
    """A file of one of the host's own repositories, as the host's templates name it."""
    return {
        "name": name,
        "url": f"{HUGGING_FACE}/Comfy-Org/{repository}/resolve/main/split_files/{folder}/{name}",
        "directory": folder,
    }


class Family(NamedTuple):
    """Network, text encoder and VAE of a family, as the host's own template for it loads them.

    kind: CLIPLoader's `type`. shift: that of ModelSamplingAuraFlow, where the host's template has one that
    is not the family's own.
    """

    network: dict
    encoder: dict
    kind: str
    vae: dict
    shift: float | None = None


Z_IMAGE = Family(
    split("z_image_turbo", "diffusion_models", "z_image_turbo_bf16.safetensors"),
    split("z_image_turbo", "text_encoders", "qwen_3_4b.safetensors"),
    "lumina2",
    split("z_image_turbo", "vae", "ae.safetensors"),
)
QWEN_IMAGE = Family(
    split("Qwen-Image_ComfyUI", "diffusion_models", "qwen_image_2512_fp8_e4m3fn.safetensors"),
    split("Qwen-Image_ComfyUI", "text_encoders", "qwen_2.5_vl_7b_fp8_scaled.safetensors"),
    "qwen_image",
    split("Qwen-Image_ComfyUI", "vae", "qwen_image_vae.safetensors"),
    shift=3.1,
)
KLEIN = Family(
    split("flux2-klein", "diffusion_models", "flux-2-klein-base-4b.safetensors"),
    split("flux2-klein", "text_encoders", "qwen_3_4b.safetensors"),
    "flux2",
    split("flux2-dev", "vae", "flux2-vae.safetensors"),
)

CAT, COFFEE, TABLE = "eta_cat.webp", "eta_coffee.webp", "eta_coffee_masked.webp"
RETOLD = "eta_coffee_edited.webp"  # COFFEE as an editor gives it back: a planted edit, zoomed and tinted
