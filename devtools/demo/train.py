"""Train the embedded model from nothing: python -m devtools.demo.train --work DIR

Stages, each resumed from DIR where it was interrupted: autoencoder, UNet with its words (on latents encoded
once), judge. Seeds are fixed and lengths are counted in steps. On a GPU the same command is merely faster.
The defaults are what made the weights beside this file; README.md gives the cost. --quick runs every stage
for a few steps, to test the path.
"""

from __future__ import annotations

import argparse
import copy
import math
import multiprocessing
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import pack, scenes
from .judge import Judge, labels_of
from .network import Decoder, Encoder, TextEncoder, UNet, alphas_cumprod
from .words import ROWS, encode_caption


class Plan(NamedTuple):
    steps: int
    batch: int
    rate: float
    seed: int


PLANS = {
    "autoencoder": Plan(5000, 8, 2e-3, 1),
    "unet": Plan(10000, 16, 1e-3, 2),
    "judge": Plan(1000, 32, 2e-3, 3),
}
SCENES = 20000
QUICK_STEPS, QUICK_SCENES = 3, 200
DROPPED_CAPTIONS = 0.1
UNKNOWN_WORDS = (
    0.1  # captions with one word the model does not know, so that punctuation and strange words do no harm
)
INITIAL_SEED = 67280421310721  # torch's own default: a stage starts the same alone and after another
MIN_SNR = 5.0  # Hang et al. 2023, the loss weight min(SNR, 5) / SNR


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work",
        type=Path,
        required=True,
        help="folder for checkpoints and the result, weights.safetensors and judge.safetensors",
    )
    parser.add_argument("--stages", nargs="*", default=list(PLANS), choices=list(PLANS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    data = Data(QUICK_SCENES if options.quick else SCENES)
    for stage in options.stages:
        plan = PLANS[stage]._replace(steps=QUICK_STEPS) if options.quick else PLANS[stage]
        STAGES[stage](Run(stage, plan, options.work, options.device), data)


class Data:
    """Training scenes, rendered when they are asked for; `latents` once the encoder is trained."""

    def __init__(self, count: int):
        self.count = count

    def pictures(self, indices) -> tuple[Tensor, list[scenes.Scene]]:
        """[B, 3, H, W] in 0..1 and the scenes."""
        batch = [training_scene(i) for i in indices]
        return to_tensor(batch), batch


def training_scene(index: int) -> scenes.Scene:
    return scenes.render(scenes.TRAIN + int(index))


def to_tensor(batch: list[scenes.Scene]) -> Tensor:
    return torch.from_numpy(np.stack([s.image for s in batch])).permute(0, 3, 1, 2).float() / 255


def validation(count: int = 48) -> Tensor:
    return to_tensor([scenes.render(scenes.VALIDATION + i) for i in range(count)])


class Run:
    """One stage: its random numbers, rate, log and checkpoint."""

    saved_every = 500  # steps

    def __init__(self, stage: str, plan: Plan, work: Path, device: str):
        self.stage, self.plan, self.work, self.device = stage, plan, work, torch.device(device)
        torch.manual_seed(INITIAL_SEED)
        self.path = work / f"{stage}.pt"
        self.started, self.last = time.time(), None

    def train(
        self, modules: dict[str, nn.Module], data: Data, loss_of, average: bool = False
    ) -> dict[str, nn.Module]:
        """Minimise loss_of(indices, generator) over the modules; the (averaged) modules of the last step."""
        torch.manual_seed(0)
        together = nn.ModuleDict(modules).to(self.device)
        kept = copy.deepcopy(together) if average else together
        optimizers = self.optimizers(together)
        first = self._resume(together, kept, optimizers)
        for step in range(first, self.plan.steps):
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = self.rate(step)
            generator = np.random.default_rng([self.plan.seed, step])
            torch.manual_seed(step)
            loss = loss_of(generator.integers(0, data.count, self.plan.batch), generator)
            together.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(together.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
            if average:
                rate = 1 - min(0.999, (1 + step) / (10 + step))
                with torch.no_grad():
                    torch._foreach_lerp_(list(kept.parameters()), list(together.parameters()), rate)
            self.last = loss.item() if self.last is None else 0.98 * self.last + 0.02 * loss.item()
            if (step + 1) % 100 == 0:
                print(
                    f"{self.stage} {step + 1}/{self.plan.steps} loss {self.last:.5f} "
                    f"{time.time() - self.started:.0f} s",
                    flush=True,
                )
            if (step + 1) % self.saved_every == 0 or step + 1 == self.plan.steps:
                state = {
                    "step": step + 1,
                    "modules": together.state_dict(),
                    "kept": kept.state_dict(),
                    "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                }
                torch.save(state, self.path.with_suffix(".tmp"))
                self.path.with_suffix(".tmp").replace(self.path)
        return dict(kept.eval().items())

    def rate(self, step: int) -> float:
        """Learning rate: warmed up over 100 steps, then a cosine."""
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.plan.steps))
        return self.plan.rate * min(1, (step + 1) / 100) * (0.02 + 0.98 * cosine)

    def optimizers(self, together: nn.Module) -> list[torch.optim.Optimizer]:
        return [adam(together.parameters(), self.plan.rate)]

    def _resume(self, together: nn.Module, kept: nn.Module, optimizers: list[torch.optim.Optimizer]) -> int:
        if not self.path.exists():
            return 0
        state = torch.load(self.path, map_location=self.device)
        together.load_state_dict(state["modules"])
        kept.load_state_dict(state["kept"])
        for optimizer, known in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(known)
        print(f"{self.stage}: resumed at step {state['step']}", flush=True)
        return state["step"]


def adam(parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    parameters = list(parameters)
    matrices = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, rate, betas=(0.9, 0.98), fused=True)


# --- stages ---------------------------------------------------------------------------------------


def difference(a: Tensor, b: Tensor) -> Tensor:
    """Reconstruction loss: absolute, squared, and of the gradients (edges)."""
    d = a - b
    edges = (d[..., 1:] - d[..., :-1]).abs().mean() + (d[..., 1:, :] - d[..., :-1, :]).abs().mean()
    return d.abs().mean() + 3 * d.square().mean() + 0.3 * edges


def train_autoencoder(run: Run, data: Data) -> None:
    encoder, decoder = Encoder(), Decoder()

    def loss_of(indices, generator):
        x = data.pictures(indices)[0].to(run.device)
        z = encoder(x)
        flat = z.transpose(0, 1).flatten(1)
        centred = flat - flat.mean(1, keepdim=True)
        covariance = centred @ centred.T / centred.shape[1]
        whiteness = (
            flat.mean(1).square().mean() + (covariance - torch.eye(4, device=run.device)).square().mean()
        )
        return difference(decoder(z + 0.03 * torch.randn_like(z)), x) + 0.02 * whiteness

    trained = run.train({"encoder": encoder, "decoder": decoder}, data, loss_of)
    with torch.no_grad():
        mse = (
            (
                trained["decoder"](trained["encoder"](validation().to(run.device))).clamp(0, 1).cpu()
                - validation()
            )
            .square()
            .mean((1, 2, 3))
        )
    print(f"autoencoder: {-10 * mse.log10().mean():.2f} dB on validation scenes", flush=True)


def encoder_of(run: Run, stage: str, encoder: Encoder) -> Encoder:
    """The encoder that the stage has trained."""
    state = torch.load(run.work / f"{stage}.pt", map_location=run.device)["modules"]
    encoder.load_state_dict(
        {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
    )
    return encoder.to(run.device).eval().requires_grad_(False)


def latents(run: Run, data: Data) -> dict:
    """Every training scene encoded once, to mean 0 and deviation 1, with its thing and background."""
    return encoded(run, data, run.work / "latents.pt", encoder_of(run, "autoencoder", Encoder()))


def encoded(run: Run, data: Data, path: Path, encoder: Encoder) -> dict:
    if not path.exists():
        found, names = [], []
        with multiprocessing.get_context("spawn").Pool() as pool:
            rendered = pool.imap(training_scene, range(data.count), chunksize=50)
            while batch := list(islice(rendered, 50)):
                found.append(encoder(to_tensor(batch).to(run.device)).cpu())
                names += [(s.thing, s.background) for s in batch]
        z = torch.cat(found)
        torch.save(
            {
                "z": ((z - z.mean()) / z.std()).half(),
                "mean": z.mean().item(),
                "std": z.std().item(),
                "names": names,
            },
            path,
        )
    return torch.load(path)


def caption_of(thing: str, background: str, generator) -> str:
    """A caption as the UNet is trained on it, at times empty."""
    words = scenes.caption(scenes.Scene(None, None, thing, background), generator).split()
    if generator.random() < UNKNOWN_WORDS:
        words.insert(generator.integers(len(words) + 1), "<unknown>")
    return "" if generator.random() < DROPPED_CAPTIONS else " ".join(words)


class Denoising:
    """The diffusion loss: a predicted noise against the true one, min-SNR weighted."""

    def __init__(self, device: torch.device):
        self.abar = alphas_cumprod().to(device)
        snr = self.abar / (1 - self.abar)
        self.weight = snr.clamp(max=MIN_SNR) / snr

    def loss(self, z: Tensor, predict: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """`predict` is given the noisy latents and their times."""
        t = torch.randint(0, 1000, (len(z),)).to(z.device)
        noise = torch.randn(z.shape).to(z.device)
        a = self.abar[t][:, None, None, None]
        error = predict(a.sqrt() * z + (1 - a).sqrt() * noise, t) - noise
        return (error.square().mean((1, 2, 3)) * self.weight[t]).mean()


def train_unet(run: Run, data: Data) -> None:
    known = latents(run, data)
    unet, text, denoising = UNet(), TextEncoder(len(ROWS)), Denoising(run.device)

    def loss_of(indices, generator):
        z = known["z"][indices].float().to(run.device)
        rows, weights = encode_caption([caption_of(*known["names"][i], generator) for i in indices])
        rows, weights = rows.to(run.device), weights.to(run.device)
        return denoising.loss(z, lambda noisy, t: unet(noisy, t, text(rows), weights))

    run.train({"unet": unet, "text": text}, data, loss_of, average=True)
    pack.write(run.work)


class Frozen:
    """The shipped networks, for what is trained on top of them."""

    def __init__(self, device: torch.device):
        networks, self.mean, self.std = pack.read()
        self.device, self.unet, self.denoising = device, networks["unet"].to(device), Denoising(device)
        self._text, self._encoder = networks["text"].to(device), networks["encoder"].to(device)

    def latents(self, pictures: Tensor) -> Tensor:
        return (self._encoder(pictures.to(self.device)) - self.mean) / self.std

    def text(self, batch: list[scenes.Scene], generator) -> tuple[Tensor, Tensor]:
        """(text, log weights) of captions of the scenes."""
        rows, weights = encode_caption([caption_of(s.thing, s.background, generator) for s in batch])
        return self._text(rows.to(self.device)), weights.to(self.device)


def train_on_top(stage: str, plan: Plan, train: Callable[[Run, Data], None], about: str | None) -> None:
    """The command line of a script that trains something on top of the shipped networks."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint and the result")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="a few steps, to test the path")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    plan = plan._replace(steps=QUICK_STEPS) if options.quick else plan
    train(Run(stage, plan, options.out, options.device), Data(QUICK_SCENES if options.quick else SCENES))


def train_judge(run: Run, data: Data) -> None:
    judge = Judge()

    def loss_of(indices, generator):
        x, batch = data.pictures(indices)
        things, backgrounds = labels_of(batch)
        x = blurred(x, generator) + 0.03 * torch.randn_like(x)
        thing, background = judge(x.to(run.device))
        return F.cross_entropy(thing, things.to(run.device)) + F.cross_entropy(
            background, backgrounds.to(run.device)
        )

    run.train({"judge": judge}, data, loss_of, average=True)
    pack.write_half(run.work, "judge")


def blurred(x: Tensor, generator) -> Tensor:
    """Half of the batches lose detail, as pictures from an autoencoder do."""
    if generator.random() < 0.5:
        return x
    return F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")


STAGES = {"autoencoder": train_autoencoder, "unet": train_unet, "judge": train_judge}

if __name__ == "__main__":
    main()
