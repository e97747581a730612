"""A pack of the tests' server: very small networks under the file names of the families' templates.

The files are written when the server starts, from the networks of tests/host/adapters.py. The host's own
loaders read them; what its detection takes for fixed sizes is told to it here.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import comfy.model_detection
import comfy.sd
import folder_paths
from comfy.ldm.models.autoencoder import AutoencoderKL, AutoencodingEngine
from comfy.ldm.modules.diffusionmodules import model as autoencoder
from comfy.ldm.wan.vae import WanVAE
from comfy.text_encoders import llama
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[3]
ours = ModuleType("tests")  # the host has a folder of this name, too
ours.__path__ = [str(ROOT / "tests")]
sys.modules["tests"] = ours
sys.path.insert(0, str(ROOT))
from devtools.demo import sam  # noqa: E402
from devtools.demo.prepare import CAT, SOURCES  # noqa: E402
from devtools.templates.files import KLEIN, QWEN_IMAGE, Z_IMAGE, Family  # noqa: E402
from tests.host import adapters  # noqa: E402
from tests.host.flow import WIDTH, seeded  # noqa: E402

sys.path.remove(str(ROOT))

NODE_CLASS_MAPPINGS = {}
MODELS = Path(folder_paths.models_dir)
CHANNELS = 32  # of the first layer of encoder and decoder
LAYERS = 28  # Klein reads the text encoder up to the 27th
EYES = dict(num_layers=1, intermediate_size=WIDTH)
QWEN_7B = adapters.QWEN | dict(num_attention_heads=4, num_key_value_heads=4)  # the host knows it by its keys
configs = {}


def put(file: dict, state: dict, **metadata: str) -> None:
    path = MODELS / file["directory"] / file["name"]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in state.items()}, path, metadata)


def put_network(family: Family, flow: adapters.Flow) -> None:
    name = family.network["name"]
    configs[name] = flow.model.model.model_config
    put(family.network, flow.model.model.diffusion_model.state_dict(), tiny=name)


def put_image_vae(family: Family, latent: int, **more: bool) -> None:
    shape = dict(double_z=True, z_channels=latent, resolution=256, in_channels=3, out_ch=3, ch=CHANNELS)
    shape |= dict(ch_mult=[1, 2, 4, 4], num_res_blocks=2, attn_resolutions=[], dropout=0.0) | more
    if more:
        return put(family.vae, seeded(AutoencoderKL(ddconfig=shape, embed_dim=latent)))
    parts = "comfy.ldm.modules.diffusionmodules.model"
    engine = AutoencodingEngine(
        regularizer_config={"target": "comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer"},
        encoder_config={"target": f"{parts}.Encoder", "params": shape},
        decoder_config={"target": f"{parts}.Decoder", "params": shape},
    )
    return put(family.vae, seeded(engine))


def put_qwen_3(flow: adapters.Flow) -> None:
    put(Z_IMAGE.encoder, flow.clip.cond_stage_model.qwen3_4b.transformer.state_dict())


def detected(
    state, prefix, *args, metadata=None, detect=comfy.model_detection.model_config_from_unet, **more
):
    config = configs.get((metadata or {}).get("tiny"))
    if config is not None:
        return type(config)(config.unet_config)
    return detect(state, prefix, *args, metadata=metadata, **more)


def detected_encoder(state, detect=comfy.sd.detect_te_model):
    norm = state.get("model.layers.0.post_attention_layernorm.weight")
    if norm is not None and norm.shape[0] == WIDTH and "model.layers.0.self_attn.q_norm.weight" in state:
        return comfy.sd.TEModel.QWEN3_4B
    return detect(state)


def narrow(part: type) -> None:
    made = part.__init__

    def make(self, *, ch, z_channels, **more):
        made(self, ch=ch if z_channels == 4 else CHANNELS, z_channels=z_channels, **more)

    part.__init__ = make


adapters.QWEN["num_hidden_layers"] = LAYERS
llama.qwen_vl.Qwen2VLVisionTransformer = partial(llama.qwen_vl.Qwen2VLVisionTransformer, **EYES)
llama.Qwen3_4BConfig = partial(llama.Qwen3_4BConfig, **adapters.QWEN)
llama.Qwen25_7BVLI_Config = partial(llama.Qwen25_7BVLI_Config, **QWEN_7B | dict(num_hidden_layers=3))
for part in (autoencoder.Encoder, autoencoder.Decoder):
    narrow(part)
comfy.model_detection.model_config_from_unet = detected
comfy.sd.detect_te_model = detected_encoder

z = adapters.z(None)
put_network(Z_IMAGE, z)
put_qwen_3(z)
put_image_vae(Z_IMAGE, 16)
put_network(QWEN_IMAGE, adapters.qwen(None))
sighted = adapters.text_encoder(adapters.qwen_image.QwenImageTokenizer, adapters.qwen_image.te())
put(
    QWEN_IMAGE.encoder,
    {
        name: value
        for name, value in sighted.cond_stage_model.qwen25_7b.transformer.state_dict().items()
        if not name.startswith("visual.")
    },
)
wan = dict(dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[], dropout=0.0)
put(QWEN_IMAGE.vae, seeded(WanVAE(**wan, temperal_downsample=[False, True, True])))
if "Flux.2 Klein" in adapters.ADAPTERS:
    put_network(KLEIN, adapters.klein(None))
    put_image_vae(KLEIN, 32, batch_norm_latent=True)
if sam.host_has_sam():
    sam.plant(MODELS, SOURCES[CAT])
