"""EtaMetrics and EtaVerdict: what an edit changed in figures, and whether that is good enough."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..eta_core.evidence.metrics import METRICS, VISIBLE, measure
from ..eta_core.evidence.perceptual import clip_directional, clip_similarity, dino_keys, lpips
from ..eta_core.evidence.policy import POLICIES, VERDICTS, judge, parse_policy, worst
from ..eta_core.evidence.report import Report, report_of_json
from . import host
from .plot import table
from .types import CATEGORY, EtaNode, schema

# outputs of EtaMetrics -> what is better, and what a VAE's round trip alone gives
MAIN = {
    "background_psnr": (
        "PSNR outside the mask, dB. Higher is better; infinite = nothing changed. A VAE alone takes it to 23 "
        "(SD1's, photographs of 256 px) or 36 (the embedded toy's)."
    ),
    "background_mse": (
        "Mean squared error outside the mask. Lower is better; 0 = nothing changed. A VAE alone: 0.005 "
        "(SD1's) or 0.0003 (the toy's)."
    ),
    "background_ssim": (
        "Structural similarity outside the mask. Higher is better; 1 = nothing changed. A VAE alone: 0.69 "
        "(SD1's) or 0.96 (the toy's)."
    ),
    "background_ms_ssim": (
        "The same at several scales. Higher is better; 1 = nothing changed. A VAE alone: 0.97 (the toy's)."
    ),
    "background_mean_difference": (
        "Mean colour difference outside the mask, CIEDE2000. Lower is better; 1 = the least that can be "
        "seen. A VAE alone: 0.95 (the toy's)."
    ),
    "background_max_difference": (
        "Largest colour difference of a pixel outside the mask, CIEDE2000. Lower is better. A VAE alone: 31 "
        "(the toy's); a JPEG of quality 95: 11 to 25."
    ),
    "background_changed_area": (
        "Percent of the pixels outside the mask that changed by more than changed_above. Lower is better. A "
        "VAE alone: 2.7 (the toy's)."
    ),
    "changed_area": (
        "Percent of all pixels that changed by more than changed_above. 0 = no edit. A VAE alone: 9.7 (the "
        "toy's)."
    ),
    "structure_distance": (
        "Distance of DINO's self-similarities, whole picture. Lower is better; 0 = same structure, published "
        "methods 0.01 to 0.07. NaN without its weights."
    ),
    "clip_similarity": (
        "CLIP similarity of the edited picture and the target prompt, x 100. Higher is better; published "
        "methods 24 to 26 with CLIP-ViT-L. NaN without clip and clip_vision."
    ),
    "clip_directional": (
        "Whether the picture changed as the prompt did, -1 to 1. Higher is better; 0 = unrelated. NaN "
        "without clip and clip_vision."
    ),
}
SHORT = {  # the columns of the table
    "background_psnr": "PSNR dB",
    "background_mse": "MSE",
    "background_ssim": "SSIM",
    "background_ms_ssim": "MS-SSIM",
    "background_mean_difference": "mean dE",
    "background_max_difference": "max dE",
    "background_changed_area": "changed %",
    "background_differing": "differing px",
    "changed_area": "of all %",
    "pie_psnr": "PSNR dB",
    "pie_mse": "MSE",
    "pie_ssim": "SSIM",
    "pie_ms_ssim": "MS-SSIM",
    "pie_lpips": "LPIPS",
    "structure_distance": "structure",
    "clip_similarity": "CLIP",
    "clip_similarity_edited": "CLIP edited",
    "clip_directional": "CLIP dir.",
}
BLOCKS = {
    "The background and nothing else": list(SHORT)[:9],
    "PIE-Bench's convention: both pictures x (1 - mask), the whole frame": list(SHORT)[9:14],
    "What networks see": list(SHORT)[14:],
}
CLIP = ("clip_similarity", "clip_similarity_edited", "clip_directional")
CHANCE = 5.0  # 100 x cosine: CLIP's pictures and texts, however unlike, lie above it
WHOLE, MASKED = "the whole picture, for there is no mask", "where the mask is 0"
NO_BACKGROUND = "has no background: its mask covers it, or (pie_ssim, pie_ms_ssim) it is below 11 pixels"
CUSTOM = "custom"
TOLD = 10  # lines of reasons on the node and in the log
LET_THROUGH = {"pass": VERDICTS[:1], "pass and review": VERDICTS[:2], "everything": VERDICTS}


class EtaMetrics(EtaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EtaMetrics",
            display_name="Eta Metrics",
            category=CATEGORY,
            search=(
                "image metrics",
                "compare images",
                "PSNR",
                "SSIM",
                "LPIPS",
                "CLIP score",
                "PIE-Bench",
            ),
            description=(
                "Measures what an edit changed: the background, the structure, the likeness to the prompt."
            ),
            inputs=[
                io.Image.Input(
                    "source",
                    tooltip=(
                        "The picture before the edit; one, or one for each edited picture. EtaSampler's "
                        "reconstruction instead leaves the VAE's loss out."
                    ),
                ),
                io.Image.Input("edited", tooltip="The picture after the edit."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip=(
                        "Where the edit was meant to be; the background is where it is exactly 0. Without it "
                        "the whole picture is background."
                    ),
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip=(
                        "For the CLIP figures: a CLIP with its text projection, of clip_vision's family, "
                        "such as clip_l.safetensors by CLIPLoader. A checkpoint of SD1 has none."
                    ),
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip=(
                        "For the CLIP figures: the CLIP's other half. CLIP-ViT-L for clip_l (PIE-Bench's), "
                        "CLIP-ViT-H for SD2's, bigG for clip_g."
                    ),
                ),
                io.String.Input(
                    "source_prompt",
                    default="",
                    optional=True,
                    tooltip="What the source shows; only for clip_directional.",
                ),
                io.String.Input(
                    "target_prompt",
                    default="",
                    optional=True,
                    tooltip="What the edit should show; for the CLIP figures.",
                ),
                io.Float.Input(
                    "changed_above",
                    default=VISIBLE,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    optional=True,
                    tooltip=(
                        "Colour difference (CIEDE2000) above which a pixel counts as changed in the changed "
                        "areas. 1 = the least that can be seen, 5 = plainly another colour."
                    ),
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="figures",
                    tooltip=(
                        "Every figure of every picture and their means as JSON, with the reason for what was "
                        "not measured. For EtaVerdict."
                    ),
                ),
                io.Image.Output(
                    display_name="table", tooltip="The same to read: a row a picture, and their means."
                ),
                *(
                    io.Float.Output(display_name=name, tooltip=f"{about} Of a batch, the mean.")
                    for name, about in MAIN.items()
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> list[str | None]:
        """Weights that were put into their folder are used by the next run, although no input has changed."""
        return host.weights_there()

    @classmethod
    def execute(
        cls,
        source,
        edited,
        mask=None,
        clip=None,
        clip_vision=None,
        source_prompt="",
        target_prompt="",
        changed_above=VISIBLE,
    ) -> io.NodeOutput:
        node_id, size = cls.hidden.unique_id, (edited.shape[1], edited.shape[2])
        source, edited = (
            p[..., :3].float().cpu() for p in (host.as_encoded(source, "source", size, node_id), edited)
        )
        source = host.beside(source, len(edited), "source").expand(len(edited), -1, -1, -1)
        if mask is not None:
            mask = host.beside(host.stacked(mask), len(edited), "mask")
            mask = host.fit_mask(mask, len(edited), size, node_id).expand(len(edited), -1, -1)
        pair, why = (source, edited), {}
        found = _similarity(*pair, mask, clip, clip_vision, source_prompt, target_prompt, why, node_id)
        found |= _lpips(*pair, mask, why)
        features, pictures = _structure(why), []
        for i in host.counted(len(edited)):
            before, after = (tensor[i : i + 1] for tensor in pair)
            (own,) = measure(
                before, after, mask if mask is None else mask[i : i + 1], changed_above, features
            )
            own |= {name: float(values[i]) for name, values in found.items()}
            pictures.append(dict.fromkeys(METRICS, math.nan) | own)
        for i, picture in enumerate(pictures):
            for name in (name for name, value in picture.items() if math.isnan(value) and name not in why):
                why[name] = f"picture {i + 1} {NO_BACKGROUND}"
        report = Report(
            tuple(pictures),
            {name: why[name] for name in METRICS if name in why},
            {"background": WHOLE if mask is None else MASKED, "changed_above": changed_above},
        )
        mean = report.mean()
        return io.NodeOutput(report.to_json(), _draw(report), *(mean[name] for name in MAIN))


def _structure(why: dict[str, str]) -> Callable[[Tensor], Tensor] | None:
    """DINO's keys, where its weights are on this machine; else the reason goes into `why`."""
    try:
        (weights,) = host.weights_of("dino")
    except FileNotFoundError as missing:
        why["structure_distance"] = str(missing)
        return None
    return partial(dino_keys, weights=weights)


def _lpips(source: Tensor, edited: Tensor, mask: Tensor | None, why: dict[str, str]) -> dict[str, Tensor]:
    """PIE-Bench's LPIPS [B], where its weights are on this machine; else the reason goes into `why`."""
    try:
        weights = host.weights_of("lpips")
    except FileNotFoundError as missing:
        why["pie_lpips"] = str(missing)
        return {}
    mask = torch.zeros(edited.shape[:3]) if mask is None else mask
    kept, found = (picture * (1 - mask)[..., None] for picture in (source, edited))
    distances = [lpips(kept[i : i + 1], found[i : i + 1], *weights) for i in range(len(edited))]
    return {"pie_lpips": torch.where((mask >= 1).flatten(1).all(1), math.nan, torch.cat(distances))}


def _similarity(
    source: Tensor,
    edited: Tensor,
    mask: Tensor | None,
    clip,
    clip_vision,
    source_prompt: str,
    target_prompt: str,
    why: dict[str, str],
    node_id: str | None,
) -> dict[str, Tensor]:
    """The figures of CLIP, [B] each; where an input is missing the reason goes into `why`."""
    if clip is None or clip_vision is None or not target_prompt.strip():
        lacks = (
            "connect clip and clip_vision"
            if clip is None or clip_vision is None
            else "target_prompt is empty"
        )
        why |= dict.fromkeys(CLIP, lacks)
        return {}
    seen = host.image_embeddings(clip_vision, edited)
    target = host.text_embedding(clip, target_prompt, seen.shape[-1])
    found = {"clip_similarity": clip_similarity(seen, target)}
    if float(found["clip_similarity"].max()) < CHANCE:
        host.warn(
            f"CLIP sees nothing of the target prompt in any picture (similarity below {CHANCE:g}): clip and "
            "clip_vision may belong to "
            "different models",
            node_id,
        )
    if mask is None:
        why["clip_similarity_edited"] = "connect a mask"
    else:
        inside = host.image_embeddings(clip_vision, edited * mask[..., None])
        found["clip_similarity_edited"] = clip_similarity(inside, target)
    if not source_prompt.strip() or source_prompt == target_prompt:
        why["clip_directional"] = "source_prompt is empty or the same as target_prompt"
    else:
        before, said = (
            host.image_embeddings(clip_vision, source),
            host.text_embedding(clip, source_prompt, seen.shape[-1]),
        )
        found["clip_directional"] = clip_directional(before, seen, said, target)
    return found


def _draw(report: Report) -> Tensor:
    """The report as a picture; what was not measured is named below."""
    rows = [(str(i + 1), picture) for i, picture in enumerate(report.pictures)]
    rows += [("mean", report.mean())] if len(rows) > 1 else []
    blocks = []
    for title, names in BLOCKS.items():
        shown = [name for name in names if any(not math.isnan(p[name]) for _, p in rows)]
        columns = [(SHORT[name], METRICS[name].better) for name in shown]
        lines = [[head, *(_number(name, picture[name]) for name in shown)] for head, picture in rows]
        blocks += [(title, columns, lines)] if shown else []
    reasons: dict[str, list[str]] = {}
    for name, reason in report.not_measured.items():
        reasons.setdefault(reason, []).append(name)
    notes = [f"Not measured: {', '.join(names)}: {reason}." for reason, names in reasons.items()]
    return table(blocks, [f"Background: {report.settings['background']}.", _outside(report), *notes])


def _outside(report: Report) -> str:
    """Whether the background is the source's bit by bit, and if not, how much of it differs."""
    counts = [picture["background_differing"] for picture in report.pictures]
    known = [count for count in counts if not math.isnan(count)]
    if not known:
        return "Outside: there is no background."
    exact = sum(count == 0 for count in known)
    if exact == len(known):
        return "Outside: identical."
    return f"Outside: identical in {exact} of {len(known)} pictures, {sum(known):.0f} pixels differ."


def _number(name: str, value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.{METRICS[name].digits}f}"


class EtaVerdict(EtaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EtaVerdict",
            display_name="Eta Verdict",
            category=CATEGORY,
            search=(
                "quality gate",
                "accept or reject",
                "quality control",
                "policy",
                "block save",
            ),
            description=(
                "Judges figures by a policy: pass, review or reject, and why. Holds back what is not good "
                "enough."
            ),
            inputs=[
                io.String.Input("figures", force_input=True, tooltip="EtaMetrics' figures."),
                io.Combo.Input(
                    "policy",
                    options=[*POLICIES, CUSTOM],
                    tooltip=(
                        "catalogue-strict: the background is the photograph's own; a VAE's round trip does "
                        "not pass, paste the picture back. "
                        "advertising: the background may lose what a VAE loses. social: light and fine "
                        "detail of the background may change. internal-draft: the same scene at a glance. "
                        "free: only what is no edit any more is rejected. custom: custom_policy."
                    ),
                ),
                io.Combo.Input(
                    "let_through",
                    options=list(LET_THROUGH),
                    default="pass and review",
                    tooltip=(
                        "Which pictures of `image` go on: pass = only what keeps every limit, pass and "
                        "review = all but the rejected, "
                        "everything = neutral. Where none is left, the nodes behind `image` do not run."
                    ),
                ),
                io.String.Input(
                    "custom_policy",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip=(
                        "Limits as JSON, for each metric min, max or both, for pass and, wider, for review; "
                        "the help page has an example. "
                        "Read only by the policy custom."
                    ),
                ),
                io.Image.Input(
                    "image", optional=True, tooltip="The pictures to let through or hold back, as measured."
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image", tooltip="The pictures that let_through lets through, unchanged."
                ),
                io.String.Output(
                    display_name="verdict", tooltip="pass, review or reject; of a batch, the worst."
                ),
                io.String.Output(
                    display_name="reasons", tooltip="Every limit that a picture breaks, a line each."
                ),
                io.Boolean.Output(display_name="passed", tooltip="Whether every picture passes."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, figures, policy, let_through, custom_policy="", image=None) -> io.NodeOutput:
        report = report_of_json(figures)
        if image is not None and len(image) != len(report.pictures):
            raise ValueError(
                f"image has {len(image)} pictures, the figures {len(report.pictures)}: connect the pictures "
                "that EtaMetrics measured"
            )
        verdicts = judge(report, parse_policy(custom_policy) if policy == CUSTOM else POLICIES[policy])
        verdict = worst(verdicts)
        reasons = [
            f"picture {i + 1}, {reason}" if len(verdicts) > 1 else reason
            for i, found in enumerate(verdicts)
            for reason in found.reasons
        ] or [f"every limit of {policy} is kept"]
        more = [f"and {len(reasons) - TOLD} more"] if len(reasons) > TOLD else []
        told = "\n".join([f"{verdict} by the policy {policy}", *reasons[:TOLD], *more])
        (host.say if verdict == "pass" else host.warn)(told, cls.hidden.unique_id)
        good = [i for i, found in enumerate(verdicts) if found.verdict in LET_THROUGH[let_through]]
        if image is None:
            image = host.blocked("connect the picture to EtaVerdict's image")
        elif good:
            image = image[good]
        else:
            image = host.blocked(f"held back by EtaVerdict: {told}")
        return io.NodeOutput(image, verdict, "\n".join(reasons), verdict == "pass", ui=ui.PreviewText(told))


NODES = [EtaMetrics, EtaVerdict]
