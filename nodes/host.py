"""All contact with ComfyUI's internals: models, schedules, sampling, attention, prompts, folders.

Nothing is installed on a MODEL: what a run needs lives in a copy of its model options, inside that one sampling.
"""

from __future__ import annotations

import hashlib
import logging
import time
from itertools import chain
from pathlib import Path
from typing import Callable, Generic, NamedTuple, Sequence, TypeVar

import comfy.model_patcher
import comfy.model_sampling
import comfy.sample
import comfy.samplers
import comfy.utils
import folder_paths
import latent_preview
import torch
from comfy.ldm.modules.attention import SpatialTransformer, optimized_attention
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, Upsample
from comfy.model_management import intermediate_device
from comfy.patcher_extension import WrappersMP, add_wrapper
from server import PromptServer
from torch import Tensor

from ..eta_core.alignment import Token
from ..eta_core.ddim import Denoise, eta_step, split_noise
from ..eta_core.eta import EtaSchedule
from ..eta_core.masks import MapAverage, resize_mask
from ..eta_core.noise import NoiseCandidates
from ..eta_core.schedule import Grid, ddim_grid, grid_from_sigmas, time_of
from ..eta_core.trajectory import Trajectory

REFERENCE_SCHEDULER = "ddim_uniform"
SCHEDULERS = [REFERENCE_SCHEDULER, *(name for name in comfy.samplers.SCHEDULER_NAMES if name != REFERENCE_SCHEDULER)]

log = logging.getLogger("eta-inversion")


def warn(message: str, node_id: str | None = None) -> None:
    """Say it in the log and, where a server runs, on the node."""
    log.warning(message)
    server = getattr(PromptServer, "instance", None)
    if server is not None and node_id is not None:
        server.send_progress_text(f"Warning: {message}", node_id)


# --- the model ---------------------------------------------------------------------------------------------------


def noise_levels(model) -> list[float]:
    """The model's training noise levels, ascending. Raises ValueError for models that have none (flow, EDM)."""
    sampling = model.get_model_object("model_sampling")
    table = getattr(sampling, "sigmas", None)
    if table is None or isinstance(sampling, (comfy.model_sampling.CONST, comfy.model_sampling.EDM)):
        raise ValueError(
            f"{type(model.model).__name__} predicts by {prediction(model)}: Eta Inversion needs a diffusion model with eps- or v-prediction "
            "(SD1, SD2, SDXL families); load such a checkpoint")
    return table.double().cpu().tolist()


def prediction(model) -> str:
    """Name of the host's class that turns the network's output into a denoised latent, such as EPS or V_PREDICTION."""
    kinds = type(model.get_model_object("model_sampling")).__mro__
    return next(kind.__name__ for kind in kinds if "calculate_denoised" in vars(kind))


def make_grid(model, scheduler: str, steps: int) -> Grid:
    """The reference's grid for `ddim_uniform`, the host's own schedule for every other name."""
    table = noise_levels(model)
    if scheduler == REFERENCE_SCHEDULER:
        return ddim_grid(steps, table)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, steps)
    return grid_from_sigmas(sigmas.tolist(), table)


STRUCTURE = ("network", "prediction", "latent channels", "noise levels")


def signature(model) -> dict[str, str]:
    """What tells a model: STRUCTURE must agree between inversion and edit, weights and LoRA patches should."""
    table = noise_levels(model)
    keys = model.get_key_patches("diffusion_model.")
    names = sorted(name for name in keys if name.endswith("weight"))
    sampled = (keys[name][0][0].flatten()[:64].float().cpu() for name in names[:: max(1, len(names) // 24)])
    patches = sorted((str(key), *(f"{p[0]:g}*{p[2]:g}" for p in entries)) for key, entries in model.patches.items())
    return {
        "network": type(model.model).__name__,
        "prediction": prediction(model),
        "latent channels": str(latent_channels(model)),
        "noise levels": f"{len(table)} from {table[0]:.5f} to {table[-1]:.4f}",
        "weights": _digest(sampled),
        "LoRA patches": hashlib.sha256(repr(patches).encode()).hexdigest()[:16] if patches else "none",
    }


def check_same_model(model, expected: dict[str, str], node_id: str | None = None) -> None:
    """ValueError where an inversion's model has another structure than `model`; a warning where its weights differ."""
    actual = signature(model)
    differences = {name: f"{name} {expected.get(name)} against {value}" for name, value in actual.items() if expected.get(name) != value}
    broken = [differences[name] for name in STRUCTURE if name in differences]
    if broken:
        raise ValueError(f"the inversion was made with another kind of model ({'; '.join(broken)}): connect the model of EtaInversion, or invert again with this one")
    if differences:
        warn(f"the inversion was made with another model ({'; '.join(differences.values())}): the edit may drift from the picture; invert again with this one", node_id)


def latent_channels(model) -> int:
    return model.get_model_object("latent_format").latent_channels


def downscale(model) -> int:
    """Pixels of the picture per latent pixel."""
    return getattr(model.get_model_object("latent_format"), "spacial_downscale_ratio", 8)


def _digest(tensors) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def fingerprint(conditioning: list) -> str:
    """Digest of a CONDITIONING's tensors and keys."""
    entries = [(cond, *(v for _, v in sorted(extras.items()) if torch.is_tensor(v))) for cond, extras in conditioning]
    return _digest(chain.from_iterable(entries)) + "-" + ",".join(sorted({key for _, extras in conditioning for key in extras}))


def latent_tensor(model, latent: dict, node_id: str | None = None) -> Tensor:
    """The samples of a LATENT, checked: [B, C, H, W] with the model's channels, finite."""
    samples = comfy.sample.fix_empty_latent_channels(model, latent["samples"])
    if samples.ndim != 4 or samples.shape[1] != latent_channels(model):
        raise ValueError(
            f"latent_image has shape {list(samples.shape)}: this model takes [batch, {latent_channels(model)}, height, width]; encode the "
            "picture with the VAE of this checkpoint")
    if not bool(torch.isfinite(samples).all()):
        raise ValueError("latent_image holds NaN or infinite values: the VAE overflowed, start the host with --fp32-vae and encode again")
    if "noise_mask" in latent:
        warn("the latent's noise_mask is not used: connect the mask to EtaSampler's mask instead", node_id)
    return samples.float()


def in_model_space(model, samples: Tensor) -> Tensor:
    return model.model.process_latent_in(samples)


def to_latent(model, z: Tensor) -> dict:
    """A LATENT of the host from latents in the model's scaled space."""
    return {"samples": model.model.process_latent_out(z.float()).to(intermediate_device())}


def fit_mask(mask: Tensor, trajectory: Trajectory, node_id: str | None = None) -> Tensor:
    """A user's MASK at the picture's size, [1 or B, H, W] in 0..1.

    Another size of the same shape is resized with a warning. Raises ValueError for another aspect ratio, batch or range.
    """
    mask = mask.reshape(-1, *mask.shape[-2:]).float().cpu()
    size, given = trajectory.picture_size, tuple(mask.shape[-2:])
    if len(mask) not in (1, trajectory.batch):
        raise ValueError(f"the mask has {len(mask)} pictures, the inversion {trajectory.batch}: give one mask, or one for each picture")
    if not bool(((mask >= 0) & (mask <= 1)).all()):
        raise ValueError(f"the mask runs from {float(mask.min()):g} to {float(mask.max()):g}: its values must lie in 0..1")
    if given == size:
        return mask
    if abs(given[0] * size[1] - given[1] * size[0]) > 0.02 * size[0] * given[1]:
        raise ValueError(f"the mask is {given[1]}x{given[0]} pixels, the picture {size[1]}x{size[0]}: they must have the same shape; crop or pad the mask")
    warn(f"the mask is {given[1]}x{given[0]} pixels and was resized to the picture's {size[1]}x{size[0]}", node_id)
    return resize_mask(mask, size)


def latent_mask(mask: Tensor | None, trajectory: Trajectory, node_id: str | None = None) -> Tensor | None:
    """A user's MASK at the latent's size, [1 or B, 1, H, W]: each value the mean of the pixels it covers."""
    if mask is None:
        return None
    return resize_mask(fit_mask(mask, trajectory, node_id), trajectory.x.shape[-2:])[:, None]


# --- sampling ----------------------------------------------------------------------------------------------------


Result = TypeVar("Result")


class LoopSampler(comfy.samplers.Sampler, Generic[Result]):
    """A SAMPLER that hands `loop(denoise, latent)` the guider's prediction; noise and inpaint blending stay out."""

    def __init__(self, loop: Callable[[Denoise, Tensor], Result], patch: Callable[[dict], dict]):
        self._loop = loop
        self._patch = patch
        self.result: Result | None = None
        self.evaluations = 0

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False):
        options = self._patch(comfy.model_patcher.create_model_options_clone(extra_args["model_options"]))
        add_wrapper(WrappersMP.APPLY_MODEL, self._count, options, is_model_options=True)
        seed = extra_args.get("seed")

        def denoise(x: Tensor, sigma: float) -> Tensor:
            denoised = model_wrap(x, x.new_full((len(x),), sigma), model_options=options, seed=seed)
            if not bool(torch.isfinite(denoised).all()):
                raise ValueError(
                    f"the model predicted NaN or infinite values at sigma {sigma:.4f}: its weights overflow in half precision; start the host "
                    "with --force-fp32 (or --fp32-unet), or check the checkpoint and LoRAs")
            return denoised.float()

        self.result = self._loop(denoise, latent_image.float())
        return latent_image

    def _count(self, apply_model, x, *args, **kwargs):
        self.evaluations += len(x)
        return apply_model(x, *args, **kwargs)


def sample(model, positive: list, negative: list | None, cfg: float, z: Tensor, sigmas: Sequence[float],
           loop: Callable[[Denoise, Tensor], Result], patch: Callable[[dict], dict] = lambda options: options) -> Result:
    """Run `loop` inside the host's sampling of `z` (model's scaled space) and return its result.

    `patch` may add to the model options it is given, a copy that lives as long as this run.
    """
    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"positive": positive} if negative is None else {"positive": positive, "negative": negative})
    guider.set_cfg(cfg)
    latent = model.model.process_latent_out(z)
    sampler = LoopSampler(loop, patch)
    started = time.perf_counter()
    guider.sample(torch.zeros_like(latent), latent, sampler, torch.tensor(sigmas, dtype=torch.float32), disable_pbar=True)
    log.info("Eta Inversion: %d network evaluations in %.2f s", sampler.evaluations, time.perf_counter() - started)
    return sampler.result


def progress(model, total: int) -> Callable[[Tensor, Tensor], None]:
    """A progress bar with previews over `total` network steps: call it with (x, denoised) after each."""
    callback = latent_preview.prepare_callback(model, total)
    done = 0

    def tick(x: Tensor, denoised: Tensor) -> None:
        nonlocal done
        callback(done, denoised, x, total)
        done += 1

    return tick


def ticking(denoise: Denoise, tick: Callable[[Tensor, Tensor], None]) -> Denoise:
    """`denoise` that tells the progress bar of every call."""
    def call(x, sigma):
        denoised = denoise(x, sigma)
        tick(x, denoised)
        return denoised

    return call


def eta_sampler(eta: EtaSchedule, mask: Tensor | None) -> comfy.samplers.KSAMPLER:
    """eta-DDIM as a SAMPLER of the host; its noise comes from the CPU, seeded by the run's seed."""

    def sample_eta_ddim(model, x, sigmas, extra_args=None, callback=None, disable=None):
        extra_args = extra_args or {}
        table = model.inner_model.inner_model.model_sampling.sigmas.tolist()
        region = None if mask is None else resize_mask(mask.reshape(-1, *mask.shape[-2:]), x.shape[-2:])[:, None].to(x)
        draws = NoiseCandidates(extra_args.get("seed") or 0, 1, tuple(x.shape[1:]))
        for i, (sigma, sigma_next) in enumerate(zip(sigmas[:-1].tolist(), sigmas[1:].tolist())):
            denoised = model(x, x.new_full((len(x),), sigma), **extra_args)
            if callback is not None:
                callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
            down, up = split_noise(eta(time_of(sigma, table)), sigma, sigma_next, region)
            x = eta_step(x, denoised, sigma, down, up, draws.draw()[0].to(x))
        return x

    return comfy.samplers.KSAMPLER(sample_eta_ddim)


# --- attention ---------------------------------------------------------------------------------------------------


class CrossAttention(NamedTuple):
    """Where a cross-attention layer sits, by the host's patch key, and how much smaller than the latent its grid is."""

    key: tuple[str, int, int]
    scale: int


def cross_attention_layers(model) -> list[CrossAttention]:
    """The cross-attention layers of a UNet's down and up blocks; empty for any other network."""
    unet, layers, scale = model.get_model_object("diffusion_model"), [], 1
    for name in ("input", "output"):
        for number, block in enumerate(getattr(unet, f"{name}_blocks", ())):
            for module in block:
                if isinstance(module, SpatialTransformer):
                    layers += [CrossAttention((name, number, i), scale) for i in range(len(module.transformer_blocks))]
                scale = scale * 2 if isinstance(module, Downsample) else scale // 2 if isinstance(module, Upsample) else scale
    return layers


def map_layers(layers: Sequence[CrossAttention], size: tuple[int, int]) -> list[CrossAttention]:
    """The layers the maps are read from: a quarter of the latent, 16x16 at 512 px (paper), finer where that is coarser
    than 16 tokens."""
    wanted = min(4, max(1, min(size) // 16))
    scales = {layer.scale for layer in layers}
    scale = max((s for s in scales if s <= wanted), default=min(scales, default=0))
    return [layer for layer in layers if layer.scale == scale]


class MapRecorder:
    """Reads the conditional rows' cross-attention into per-token maps without changing any result."""

    def __init__(self, model, positive: list, size: tuple[int, int]):
        self._average = MapAverage()
        self._size = size
        self._tokens = positive[0][0].shape[1]
        self._layers = map_layers(cross_attention_layers(model), size) if len(positive) == 1 else []
        self.problem = ""
        if len(positive) != 1:
            self.problem = f"the source conditioning has {len(positive)} entries (Conditioning Combine or areas) where maps need one prompt"
        elif not self._layers:
            self.problem = f"{type(model.model).__name__} has no UNet cross-attention to read"

    def close_step(self) -> None:
        self._average.close_step()

    def maps(self) -> Tensor | None:
        """[B, tokens, h, w] on the CPU; None where `problem` says why."""
        return None if self.problem else self._average.result()

    def install(self, model_options: dict) -> dict:
        """Wrap the layers' replacements in `model_options`, so that other packs' stay in force."""
        replaced = model_options.setdefault("transformer_options", {}).setdefault("patches_replace", {}).setdefault("attn2", {})
        for layer in self._layers:
            replaced[layer.key] = self._wrap(replaced.get(layer.key, replaced.get(layer.key[:2])))
        return model_options

    def _wrap(self, previous):
        def attention(q, k, v, extra_options):
            self._read(q, k, extra_options)
            if previous is not None:
                return previous(q, k, v, extra_options)
            return optimized_attention(q, k, v, extra_options["n_heads"], attn_precision=extra_options["attn_precision"], transformer_options=extra_options)

        return attention

    def _read(self, q: Tensor, k: Tensor, extra_options: dict) -> None:
        height, width = extra_options["activations_shape"][-2:]
        chunks = extra_options["cond_or_uncond"]
        if tuple(extra_options["original_shape"][-2:]) != self._size or q.shape[1] != height * width or len(q) % len(chunks) or k.shape[1] % self._tokens:
            self.problem = "another pack or an area changes the attention's shape (areas, ToMe, HyperTile, added tokens)"
            return
        conditional = [i for i, kind in enumerate(chunks) if kind == 0]
        if conditional:
            rows = torch.cat([torch.arange(i * (len(q) // len(chunks)), (i + 1) * (len(q) // len(chunks))) for i in conditional]).to(q.device)
            self._average.add(self._probabilities(q[rows], k[rows], extra_options["n_heads"]).unflatten(1, (height, width)))

    def _probabilities(self, q: Tensor, k: Tensor, heads: int) -> Tensor:
        """[rows, queries, tokens], the mean over heads; a prompt repeated to a longer partner's length is folded back."""
        q, k = (t.unflatten(-1, (heads, -1)).transpose(1, 2).float() for t in (q, k))
        p = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1).mean(1)
        return p.unflatten(-1, (-1, self._tokens)).sum(-2)


# --- prompts -----------------------------------------------------------------------------------------------------


def upstream_texts(dynprompt, node_id: str | None, name: str) -> tuple[str, ...]:
    """Every text widget above input `name` of a node, nearest first: what may have been encoded into it."""
    if dynprompt is None or node_id is None:
        return ()
    texts, queue, seen = [], [dynprompt.get_node(node_id)["inputs"].get(name)], set()
    while queue:
        link = queue.pop(0)
        if not isinstance(link, (list, tuple)) or link[0] in seen:
            continue
        seen.add(link[0])
        values = list(dynprompt.get_node(link[0])["inputs"].values())
        texts += [v for v in values if isinstance(v, str)]
        queue += values
    return tuple(dict.fromkeys(texts))


def encode(clip, text: str) -> Tensor:
    """The text's conditioning [1, tokens, dim], as CLIPTextEncode makes it."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))[0][0]


def encodes_to(clip, text: str, encoded: Tensor) -> bool:
    """Whether this CLIP makes the tensor `encoded` of the text, up to rounding."""
    own = encode(clip, text)
    return own.shape == encoded.shape and bool((own.cpu() - encoded.cpu()).norm() <= 0.01 * encoded.norm().cpu())


def tokens_of(clip, text: str) -> tuple[Token, ...]:
    """The text's own tokens, without start, end and padding; positions are rows of its conditioning."""
    chunks = _rows(clip, text)
    special = {pair[0] for pair in _rows(clip, "")[0] if isinstance(pair[0], int)}
    placed = [(len(chunk) * number + i, pair) for number, chunk in enumerate(chunks) for i, pair in enumerate(chunk)]
    kept = [(position, pair) for position, pair in placed if isinstance(pair[0], int) and pair[0] not in special]
    pieces = clip.tokenizer.untokenize([pair for _, pair in kept])
    return tuple(Token(position, pair[0], piece) for (position, pair), (_, piece) in zip(kept, pieces))


def _rows(clip, text: str) -> list:
    encoders = clip.tokenize(text)
    return encoders.get("l") or next(iter(encoders.values()))


# --- folders -----------------------------------------------------------------------------------------------------

SUFFIX = ".eta.safetensors"


def saved_files() -> list[str]:
    """Saved inversions by the host's annotated names, newest first."""
    roots = {"output": folder_paths.get_output_directory(), "input": folder_paths.get_input_directory()}
    files = [(p, f"{p.relative_to(root).as_posix()} [{kind}]") for kind, root in roots.items() for p in Path(root).rglob(f"*{SUFFIX}")]
    return [name for _, name in sorted(files, key=lambda item: -item[0].stat().st_mtime)]


def saved_path(name: str) -> Path:
    """The file behind an annotated name. Raises ValueError outside the host's folders or where there is none."""
    relative, root = folder_paths.annotated_filepath(name)
    root = Path(root or folder_paths.get_output_directory()).resolve()
    path = (root / relative.strip()).resolve()
    if not path.is_relative_to(root):
        raise ValueError(f"'{name}' lies outside the host's {root.name} folder: give a path inside it, such as 'eta/inversion_00001_{SUFFIX} [output]'")
    if not path.is_file():
        raise ValueError(f"'{name}' does not exist in {root}; save an inversion with Save Eta Inversion first, or refresh the list")
    return path


def new_path(prefix: str) -> tuple[Path, str]:
    """A fresh file in the output folder for a filename prefix, and its annotated name."""
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
    taken = {p.name for p in Path(folder).glob(f"*{SUFFIX}")}
    while (file := f"{name}_{counter:05}_{SUFFIX}") in taken:
        counter += 1
    return Path(folder) / file, f"{(Path(subfolder) / file).as_posix()} [output]"
