"""Networks of the shape of models that the tested hosts do not have yet, and an encoder for them.

Each has the tokens of its model in their order, its segments, and its cache, as its published files say; its
blocks are no more than attention. A family is known by the name of its class.
"""

from __future__ import annotations

from collections.abc import Sequence

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.supported_models_base
import torch
from comfy import sd1_clip
from comfy.ldm.modules.attention import optimized_attention
from comfy.text_encoders import llama, qwen_image
from torch import Tensor, nn

from tests.host.flow import WIDTH, Flow, patcher, text_encoder

HEADS = 4


class Block(nn.Module):
    """One attention of tokens [B, N, WIDTH], told the time."""

    def __init__(self, operations, device=None, dtype=None):
        super().__init__()
        made = dict(device=device, dtype=dtype)
        self.q, self.k, self.v, self.out = (operations.Linear(WIDTH, WIDTH, **made) for _ in range(4))
        self.norm = operations.LayerNorm(WIDTH, **made)

    def qkv(self, x: Tensor, time: Tensor | float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        x = self.norm(x) * (1 + time)
        return self.q(x), self.k(x), self.v(x)

    def among(self, x: Tensor, options: dict, time: Tensor | float = 0.0) -> Tensor:
        """x after the tokens' attention to one another."""
        return x + self.out(optimized_attention(*self.qkv(x, time), HEADS, transformer_options=options))

    def across(self, x: Tensor, text: Tensor, options: dict) -> Tensor:
        """x after its attention to the text."""
        q, k, v = self.q(self.norm(x)), self.k(text), self.v(text)
        return x + self.out(optimized_attention(q, k, v, HEADS, transformer_options=options))


class Network(nn.Module):
    """Embeds the picture and the text, and keeps which rows it was asked with."""

    def __init__(self, channels: int, layers: int, operations, device, dtype, text: int = WIDTH):
        super().__init__()
        made = dict(device=device, dtype=dtype)
        self.dtype, self.asked = dtype, []
        self.img_in, self.txt_in = (operations.Linear(n, WIDTH, **made) for n in (channels, text))
        self.proj_out = operations.Linear(WIDTH, channels, **made)
        self.blocks = self.some(layers, operations, device, dtype)

    def some(self, count: int, operations, device, dtype) -> nn.ModuleList:
        return nn.ModuleList(Block(operations, device, dtype) for _ in range(count))

    def embed(self, picture: Tensor, place: float = 0.0) -> Tensor:
        height, width = picture.shape[-2:]
        down, right = torch.arange(height).float(), torch.arange(width).float()
        where = (down[:, None] + 0.7 * right).flatten().to(picture) + place
        return self.img_in(picture.flatten(2).transpose(1, 2)) + _waves(where)

    def picture(self, tokens: Tensor, x: Tensor) -> Tensor:
        return self.proj_out(tokens).transpose(1, 2).reshape(x.shape)


def _waves(where: Tensor) -> Tensor:
    """Where tokens stand, as waves of WIDTH lengths."""
    return torch.sin(where[:, None] * torch.linspace(0.1, 2.0, WIDTH).to(where))


class QwenImage21Transformer2DModel(Network):
    """[text with the reference pictures at their slots, picture]: the prefix never sees the picture nor the
    time, and what it made is kept for a sampling. Text sees what stands before it, a reference itself too.
    """

    def __init__(self, layers=1, channels=64, device=None, dtype=None, operations=None):
        super().__init__(channels, layers, operations, device, dtype)
        self.caches, self.caching, self.dropped = {}, False, {}

    def prefix(self, context: Tensor, references: Sequence[Tensor], slots: Sequence[int]):
        text, parts, segments, place, length = self.txt_in(context), [], [], 0, 0
        slots = [*slots, *[text.shape[1]] * len(references)][: len(references)]
        for first, last, shown in zip([0, *slots], [*slots, text.shape[1]], [*references, None]):
            if last > first:
                count = last - first
                parts.append(text[:, first:last] + _waves(torch.arange(place, place + count).to(text)))
                causal = torch.ones(count, length + count, dtype=torch.bool, device=text.device).tril(length)
                segments.append((length, length + count, causal))
                place, length = place + count, length + count
            if shown is not None:
                parts.append(self.embed(shown, place))
                segments.append((length, length + parts[-1].shape[1], None))
                place, length = place + max(shown.shape[-2:]), length + parts[-1].shape[1]
        return torch.cat(parts, 1), segments, place

    def forward(
        self, x, timesteps, context, ref_latents=None, image_slots=None, transformer_options=None, **_
    ):
        options, references = transformer_options or {}, ref_latents or []
        sequence, segments, place = self.prefix(context, references, image_slots or [])
        target, time = self.embed(x, place), timesteps.to(x)[:, None, None]
        parts = [context, *references, torch.tensor([*(image_slots or []), *x.shape[-2:]])]
        key = b"".join(part.float().cpu().numpy().tobytes() for part in parts)
        wanted = self.caching and options.get("qwen_image21_cache", {}).get("device") != "off"
        kept = self.caches.setdefault(key, []) if wanted else []
        filled = len(kept) == len(self.blocks)
        self.asked.append((len(x), context.shape[1], filled))
        options["block_type"] = "single"
        for i, block in enumerate(self.blocks):
            options["block_index"] = i
            if not filled:
                q, k, v = block.qkv(sequence)
                kept.append((k.clone(), v.clone()))
                answers = [
                    optimized_attention(
                        q[:, start:end], k[:, :end], v[:, :end], HEADS, mask=mask, transformer_options=options
                    )
                    for start, end, mask in segments
                ]
                sequence = sequence + block.out(torch.cat(answers, 1))
            q, k, v = block.qkv(target, time)
            k, v = (torch.cat([before, own], 1) for before, own in zip(kept[i], (k, v)))
            target = target + block.out(optimized_attention(q, k, v, HEADS, transformer_options=options))
        return self.picture(target, x)


class ImageFirst(Network):
    """[picture, references, text], after blocks in which each kind is alone."""

    alone = 0

    def __init__(self, layers=1, channels=128, device=None, dtype=None, operations=None):
        super().__init__(channels, layers, operations, device, dtype)
        kinds = ("picture_blocks", "reference_blocks", "text_blocks")
        for name in kinds:
            setattr(self, name, self.some(self.alone, operations, device, dtype))

    def forward(self, x, timesteps, context, ref_latents=None, transformer_options=None, **_):
        options = transformer_options or {}
        kinds = [self.embed(x), *map(self.embed, ref_latents or []), self.txt_in(context)]
        blocks = [self.picture_blocks, *[self.reference_blocks] * (len(kinds) - 2), self.text_blocks]
        for i, own in enumerate(blocks):
            for block in own:
                kinds[i] = block.among(kinds[i], options)
        tokens, count = torch.cat(kinds, 1), kinds[0].shape[1]
        time = torch.zeros_like(tokens[..., :1])
        time[:, :count] = timesteps.to(x)[:, None, None]  # the rest is clean
        for i, block in enumerate(self.blocks):
            options["block_index"] = i
            tokens = block.among(tokens, options, time)
        return self.picture(tokens[:, :count], x)


class Flux3(ImageFirst):
    alone = 1


class MossImage(ImageFirst):
    pass


class Fibo2(Network):
    """[tokens made of the text, picture, references]; some blocks look at the text itself, too."""

    def __init__(self, layers=1, channels=128, device=None, dtype=None, operations=None):
        super().__init__(channels, layers, operations, device, dtype)
        self.noise_refiner, self.self_attn = (self.some(layers, operations, device, dtype) for _ in range(2))
        self.perceiver = self.some(2, operations, device, dtype)
        self.queries = nn.Parameter(torch.empty(512, WIDTH, device=device, dtype=dtype))

    def forward(self, x, timesteps, context, ref_latents=None, transformer_options=None, **_):
        options, text = transformer_options or {}, self.txt_in(context)
        made = self.queries[:256].expand(len(x), -1, -1)  # so many for a short text
        made = self.perceiver[1].among(self.perceiver[0].across(made, text, options), options)
        seen = torch.cat([self.embed(x), *map(self.embed, ref_latents or [])], 1)
        for block in self.noise_refiner:
            seen = block.among(seen, options)
        tokens, count = torch.cat([made, seen], 1), x.shape[-2] * x.shape[-1]
        time = torch.zeros_like(tokens[..., :1])
        time[:, 256 : 256 + count] = timesteps.to(x)[:, None, None]
        for i, (block, reading) in enumerate(zip(self.self_attn, self.blocks)):
            options["block_index"] = i
            tokens = reading.across(block.among(tokens, options, time), text, options)
        return self.picture(tokens[:, 256 : 256 + count], x)


class Ming(Network):
    """[rows of queries and one row for each token, filled up to 32; picture and references, filled up to 32].
    Latents have a frame; tokens are of 2 pixels a side.
    """

    patch_size, pad_tokens_multiple = 2, 32

    def __init__(self, layers=1, channels=16, device=None, dtype=None, operations=None):
        super().__init__(4 * channels, layers, operations, device, dtype)

    def tokens(self, latent: Tensor) -> Tensor:
        latent = latent.squeeze(2)
        height, width = latent.shape[-2:]
        return self.embed(
            nn.functional.pixel_unshuffle(nn.functional.pad(latent, (0, width % 2, 0, height % 2)), 2)
        )

    def forward(
        self, x, timesteps, context, ref_latents=None, direct_context=None, transformer_options=None, **_
    ):
        options, text = transformer_options or {}, torch.cat([context, direct_context], 1)
        picture = self.tokens(x)
        seen = torch.cat([picture, *map(self.tokens, ref_latents or [])], 1)
        text, seen = (nn.functional.pad(t, (0, 0, 0, -t.shape[1] % 32)) for t in (self.txt_in(text), seen))
        tokens = torch.cat([text, seen + timesteps.to(x)[:, None, None]], 1)
        for i, block in enumerate(self.blocks):
            options["block_index"] = i
            tokens = block.among(tokens, options)
        count, (height, width) = text.shape[1], x.shape[-2:]
        found = self.proj_out(tokens[:, count : count + picture.shape[1]]).transpose(1, 2)
        whole = nn.functional.pixel_shuffle(found.unflatten(-1, (-(-height // 2), -(-width // 2))), 2)
        return whole[..., :height, :width].unsqueeze(2)


# --- as the host has them -------------------------------------------------------------------------


class Model(comfy.model_base.QwenImage):
    """A flow model that is shown reference pictures as Qwen-Image is."""

    network: type[nn.Module]

    def __init__(self, model_config, device=None):
        kind = comfy.model_base.ModelType.FLUX
        super(comfy.model_base.QwenImage, self).__init__(model_config, kind, device, self.network)

    def extra_conds(self, **kwargs):
        found = super().extra_conds(**kwargs)
        if kwargs.get("image_slots") is not None:
            found["image_slots"] = comfy.conds.CONDConstant(kwargs["image_slots"])
        if kwargs.get("direct_context") is not None:
            found["direct_context"] = comfy.conds.CONDRegular(kwargs["direct_context"])
        return found


class QwenImage21(Model):
    """Its cache lives from the host's call before a sampling to the one after it."""

    network = QwenImage21Transformer2DModel

    @property
    def current_patcher(self):
        return self._current_patcher

    @current_patcher.setter
    def current_patcher(self, patcher):
        self._current_patcher, network = patcher, getattr(self, "diffusion_model", None)
        if network is not None:
            network.dropped, network.caches, network.caching = network.caches, {}, patcher is not None


class Sixteenth(comfy.latent_formats.LatentFormat):
    latent_channels, spacial_downscale_ratio = 64, 16


class Config(comfy.supported_models_base.BASE):
    unet_config = {}
    unet_extra_config = {}
    sampling_settings = dict(multiplier=1.0, shift=0.69)

    def __init__(self, model: type, latent_format: type, **network):
        super().__init__(dict(network))
        self.model, self.latent_format = model, latent_format()

    def get_model(self, state_dict, prefix="", device=None):
        return self.model(self, device=device)


# --- the text encoder -----------------------------------------------------------------------------

SYSTEM = "<|im_start|>system\nRead the prompt.<|im_end|>\n<|im_start|>user\n"
REST = "{}<|im_end|>\n<|im_start|>assistant\n"
LOOK, TURN, SEEN = "<image1><|vision_start|><|image_pad|><|vision_end|>", 151644, 3


class Tokenizer(qwen_image.QwenImageTokenizer):
    def __init__(self, embedding_directory=None, tokenizer_data=None):
        super().__init__(embedding_directory, tokenizer_data or {})
        self.llama_template, self.llama_template_images = SYSTEM + REST, SYSTEM + LOOK + REST


class Eyes(llama.Qwen3_4B):
    def preprocess_embed(self, embed, device):
        """The rows of a picture, or of what asks in its place."""
        return torch.ones(SEEN, WIDTH, device=device), None


class Qwen(sd1_clip.SDClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        size = dict(hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=3)
        super().__init__(
            device=device,
            textmodel_json_config=size | dict(num_attention_heads=2, num_key_value_heads=1),
            dtype=dtype,
            special_tokens={"pad": 151643},
            layer_norm_hidden_state=False,
            model_class=Eyes,
            enable_attention_masks=True,
            return_attention_masks=True,
            model_options=model_options or {},
        )


class Encoder(sd1_clip.SD1ClipModel):
    """Cuts off the system's turn, and takes out a picture's rows, which a reference latent replaces."""

    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__(
            device=device,
            dtype=dtype,
            name="qwen25_7b",
            clip_model=Qwen,
            model_options=model_options or {},
        )

    def encode_token_weights(self, token_weight_pairs):
        out, pooled, extra = super().encode_token_weights(token_weight_pairs)
        tokens = [pair[0] for pair in token_weight_pairs["qwen25_7b"][0]]
        rows = [token for token in tokens for _ in range(SEEN if isinstance(token, dict) else 1)]
        first = [i for i, row in enumerate(rows) if isinstance(row, int) and row == TURN][1]
        kept = [i for i in range(first, len(rows)) if not isinstance(rows[i], dict)]
        pictures = [i for i in range(first, len(rows)) if isinstance(rows[i], dict)][::SEEN]
        slots = [sum(place < i for place in kept) for i in pictures]
        return out[:, kept], pooled, {"image_slots": slots} if slots else {}


class MingTokenizer(Tokenizer):
    """Its template ends with what asks: <image>, the queries, </image>."""

    def __init__(self, embedding_directory=None, tokenizer_data=None):
        super().__init__(embedding_directory, tokenizer_data)
        self.llama_template = SYSTEM + REST + LOOK.removeprefix("<image1>")

    def tokenize_with_weights(self, text, return_word_ids=False, **kwargs):
        template = self.llama_template
        found = super().tokenize_with_weights(text, return_word_ids, llama_template=template, images=[None])
        for chunk in found["qwen25_7b"]:
            chunk[:] = [
                ({"type": "query"}, 1.0) if isinstance(token, dict) else (token, w) for token, w in chunk
            ]
        return found


class MingImageTEModel(Encoder):
    """The queries' rows, and apart from them one for each token before <image>. Nothing else is cut off."""

    def encode_token_weights(self, token_weight_pairs):
        out, pooled, _ = sd1_clip.SD1ClipModel.encode_token_weights(self, token_weight_pairs)
        before = len(token_weight_pairs["qwen25_7b"][0]) - 3
        return out[:, before + 1 : before + 1 + SEEN], pooled, {"direct_context": out[:, :before]}


def ming(host) -> Flow:
    model = patcher(
        Config(type("MingImage", (Model,), {"network": Ming}), comfy.latent_formats.Wan21, layers=1)
    )
    return Flow(model, text_encoder(MingTokenizer, MingImageTEModel))


def qwen_21(host, layers: int = 1) -> Flow:
    return _flow(QwenImage21, Sixteenth, layers)


def flux_3(host) -> Flow:
    return _flow(type("Flux3Klein", (Model,), {"network": Flux3}))


def moss(host) -> Flow:
    return _flow(type("MossImageModel", (Model,), {"network": MossImage}))


def fibo_2(host) -> Flow:
    return _flow(type("FIBO_2", (Model,), {"network": Fibo2}))


def _flow(model: type, latent_format: type = comfy.latent_formats.Flux2, layers: int = 1) -> Flow:
    return Flow(patcher(Config(model, latent_format, layers=layers)), text_encoder(Tokenizer, Encoder))


NEWEST = {
    "Ming-Image": ming,
    "Qwen-Image 2.1": qwen_21,
    "Flux.3 Klein": flux_3,
    "MOSS-Image": moss,
    "FIBO 2": fibo_2,
}
