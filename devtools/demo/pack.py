"""Trained narrow networks <-> one small file: matrices as int8 with a scale for every output row, the rest as
fp16.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from .flow_network import CHANNELS, FlowTransformer
from .network import Decoder, Encoder, TextEncoder, UNet
from .words import ROWS

HERE = Path(__file__).parent
WEIGHTS, CONTROL, LORA, FLOW = (
    HERE / f"{name}.safetensors" for name in ("weights", "control", "lora", "flow")
)
LARGE = 4096  # values from which a matrix is worth quantising; embeddings stay fp16


def write(work: Path) -> None:
    """weights.safetensors in `work`, from the stages' checkpoints there."""
    _write(work / WEIGHTS.name, work, "unet", "autoencoder", "latents")


def write_flow(work: Path) -> None:
    """flow.safetensors in `work`, likewise."""
    _write(work / FLOW.name, work, "flow", "flow_autoencoder", "flow_latents")


def _write(out: Path, work: Path, network: str, autoencoder: str, latents: str) -> None:
    state = torch.load(work / f"{network}.pt", map_location="cpu")["kept"]
    halves = torch.load(work / f"{autoencoder}.pt", map_location="cpu")["modules"]
    known = torch.load(work / f"{latents}.pt")
    about = {"latent_mean": repr(known["mean"]), "latent_std": repr(known["std"])}
    save_file(_small(state | halves), out, about)


def write_half(work: Path, name: str) -> None:
    """The averaged network of the stage `name` as fp16."""
    state = torch.load(work / f"{name}.pt", map_location="cpu")["kept"]
    small = {k.removeprefix(f"{name}."): v.half().contiguous() for k, v in state.items()}
    save_file(small, work / f"{name}.safetensors")


def read_half(path: Path, network: torch.nn.Module) -> torch.nn.Module:
    """Fill the network from a file of `write_half`."""
    network.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    return network.eval().requires_grad_(False)


def read(path: Path = WEIGHTS) -> tuple[dict[str, torch.nn.Module], float, float]:
    """({"unet", "text", "encoder", "decoder"}, mean and deviation of the encoder's latents)."""
    return _read(
        path,
        {"unet": UNet(), "text": TextEncoder(len(ROWS)), "encoder": Encoder(), "decoder": Decoder()},
    )


def read_flow(path: Path = FLOW) -> tuple[dict[str, torch.nn.Module], float, float]:
    """({"flow", "encoder", "decoder"}, mean and deviation); its words are those of `read`."""
    return _read(
        path, {"flow": FlowTransformer(), "encoder": Encoder(CHANNELS), "decoder": Decoder(CHANNELS)}
    )


def _read(
    path: Path, networks: dict[str, torch.nn.Module]
) -> tuple[dict[str, torch.nn.Module], float, float]:
    with safe_open(path, "pt") as file:
        about = file.metadata()
        state = _full({key: file.get_tensor(key) for key in file.keys()})
    for name, network in networks.items():
        network.load_state_dict(
            {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
        )
        network.eval().requires_grad_(False)
    return networks, float(about["latent_mean"]), float(about["latent_std"])


def _small(state: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {}
    for key, value in state.items():
        if value.ndim > 1 and value.numel() > LARGE and not key.startswith("text."):
            rows = value.float().flatten(1)
            scale = rows.abs().amax(1).clamp(min=1e-12) / 127
            out[f"{key}:int8"] = (rows / scale[:, None]).round().to(torch.int8).view(value.shape)
            out[f"{key}:scale"] = scale.half()
        else:
            out[key] = value.half().contiguous()
    return out


def _full(packed: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {key: value.float() for key, value in packed.items() if ":" not in key}
    for key, value in packed.items():
        if key.endswith(":int8"):
            name = key.removesuffix(":int8")
            out[name] = value.float() * packed[f"{name}:scale"].float().view(-1, *([1] * (value.ndim - 1)))
    return out
