"""Loops inside the host's own sampling: guider, model options, previews, progress, Cancel."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from inspect import getclosurevars
from itertools import pairwise
from typing import Generic, NamedTuple, TypeVar

import comfy.model_patcher
import comfy.samplers
import latent_preview
import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.patcher_extension import WrappersMP, add_wrapper
from comfy.utils import repeat_to_batch_size
from torch import Tensor

from nodes import KSampler  # pyright: ignore[reportAttributeAccessIssue]: the host's module of this name

from ...eta_core.ddim import ancestral_step, eta_step
from ...eta_core.eta import EtaSchedule
from ...eta_core.frame import DIFFUSION, Frame, from_x, to_x
from .latents import latent_mask, out_of_model_space, with_frame, without_frame
from .memory import MEMORY_ERRORS, NO_WAY, ask_apart, is_out_of_memory, make_room
from .messages import log, warn
from .models import SHOWN, Size, check_can_invert, frame_of, noise_levels, pixels_of

# What may look at all rows of a call at once, so that one branch would change another.
GUIDANCE = ("sampler_cfg_function", "sampler_pre_cfg_function", "sampler_post_cfg_function")
APART = (
    "Out of memory: from here on one branch after the other goes through the network, its prompt and its "
    "negative apart. The result is the same, and takes longer"
)
CATEGORY = KSampler.CATEGORY  # where the host's menu has its samplers
Result = TypeVar("Result")
Patch = Callable[[dict, Mapping[str, int], bool], dict]


class Branch(NamedTuple):
    """Conditioning under which the network is asked: of the source, of a target."""

    name: str
    positive: list
    negative: list | None
    cfg: float


class BranchGuider(comfy.samplers.CFGGuider):
    """The host's guider for several branches, loaded and hooked together.

    The conditioning of each branch is processed alone. Processed together, one branch's area or ControlNet
    would leak into the others.
    """

    def __init__(self, model, branches: Sequence[Branch], pictures: int):
        super().__init__(model)
        self._pictures = pictures
        self._branches = {branch.name: branch for branch in branches}
        conds = {(b.name, kind): getattr(b, kind) for b in branches for kind in ("positive", "negative")}
        self.inner_set_conds({key: cond for key, cond in conds.items() if cond is not None})
        self._processed: dict = {}

    def inner_sample(self, noise, latent_image, device, *args, **kwargs):
        self._everything, self._latent, self._device = self.conds, latent_image, device
        self.conds = {}
        try:
            return super().inner_sample(noise, latent_image, device, *args, **kwargs)
        finally:
            self.conds = self._everything  # the host cleans up after all of them
            self._processed.clear()

    def groups(self, names: Sequence[str]) -> list[list[str]]:
        """The branches in as few network calls as their conditionings allow; the first branch is in the first
        call.
        """
        groups: list[list[str]] = []
        for name in names:
            group = next((group for group in groups if self._can_join(group[0], name)), None)
            if group is None:
                groups.append([name])
            else:
                group.append(name)
        return groups

    def _can_join(self, one: str, other: str) -> bool:
        if any(self.model_options.get(name) for name in GUIDANCE) or patches_attention(self.model_options):
            return False
        a, b = self._branches[one], self._branches[other]
        kinds = [(self._entries(one, kind), self._entries(other, kind)) for kind in ("positive", "negative")]
        return a.cfg == b.cfg and all(_joinable(x, y) for x, y in kinds)

    def _entries(self, name: str, kind: str) -> list[dict]:
        return self._everything.get((name, kind), [])

    def predict(self, rows: Mapping[str, int], x: Tensor, sigma: Tensor, model_options: dict, seed) -> Tensor:
        """The denoised x, rows of the branches `rows` one after the other."""
        key = tuple(rows.items())
        if key not in self._processed:
            self._processed[key] = self._process(rows)
        self.conds, self.cfg = self._processed[key], self._branches[next(iter(rows))].cfg
        return self(x, sigma, model_options=model_options, seed=seed)

    def _process(self, rows: Mapping[str, int]) -> dict[str, list[dict]]:
        count = sum(rows.values())
        latent = repeat_to_batch_size(self._latent, count)
        conds = {kind: self._joined(rows, kind) for kind in ("positive", "negative")}
        conds = {
            kind: [self._spread(entry, count) for entry in entries]
            for kind, entries in conds.items()
            if entries is not None
        }
        # one seed for all: the noise that unCLIP adds to a picture it is shown must be the inversion's
        return comfy.samplers.process_conds(self.inner_model, latent, conds, self._device, latent, seed=0)

    def _spread(self, entry: dict, count: int) -> dict:
        """A copy of an entry whose pictures follow the rows.

        Variants lie p1 p2 p1 p2, where the host would spread its pictures over p1 p1 p2 p2.
        """
        fitted = {
            key: value.repeat(count // self._pictures, *[1] * (value.ndim - 1))
            for key, value in entry.items()
            if key in SHOWN and torch.is_tensor(value) and len(value) == self._pictures > 1
        }
        return entry | fitted

    def _joined(self, rows: Mapping[str, int], kind: str) -> list[dict] | None:
        if (next(iter(rows)), kind) not in self._everything:
            return None
        entries = [self._entries(name, kind) for name in rows]
        if len(entries) == 1:
            return entries[0]
        joined = dict(entries[0][0])
        for key in ("cross_attn", "pooled_output"):
            if torch.is_tensor(joined.get(key)):
                parts = [
                    repeat_to_batch_size(entry[key], count) for (entry,), count in zip(entries, rows.values())
                ]
                joined[key] = torch.cat(parts)
        return [joined]


def _joinable(one: list[dict], other: list[dict]) -> bool:
    """Whether two conditionings are plain prompts of equal length."""
    if not one and not other:
        return True
    plain = {"cross_attn", "pooled_output", "model_conds", "uuid"}
    if len(one) != 1 or len(other) != 1 or (set(one[0]) | set(other[0])) - plain:
        return False
    shapes = [
        [
            tuple(entry[key].shape[1:]) if torch.is_tensor(entry.get(key)) else None
            for key in ("cross_attn", "pooled_output")
        ]
        for (entry,) in (one, other)
    ]
    return shapes[0] == shapes[1] and not one[0]["model_conds"] and not other[0]["model_conds"]


def patches_attention(model_options: dict) -> bool:
    """Whether another pack patches the attention. It may count the rows of a call, as IPAdapter does."""
    options = model_options.get("transformer_options", {})
    patches = options.get("patches", {})
    return (
        any(patches[kind] for kind in patches if kind.startswith("attn"))
        or any(options.get("patches_replace", {}).values())
        or "optimized_attention_override" in options
    )


def counts_rows(model, branches: Sequence[Branch]) -> bool:
    """Whether what is done to a row may depend on its number, so that each variant must be sampled alone.

    The host's own ControlNet gives every variant its picture's hint; what other packs make of it is not
    known.
    """
    prompts = [prompt for branch in branches for prompt in (branch.positive, branch.negative or [])]
    controls = [extra.get("control") for prompt in prompts for _, extra in prompt]
    foreign = (type(control).__module__ != "comfy.controlnet" for control in controls if control is not None)
    return patches_attention(model.model_options) or any(foreign)


class Network:
    """The guided network inside one sampling: takes x of some branches, returns their denoised latents.

    pictures: of the source. alone: ask for one row after the other from the start, as after out of memory.
    """

    def __init__(
        self,
        guider: BranchGuider,
        sigmas: Tensor,
        options: dict,
        seed,
        size: Size,
        pictures: int,
        alone: bool,
    ):
        self._guider, self._sigmas, self._options, self._seed = guider, sigmas, options, seed
        self._pictures, self._alone = pictures, alone
        self._frame = frame_of(guider.inner_model.model_sampling, size)
        self._form = guider.inner_model.latent_format

    def __call__(
        self, xs: Mapping[str, Tensor], sigma: float, patch: Patch | None = None
    ) -> dict[str, Tensor]:
        """x of each branch -> its denoised latent, at one sigma.

        `patch(options, rows, short)` may add to a copy of the model options for each call. rows: how many
        rows of each branch the call has. short: whether memory is short, so that little may be held. A call
        that runs out of memory is asked, and patched, again. So are the rest of the sampling's, one row
        after the other. The host's error comes through where that does not suffice, or where a branch has
        several variants.
        """
        found: dict[str, Tensor] = {}
        level = self._frame.level(sigma)
        inputs = {name: host_latent(self._frame, x, sigma) for name, x in xs.items()}
        for names in self._guider.groups(tuple(xs)):
            found |= self._answers({name: inputs[name] for name in names}, level, patch)
        return found

    def _answers(self, inputs: Mapping[str, Tensor], level: float, patch: Patch | None) -> dict[str, Tensor]:
        if not self._alone:
            try:
                return self._ask(inputs, level, patch)
            except MEMORY_ERRORS as error:
                if not is_out_of_memory(error) or max(map(len, inputs.values())) > self._pictures:
                    raise
            self._alone = True
            make_room(APART)
        try:
            return {name: self._ask({name: x}, level, patch)[name] for name, x in inputs.items()}
        except MEMORY_ERRORS as error:
            if is_out_of_memory(error):
                warn(NO_WAY)
            raise

    def _ask(self, inputs: Mapping[str, Tensor], level: float, patch: Patch | None) -> dict[str, Tensor]:
        rows = {name: len(x) for name, x in inputs.items()}
        x = with_frame(self._form, torch.cat(list(inputs.values())))
        options = self._options
        if patch is not None or self._alone:
            options = comfy.model_patcher.create_model_options_clone(options)
        if self._alone:
            ask_apart(options)
        if patch is not None:
            options = patch(options, rows, self._alone)
        denoised = self._guider.predict(rows, x, x.new_full((len(x),), level), options, self._seed)
        if not bool(torch.isfinite(denoised).all()):
            raise ValueError(_overflow(self._guider.inner_model, self._sigmas, level))
        denoised = without_frame(self._form, denoised.float())
        return dict(zip(inputs, denoised.split(list(rows.values()))))


def host_latent(frame: Frame, x: Tensor, sigma: float) -> Tensor:
    """x as the host's samplers hold it: x itself for a diffusion model, the latent z for a flow model."""
    return x if frame is DIFFUSION else from_x(frame, x, sigma)


def x_of_host(frame: Frame, latent: Tensor, sigma: float) -> Tensor:
    """The inverse of `host_latent`."""
    return latent if frame is DIFFUSION else to_x(frame, latent, sigma)


def _overflow(model, sigmas: Tensor, sigma: float) -> str:
    """What a prediction that is not finite means. An inversion asks at a step's end, an edit at its start."""
    step = int((sigmas.cpu() - sigma).abs().argmin()) + int(sigmas[0] > sigmas[-1])
    precision = getattr(model, "manual_cast_dtype", None) or model.get_dtype()
    where = (
        f"the model predicted NaN or infinite values at step {step} of {len(sigmas) - 1} (sigma {sigma:.4f})"
    )
    if precision in (torch.float32, torch.bfloat16):
        return (
            f"{where} in {precision}, which does not overflow: check the checkpoint, its LoRAs and what "
            "other packs patch"
        )
    return f"{where}: {precision} overflows; start the host with --bf16-unet or --fp32-unet"


class LoopSampler(comfy.samplers.Sampler, Generic[Result]):
    """A SAMPLER that hands `loop(network, latent)` the guider's predictions, without noise or inpaint
    blending.
    """

    def __init__(self, loop: Callable[[Network, Tensor], Result], z: Tensor, alone: bool):
        self._loop, self._z, self._alone = loop, z, alone
        self._results: list[Result] = []
        self.rows = 0

    def sample(  # pyright: ignore[reportIncompatibleMethodOverride]: the host's base names no parameters but passes these
        self,
        model_wrap,
        sigmas,
        extra_args,
        callback,
        noise,
        latent_image=None,
        denoise_mask=None,
        disable_pbar=False,
    ):
        options = comfy.model_patcher.create_model_options_clone(extra_args["model_options"])
        add_wrapper(WrappersMP.APPLY_MODEL, self._count, options, is_model_options=True)
        size = (self._z.shape[-2], self._z.shape[-1])
        seed, pictures = extra_args.get("seed"), len(self._z)
        network = Network(model_wrap, sigmas, options, seed, size, pictures, self._alone)
        # Not the host's latent_image: an all-zero latent does not come through its scaling.
        self._results.append(self._loop(network, self._z.to(noise.device, torch.float32)))
        return latent_image

    @property
    def result(self) -> Result:
        """What the loop returned."""
        return self._results[-1]

    def _count(self, apply_model, x, *args, **kwargs):
        self.rows += len(x)
        return apply_model(x, *args, **kwargs)


def sample(
    model,
    branches: Sequence[Branch],
    z: Tensor,
    sigmas: Sequence[float],
    seed: int,
    loop: Callable[[Network, Tensor], Result],
    rows: int = 1,
    alone: bool = False,
) -> Result:
    """Run `loop` inside the host's sampling of `z` [B, C, H, W] (model's scaled space) and return its result.

    seed: also of torch's own generators, from which patches such as HyperTile and ToMe draw; the host's
    samplers seed them too. rows: most rows of a network call for each picture, for the host's memory
    estimate. alone: see Network.
    """
    _refuse_memory(model)
    check_can_invert(model)
    guider = BranchGuider(model, branches, len(z))
    latent = out_of_model_space(model, z)
    sampler = LoopSampler(loop, z, alone)
    started = time.perf_counter()
    torch.manual_seed(seed)
    levels = torch.tensor(sigmas, dtype=torch.float32)
    largest = latent.repeat(rows, *[1] * (latent.ndim - 1))
    guider.sample(torch.zeros_like(largest), largest, sampler, levels, disable_pbar=True, seed=seed)
    log.info(
        "Eta Inversion: %d rows through the network in %.2f s", sampler.rows, time.perf_counter() - started
    )
    return sampler.result


def _refuse_memory(model) -> None:
    """ValueError for what carries something from one call to the next: no two runs would agree."""
    # Nunchaku's Flux, seen through its wrapper for the host
    network = getattr(model.get_model_object("diffusion_model"), "model", None)
    if threshold := getattr(network, "residual_diff_threshold_multi", 0):
        raise ValueError(
            f"Nunchaku's first-block cache is on (cache_threshold {threshold:g}): it puts older predictions "
            "in the place of new ones, which no inversion plays back. Set cache_threshold to 0"
        )
    model_options = model.model_options
    if "easycache" in model_options["transformer_options"]:
        raise ValueError(
            "EasyCache (LazyCache) is on this model: it puts older predictions in the place of new ones, "
            "which no inversion plays back. Connect the "
            "model from before it"
        )
    for function in model_options.get("sampler_pre_cfg_function", ()):
        kept = getclosurevars(function).nonlocals if hasattr(function, "__code__") else {}
        if "running_avg" in kept and kept.get("momentum"):
            raise ValueError(
                f"Adaptive Projected Guidance (APG) on this model has a momentum of {kept['momentum']:g}: "
                "its "
                "average of earlier calls would go from the source into the edit. Set momentum to 0"
            )


def progress(model, total: int) -> Callable[[Tensor, Tensor], None]:
    """A progress bar with previews over `total` network steps: call it with (x, denoised) after each."""
    callback = latent_preview.prepare_callback(model, total)
    form, done = model.get_model_object("latent_format"), 0

    def tick(x: Tensor, denoised: Tensor) -> None:
        nonlocal done
        callback(done, with_frame(form, denoised), with_frame(form, x), total)
        throw_exception_if_processing_interrupted()  # newer hosts' bars ask for Cancel now and then only
        done += 1

    return tick


def eta_sampler(eta: EtaSchedule, mask: Tensor | None) -> comfy.samplers.KSAMPLER:
    """eta-DDIM as a SAMPLER of the host; its noise comes from the CPU, seeded by the run's seed."""

    def sample_eta_ddim(model, x, sigmas, extra_args=None, callback=None, disable=None):
        extra_args = extra_args or {}
        network = model.inner_model.inner_model
        table = noise_levels(network.model_sampling)
        frame = frame_of(network.model_sampling, (x.shape[-2], x.shape[-1]))
        region = None
        if mask is not None:
            form = network.latent_format
            small = latent_mask(mask, len(x), x.shape[-2:], pixels_of(form)).to(x)
            region = with_frame(form, small)
        if not bool((sigmas[1:] < sigmas[:-1]).all()):
            raise ValueError(
                f"the sigmas {sigmas.tolist()} do not fall: eta-DDIM samples from noise to image"
            )
        # The host drew the noise that x starts from with `seed` itself, so the fresh noise needs another
        # seed.
        generator = torch.Generator("cpu").manual_seed(((extra_args.get("seed") or 0) + 1) % 2**64)
        for i, (level, level_next) in enumerate(pairwise(sigmas.tolist())):
            denoised = model(x, x.new_full((len(x),), level), **extra_args)
            if not bool(torch.isfinite(denoised).all()):
                raise ValueError(_overflow(network, sigmas, level))
            if callback is not None:
                callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
            sigma, sigma_next = frame.sigma(level), frame.sigma(level_next)
            down, up = ancestral_step(eta(frame.time(level, table)), sigma, sigma_next, region)
            noise = torch.randn(x.shape, generator=generator).to(x)
            moved = eta_step(x_of_host(frame, x, sigma), denoised, sigma, down, up, noise)
            x = host_latent(frame, moved, sigma_next)
        return x

    return comfy.samplers.KSAMPLER(sample_eta_ddim)
