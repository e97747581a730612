"""The file of an inversion: what is written, and the one schema by which it is read.

Anybody may have made the file. Everything in it is checked before anything is used, so that what is read
without an error can be sampled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...eta_core.frame import frame_named
from ...eta_core.plain_json import read_json
from ...eta_core.schedule import Grid
from ...eta_core.trajectory import Trajectory
from .folders import DEPTH, SUFFIX, check_prefix, save_new
from .models import FLOWS, STRUCTURE

FORMAT = "eta-inversion-1"
# What the entries of a conditioning must be, as the host takes them for granted.
TENSORS = ("pooled_output", "mask", "concat_latent_image", "concat_mask", "attention_mask")
NUMBERS = (
    *("strength", "start_percent", "end_percent", "clip_start_percent", "clip_end_percent", "mask_strength"),
    *("guidance", "aesthetic_score", "width", "height", "crop_w", "crop_h", "target_width", "target_height"),
)
OBJECTS = ("control", "hooks", "gligen", "unclip_conditioning", "model_conds", "reference_latents")
LARGEST_LATENT = 1e4  # a photograph's latents are some tens at most
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

Finite = Annotated[float, Field(allow_inf_nan=False)]
Plain = str | int | Finite | bool | None


class _Schema(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Grid(_Schema):
    sigmas: list[Finite]
    times: list[Finite]
    frame: Literal["diffusion", "flow"] = "diffusion"
    noise_scale: Annotated[float, Field(gt=0, le=100)] = 1.0


class _TensorOf(_Schema):
    tensor: str


class _Notes(_Schema):
    conditioning: Annotated[list[dict[str, Plain | list[Plain] | _TensorOf]], Field(min_length=1)]


class _About(_Schema):
    grid: _Grid
    signature: dict[str, str]
    fingerprint: str
    scale: Annotated[int, Field(ge=1, le=128)]
    no_maps: str
    prompts: list[str]
    inverter: str = "ddim"
    cfg: Annotated[float, Field(ge=0, le=100)] = 1.0
    notes: _Notes


class InversionFileError(ValueError):
    """A file that is no inversion of this format, or is damaged."""


# --- out ------------------------------------------------------------------------------------------


def save(prefix: str, trajectory: Trajectory, positive: list) -> str:
    """Write an inversion and its source prompt to a fresh file of the output folder, all or nothing.

    Returns the file's annotated name. Raises ValueError for what no file can hold and where none can be
    written.
    """
    extra, notes = _plain(positive)
    tensors = {"x": trajectory.x, **{f"extra.{key}": value for key, value in extra.items()}}
    if trajectory.maps is not None:
        tensors["maps"] = trajectory.maps
    about = {
        "grid": _plain_grid(trajectory.grid),
        "signature": dict(trajectory.signature),
        "fingerprint": trajectory.fingerprint,
        "scale": trajectory.scale,
        "no_maps": trajectory.no_maps,
        "prompts": trajectory.prompts,
        "inverter": trajectory.inverter,
        "cfg": trajectory.cfg,
        "notes": notes,
    }
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    text = json.dumps(about)
    metadata = {"format": FORMAT, "about": text, "digest": _digest(text, tensors)}
    megabytes = sum(tensor.nbytes for tensor in tensors.values()) / 1e6
    check_prefix(prefix, DEPTH)
    subfolder, name = save_new(prefix, SUFFIX, lambda path: save_file(tensors, path, metadata), megabytes)
    return f"{(Path(subfolder) / name).as_posix()} [output]"


def _plain(conditioning: list) -> tuple[dict[str, Tensor], dict]:
    """A CONDITIONING as tensors and JSON values. ValueError for what no file can hold (ControlNet, hooks)."""
    tensors, entries = {}, []
    for i, (cond, extras) in enumerate(conditioning):
        tensors[f"{i}.cond"] = cond
        entry = {}
        for key, value in extras.items():
            if torch.is_tensor(value):
                tensors[f"{i}.{key}"] = value
                value = {"tensor": f"{i}.{key}"}
            elif not isinstance(value, (str, int, float, bool, type(None))) and not _is_numbers(value):
                raise ValueError(
                    f"the source conditioning carries '{key}' ({type(value).__name__}), which a file cannot "
                    "hold: save an inversion made without it, "
                    "or keep this one in the graph"
                )
            entry[key] = value
        entries.append(entry)
    return tensors, {"conditioning": entries}


def _is_numbers(value) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(v, (int, float, str)) for v in value)


def _plain_grid(grid: Grid) -> dict[str, object]:
    frame = {"frame": grid.frame.name, "noise_scale": grid.frame.noise_scale}
    return {"sigmas": grid.sigmas, "times": grid.times, **frame}


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for key, tensor in sorted(tensors.items()):
        digest.update(key.encode() + tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


# --- in -------------------------------------------------------------------------------------------


def load(path: Path) -> tuple[Trajectory, list]:
    """What `save` wrote: the trajectory and the source prompt. InversionFileError for any other file."""
    tensors, text = _opened(path)
    try:
        about = _About.model_validate(read_json(text, "its header"))
        trajectory = _trajectory(about, tensors)
        return trajectory, _conditioning(about.notes, tensors, trajectory)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))[:80]
        problem = f"{where} is {str(first['input'])[:80]!r}: {first['msg']}"
    except ValueError as error:
        problem = str(error)[:300]
    raise InversionFileError(f"'{path.name}' is a damaged inversion: {problem}; save it again")


def _opened(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors and the header of a file that is as it was written."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise InversionFileError(
                    f"'{path.name}' is a safetensors file but not a saved inversion (format "
                    f"{str(metadata.get('format'))[:80]!r}, expected {FORMAT!r})"
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        whole = metadata.get("digest") == _digest(metadata.get("about", ""), tensors)
    except InversionFileError:
        raise
    except (SafetensorError, OSError, RuntimeError, TypeError, UnicodeError) as error:
        raise InversionFileError(
            f"'{path.name}' is damaged or not a safetensors file ({error}); save the inversion again"
        ) from error
    if not whole:
        raise InversionFileError(
            f"'{path.name}' is damaged: its contents are not what was saved; save it again"
        )
    return tensors, metadata.get("about", "")


def _trajectory(about: _About, tensors: dict[str, Tensor]) -> Trajectory:
    given, signature = about.grid, about.signature
    grid = Grid(tuple(given.sigmas), tuple(given.times), frame_named(given.frame, given.noise_scale))
    x, maps = _numbers("x", tensors.get("x"), 5), tensors.get("maps")
    trajectory = Trajectory(
        x=x.float(),
        grid=grid,
        signature=signature,
        fingerprint=about.fingerprint,
        scale=about.scale,
        maps=None if maps is None else _numbers("maps", maps, 4).float(),
        no_maps=about.no_maps,
        prompts=tuple(about.prompts),
        inverter=about.inverter,
        cfg=about.cfg,
    )
    missing = [name for name in STRUCTURE if name not in signature]
    if missing:
        raise ValueError(f"its signature lacks {', '.join(missing)}")
    if signature["latent channels"] != str(x.shape[2]):
        raise ValueError(f"x has {x.shape[2]} channels, its model {signature['latent channels'][:20]}")
    if (signature["prediction"] in FLOWS) != (given.frame == "flow"):
        raise ValueError(f"its frame is {given.frame}, its model predicts {signature['prediction'][:40]}")
    if float(trajectory.latents.abs().max()) > LARGEST_LATENT:
        raise ValueError(f"its latents exceed {LARGEST_LATENT:g}")
    if maps is not None and not (float(maps.min()) >= 0 and float(maps.max()) <= 1 + 1e-4):
        raise ValueError("its attention maps leave 0..1")
    return trajectory


def _conditioning(notes: _Notes, tensors: dict[str, Tensor], trajectory: Trajectory) -> list:
    found = []
    for i, entry in enumerate(notes.conditioning):
        cond = _numbers(f"{i}.cond", tensors.get(f"extra.{i}.cond"), 3)
        if len(cond) not in (1, trajectory.batch):
            raise ValueError(f"the source prompt has {len(cond)} rows for {trajectory.batch} pictures")
        extras = {
            key: _numbers(value.tensor, tensors.get(f"extra.{value.tensor}"))
            if isinstance(value, _TensorOf)
            else value
            for key, value in entry.items()
        }
        for key, value in extras.items():
            _check_entry(key, value)
        found.append([cond, extras])
    maps = trajectory.maps
    if maps is not None and len(found) == 1 and maps.shape[1] != found[0][0].shape[1]:
        raise ValueError(f"it has maps of {maps.shape[1]} tokens for a prompt of {found[0][0].shape[1]}")
    return found


def _check_entry(key: str, value: object) -> None:
    """ValueError for an entry of a conditioning that the host could not use."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    corners = (
        isinstance(value, list) and len(value) == 4 and all(isinstance(v, int) and v >= 0 for v in value)
    )
    if (
        key in OBJECTS
        or (key in NUMBERS and not number)
        or (key in TENSORS and not torch.is_tensor(value))
        or (key == "area" and not corners)
    ):
        raise ValueError(f"the source prompt's {key} is {str(value)[:80]!r}")


def _numbers(name: str, tensor: Tensor | None, axes: int | None = None) -> Tensor:
    """A tensor that is there, of finite decimal numbers, with `axes` axes."""
    if tensor is None:
        raise ValueError(f"the tensor {name[:80]} is missing")
    if tensor.dtype not in FLOATS or not tensor.numel() or (axes is not None and tensor.ndim != axes):
        wanted = "" if axes is None else f" of {axes} axes"
        raise ValueError(
            f"{name[:80]} is {list(tensor.shape)} of {tensor.dtype}: it must be decimal numbers{wanted}"
        )
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{name[:80]} holds NaN or infinite values")
    return tensor
