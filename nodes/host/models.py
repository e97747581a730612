"""MODELs and CONDITIONINGs: noise levels, grids, and what tells one from another."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from itertools import pairwise

import comfy.model_sampling
import comfy.samplers
import torch
from torch import Tensor

from ...eta_core.frame import DIFFUSION, Flow, Frame
from ...eta_core.schedule import Grid, ddim_grid, grid_from_levels
from .families.distilled import jumps_over_steps
from .messages import warn

REFERENCE_SCHEDULER = "ddim_uniform"
SCHEDULERS = [
    REFERENCE_SCHEDULER,
    *(name for name in comfy.samplers.SCHEDULER_NAMES if name != REFERENCE_SCHEDULER),
]


Size = tuple[int, int]  # height and width of a latent
DIFFUSIONS, FLOWS = ("EPS", "V_PREDICTION", "X0", "LCM"), ("CONST",)  # what `prediction` calls them


def noise_levels(sampling) -> list[float]:
    """A model_sampling's training noise levels, ascending, as the model counts them.

    Raises ValueError for a model that has none.
    """
    table = getattr(sampling, "sigmas", None)
    if table is None or prediction(sampling) not in (*DIFFUSIONS, *FLOWS):
        raise ValueError(
            f"this model predicts by {prediction(sampling)}: Eta Inversion needs a diffusion model with "
            "eps-, v- or x0-prediction (SD1, SD2, "
            "SDXL families) or a flow model (SD3, Flux, Qwen-Image, Z-Image); load such a checkpoint"
        )
    return table.double().cpu().tolist()


def frame_of(sampling, size: Size) -> Frame:
    """How the model mixes picture and noise in latents of `size`.

    A flow model may be trained with noise of another deviation, which may depend on the size (SenseNova).
    """
    if prediction(sampling) not in FLOWS:
        return DIFFUSION
    noise = torch.ones(1, 1, *size)
    return Flow(float(sampling.noise_scaling(torch.ones(1), noise, torch.zeros_like(noise)).mean()))


def prediction(sampling) -> str:
    """The host's class that says what a network is given and what its output stands for, for example EPS."""
    formulas = {"calculate_denoised", "calculate_input"}
    return next(kind.__name__ for kind in type(sampling).__mro__ if formulas & set(vars(kind)))


def make_grid(model, scheduler: str, steps: int, size: Size) -> Grid:
    """The reference's grid for `ddim_uniform` on diffusion models, else the host's schedule of that name; for
    latents of `size`.

    Raises ValueError for a number of steps that it cannot have.
    """
    if steps < 1:
        raise ValueError(f"steps = {steps}: an inversion has at least 1 step, 20 to 100 are sensible")
    sampling = model.get_model_object("model_sampling")
    table, frame = noise_levels(sampling), frame_of(sampling, size)
    if scheduler == REFERENCE_SCHEDULER and frame is DIFFUSION:
        return ddim_grid(steps, table)
    levels = comfy.samplers.calculate_sigmas(sampling, scheduler, steps).tolist()
    if not all(map(math.isfinite, levels)):
        raise ValueError(
            f"the scheduler {scheduler} has no noise levels for {steps} steps: use more steps, or another "
            "scheduler"
        )
    return grid_from_levels(levels, frame, table)


SHOWN = ("concat_latent_image", "concat_mask", "reference_latents")
STRUCTURE = ("network", "prediction", "latent channels", "noise levels")


def signature(model) -> dict[str, str]:
    """A model's identity: STRUCTURE must agree between inversion and edit, weights and LoRA should."""
    sampling = model.get_model_object("model_sampling")
    table = noise_levels(sampling)
    return {
        "network": type(model.model).__name__,
        "prediction": prediction(sampling),
        "latent channels": str(latent_channels(model)),
        "noise levels": f"{len(table)} from {table[0]:.5f} to {table[-1]:.4f}",
        "weights": _digest_weights(dict(_weights(model))),
        "LoRA patches": _digest_patches(model.patches) if model.patches else "none",
    }


def _weights(model) -> Iterator[tuple[str, Tensor]]:
    """The network's weights by name, as they were before any patch.

    Parameters are looked at, never loaded or converted: they may be quantized, offloaded or lazy.
    """
    with model.use_ejected():
        for name, weight in model.model.diffusion_model.named_parameters(remove_duplicate=False):
            key = f"diffusion_model.{name}"
            kept = (model.hook_backup.get(key), model.backup.get(key))
            if name.endswith("weight"):
                yield key, next((_backed_up(each) for each in kept if each is not None), weight)


def _backed_up(kept) -> Tensor:
    """The weight in an entry of the host's backups: of the weights themselves, or of the hooks'."""
    return kept.weight if hasattr(kept, "weight") else kept[0]


def _digest_weights(weights: Mapping[str, Tensor]) -> str:
    """The first values of plain weights; of others (quantized, lazy) their names, shapes and types.

    A GGUF tensor counts as both: it is an ordinary tensor of packed bytes.
    """
    names = sorted(weights)
    chosen = [_unpacked(weights[name]) for name in names[:: max(1, len(names) // 24)]]
    values = _digest(weight.flatten()[:64] for weight in chosen if _is_plain(weight))
    others = [f"{key} {tuple(w.shape)} {w.dtype};" for key, w in weights.items() if not _is_plain(w)]
    return f"{values}{hashlib.sha256(''.join(others).encode()).hexdigest()[:8]}" if others else values


def _unpacked(weight: Tensor) -> Tensor:
    """A GGUF tensor's bytes; any other weight as it is."""
    return weight.as_subclass(Tensor) if hasattr(weight, "tensor_type") else weight


def _is_plain(weight: Tensor) -> bool:
    return type(weight) in (Tensor, torch.nn.Parameter) and not weight.is_meta


def check_same_model(model, expected: Mapping[str, str], node_id: str | None = None) -> None:
    """ValueError where an inversion's model differs from `model` in structure, a warning where in weights."""
    actual = signature(model)
    differences = {
        name: f"{name} {expected.get(name)} against {value}"
        for name, value in actual.items()
        if expected.get(name) != value
    }
    broken = [differences[name] for name in STRUCTURE if name in differences]
    if broken:
        raise ValueError(
            f"the inversion was made with another kind of model ({'; '.join(broken)}): connect the model of "
            "EtaInversion, or invert again with this one"
        )
    if differences:
        warn(
            f"the inversion was made with another model ({'; '.join(differences.values())}): the edit may "
            "drift from the picture; invert again with this one",
            node_id,
        )


def needs_negative(model) -> bool:
    """Whether a patch has the host evaluate the negative prompt at cfg 1 too."""
    return bool(model.model_options.get("disable_cfg1_optimization"))


def check_can_invert(model) -> None:
    """ValueError for a model whose calls an inversion cannot make."""
    if model.get_additional_models_with_key("multigpu"):
        raise ValueError(
            "this model runs on several GPUs at once (MultiGPU CFG Split), whose calls would mix what Eta "
            "Inversion keeps between them: connect the model from before it"
        )
    if jumps_over_steps(model):
        raise ValueError(
            f"{type(model.model).__name__} is distilled to jump from a step's start to its end (mean flow, "
            "flow map): an inversion asks at one point and cannot say where the step ends. Load the model "
            "that is not distilled"
        )


def latent_channels(model) -> int:
    return model.get_model_object("latent_format").latent_channels


PIXELS = {"Flux2": 16, "ChromaRadiance": 1}  # where the host's latent format does not say it


def has_frames(latent_format) -> bool:
    """Whether latents in this format have a dimension of frames: [B, C, frames, H, W]."""
    return latent_format.latent_dimensions == 3


def downscale(model) -> int:
    """Pixels of the picture per latent pixel."""
    return pixels_of(model.get_model_object("latent_format"))


def pixels_of(latent_format) -> int:
    """Pixels of the picture per pixel of latents in this format of the host's."""
    return getattr(latent_format, "spacial_downscale_ratio", PIXELS.get(type(latent_format).__name__, 8))


def _digest_patches(patches: dict) -> str:
    """Of every patched layer: its name, the strengths, and the first values of the patch's tensors."""
    entries = [(str(key), patch) for key, stack in patches.items() for patch in stack]
    entries.sort(key=lambda entry: entry[0])
    names = "".join(f"{key} {patch[0]:g} {patch[2]:g};" for key, patch in entries)
    values = (tensor.flatten()[:64] for _, patch in entries for tensor in _tensors_in(patch[1]))
    return f"{hashlib.sha256(names.encode()).hexdigest()[:8]}{_digest(values)}"


def _tensors_in(patch) -> list:
    if torch.is_tensor(patch):
        return [patch]
    parts = patch if isinstance(patch, (tuple, list)) else getattr(patch, "weights", ())
    return [tensor for part in parts for tensor in _tensors_in(part)]


def _digest(tensors) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def fingerprint(conditioning: list) -> str:
    """Digest of a CONDITIONING's tensors, plain values and keys."""
    extras = [dict(sorted(extra.items())) for _, extra in conditioning]
    tensors = [cond for cond, _ in conditioning] + [
        v for extra in extras for v in extra.values() if torch.is_tensor(v)
    ]
    plain = [
        {k: v if isinstance(v, (str, int, float, bool)) else "" for k, v in extra.items()} for extra in extras
    ]
    return f"{_digest(tensors)}{hashlib.sha256(repr(plain).encode()).hexdigest()[:8]}"


def check_same_picture(source: list, target: list, node_id: str | None = None) -> None:
    """A warning where source and target show an inpainting or editing model different pictures or masks."""
    shown = [
        _digest(tensor for _, extra in each for key in SHOWN for tensor in _tensors_in(extra.get(key)))
        for each in (source, target)
    ]
    if shown[0] != shown[1]:
        warn(
            "the source and the target prompt show the model different pictures or masks "
            "(InpaintModelConditioning, ReferenceLatent): pass both "
            "through it alike, or neither",
            node_id,
        )


def check_same_encoder(source: list, target: list) -> None:
    """ValueError where two prompts come from text encoders of different sizes."""
    sizes = [
        {(cond.shape[-1], *_sizes(extra.get("pooled_output"))) for cond, extra in prompt}
        for prompt in (source, target)
    ]
    if sizes[0] != sizes[1]:
        said = [" and ".join("/".join(map(str, size)) for size in sorted(each)) for each in sizes]
        raise ValueError(
            f"the source prompt's vectors have {said[0]} numbers, the target prompt's {said[1]}: encode both "
            "with "
            "the CLIP of this model"
        )


def _sizes(pooled) -> tuple[int, ...]:
    return (pooled.shape[-1],) if torch.is_tensor(pooled) else ()


def check_covered(conditioning: list, name: str, node_id: str | None = None) -> None:
    """A warning where a prompt covers only some steps or a part of the picture: elsewhere nothing is
    predicted.
    """
    ranges = [(extra.get("start_percent", 0.0), extra.get("end_percent", 1.0)) for _, extra in conditioning]
    partial = ["area" in extra or "mask" in extra for _, extra in conditioning]
    ends = sorted({0.0, 1.0, *(end for each in ranges for end in each if 0 < end < 1)})
    for start, end in pairwise(ends):
        active = [part for (first, last), part in zip(ranges, partial) if first <= start and end <= last]
        if active not in ([], [True]):
            continue
        what = "of the picture (an area or a mask)" if active else "of the steps (a timestep range)"
        warn(
            f"{name} covers only a part {what}: where it does not the model predicts nothing, and the "
            "picture turns grey or black. Combine it with "
            "a prompt that covers the rest",
            node_id,
        )
        return


def check_no_keyframes(conditioning: list) -> None:
    """ValueError where a source prompt's hooks, or another pack's ControlNets, change over the steps."""
    for _, extra in conditioning:
        for hook in getattr(extra.get("hooks"), "hooks", ()):
            if len(hook.hook_keyframe.keyframes) > 1:
                raise ValueError(
                    "the source prompt has a LoRA schedule (Set Hook Keyframes): an inversion takes the "
                    "steps from the image end, and the host's "
                    "keyframes only go from the noise end on. Take the keyframes off the source prompt; the "
                    "target prompt may have them"
                )
        control = extra.get("control")
        while control is not None:
            keyframes = getattr(getattr(control, "timestep_keyframes", None), "keyframes", ())
            if len(keyframes) > 1:
                raise ValueError(
                    f"the source prompt's ControlNet has {len(keyframes)} timestep keyframes, which only go "
                    "from "
                    "the noise end on, while an inversion takes the steps from the image end. Take them off "
                    "the "
                    "source prompt; the target prompt may have them"
                )
            control = getattr(control, "previous_controlnet", None)


def text_fingerprint(conditioning: list) -> str:
    """Digest of a CONDITIONING's text alone: the same with and without a ControlNet on it."""
    return _digest(cond for cond, _ in conditioning)
