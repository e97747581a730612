"""Train the embedded flow model: python -m devtools.demo.train_flow --work DIR

Stages, each resumed from DIR where it was interrupted: an autoencoder of sixteen channels, begun from the
shipped one of four; the flow transformer, on latents encoded once and on the shipped words, which stay as
they are. The result is DIR/flow.safetensors. The transformer's layers run in bf16, which a CPU with matrix
units for it does several times faster.

The rate stays level and falls over the last DECAY of the steps, so that a training that was stopped may go on
with another --steps.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from . import pack
from .flow_network import CHANNELS, MATRICES, FlowTransformer
from .network import Decoder, Encoder
from .train import (
    QUICK_SCENES,
    QUICK_STEPS,
    Data,
    Plan,
    Run,
    adam,
    caption_of,
    difference,
    encoded,
    encoder_of,
    validation,
)
from .words import encode_caption

SCENES = 12000
COARSE = 4  # channels begun from the shipped autoencoder
DETAIL_VARIANCE = 0.25  # at most, of the other twelve; the coarse ones have 1
WARM_UP, DECAY = 100, 0.3  # steps; part of the steps
TIMES_MEAN, TIMES_SPREAD = 0.2, 1.2  # of the logit-normal times
PLANS = {"flow_autoencoder": Plan(800, 8, 1e-3, 6), "flow": Plan(6000, 32, 1.5e-3, 7)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and the result")
    parser.add_argument("--stages", nargs="*", default=list(PLANS), choices=list(PLANS))
    parser.add_argument("--steps", type=int, default=PLANS["flow"].steps, help="of the flow transformer")
    parser.add_argument("--batch", type=int, default=PLANS["flow"].batch, help="of the flow transformer")
    parser.add_argument("--scenes", type=int, default=SCENES, help="that are rendered and encoded once")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="a few steps, to test the path")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    data = Data(QUICK_SCENES if options.quick else options.scenes)
    for stage in options.stages:
        plan = PLANS[stage]
        if stage == "flow":
            plan = plan._replace(steps=options.steps, batch=options.batch)
        plan = plan._replace(steps=QUICK_STEPS) if options.quick else plan
        STAGES[stage](FlowRun(stage, plan, options.work, options.device), data)


class FlowRun(Run):
    saved_every = 200

    def rate(self, step: int) -> float:
        left = (self.plan.steps - step) / (DECAY * self.plan.steps)
        return self.plan.rate * min(1, (step + 1) / WARM_UP, left)

    def optimizers(self, together: nn.Module) -> list[torch.optim.Optimizer]:
        """Muon for the matrices of the transformer's blocks, which then need far fewer steps."""
        matrices, others = [], []
        for name, parameter in together.named_parameters():
            (matrices if any(part in name for part in MATRICES) and parameter.ndim == 2 else others).append(
                parameter
            )
        muon = {"weight_decay": 0.01, "adjust_lr_fn": "match_rms_adamw"}
        return [adam(others, self.plan.rate)] + (
            [torch.optim.Muon(matrices, self.plan.rate, **muon)] if matrices else []
        )


def widened() -> tuple[Encoder, Decoder]:
    """The shipped autoencoder with twelve more channels, of which its decoder takes little notice yet."""
    networks, _, _ = pack.read()
    encoder, decoder = Encoder(CHANNELS), Decoder(CHANNELS)
    for new, old, side in ((encoder, networks["encoder"], "out"), (decoder, networks["decoder"], "in")):
        state, shipped = new.state_dict(), old.state_dict()
        for name, value in shipped.items():
            if state[name].shape == value.shape:
                state[name].copy_(value)
            elif side == "out":
                state[name][:COARSE] = value
            else:
                state[name] *= 0.1
                state[name][:, :COARSE] = value
    return encoder, decoder


def train_autoencoder(run: Run, data: Data) -> None:
    encoder, decoder = widened()
    allowed = torch.full((CHANNELS,), DETAIL_VARIANCE, device=run.device)
    allowed[:COARSE] = 1.0

    def loss_of(indices, generator):
        x = data.pictures(indices)[0].to(run.device)
        z = encoder(x)
        flat = z.transpose(0, 1).flatten(1)
        spread = flat.mean(1).square().mean() + (flat.var(1) - allowed).clamp(min=0).square().mean()
        return difference(decoder(z + 0.1 * torch.randn_like(z)), x) + 0.02 * spread

    trained = run.train({"encoder": encoder, "decoder": decoder}, data, loss_of)
    print(f"{run.stage}: {psnr(trained, run.device):.2f} dB on validation scenes", flush=True)


@torch.no_grad()
def psnr(trained, device) -> float:
    pictures = validation().to(device)
    played = trained["decoder"](trained["encoder"](pictures)).clamp(0, 1)
    return (-10 * (played - pictures).square().mean((1, 2, 3)).log10().mean()).item()


def train_flow(run: Run, data: Data) -> None:
    encoder = encoder_of(run, "flow_autoencoder", Encoder(CHANNELS))
    known = encoded(run, data, run.work / "flow_latents.pt", encoder)
    text = pack.read()[0]["text"].to(run.device)
    flow = FlowTransformer()

    def loss_of(indices, generator):
        z = known["z"][indices].float().to(run.device)
        rows, weights = encode_caption([caption_of(*known["names"][i], generator) for i in indices])
        told = int(weights.isfinite().sum(-1).max())  # the longest caption
        rows, weights = rows[:, :told].to(run.device), weights[..., :told].to(run.device)
        sigma, noise = times(len(z)).to(run.device), torch.randn(z.shape).to(run.device)
        s = sigma[:, None, None, None]
        with torch.autocast(run.device.type, torch.bfloat16):
            v = flow((1 - s) * z + s * noise, sigma, text(rows), weights)
        return (v - (noise - z)).square().mean()

    run.train({"flow": flow}, data, loss_of, average=True)
    pack.write_flow(run.work)


def times(count: int) -> Tensor:
    """Logit-normal sigmas, one from each of `count` equally likely ranges."""
    u = (torch.arange(count) + torch.rand(count)) / count
    return torch.sigmoid(TIMES_MEAN + TIMES_SPREAD * torch.special.ndtri(u.clamp(1e-4, 1 - 1e-4)))


STAGES = {"flow_autoencoder": train_autoencoder, "flow": train_flow}

if __name__ == "__main__":
    main()
