"""EtaEditMask: the region on which an edit acts, whatever its words."""

from __future__ import annotations

from comfy_api.latest import io, ui
from torch import Tensor

from ..eta_core import masks
from ..eta_core.edit_map import by_both, by_trajectory, keeps_answers, spread_steps
from . import host
from .overlay import heatmap
from .shaping import blur_input, grow_input, mask_inputs, picture_for, refined, shaped, with_own
from .types import CATEGORY, EtaNode, Inversion, InversionSocket, schema

TARGET = "target"


class EtaEditMask(EtaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EtaEditMask",
            display_name="Eta Edit Mask",
            category=CATEGORY,
            search=(
                "diffedit",
                "automatic mask",
                "difference mask",
                "where the edit acts",
            ),
            description=(
                "Where the target prompt predicts something else than the source prompt did: the region of "
                "an edit as a mask, without naming a word. Works where attention cannot be read."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model of the inversion."),
                InversionSocket.Input("inversion", tooltip="The inversion of the picture."),
                io.Conditioning.Input("positive", tooltip="The target prompt of the edit."),
                io.Int.Input(
                    "evaluations",
                    default=4,
                    min=1,
                    max=100,
                    tooltip=(
                        "Noise levels at which the target is asked, a network evaluation each. The source's "
                        "answers follow from a ddim inversion at cfg 1; after others they are asked too."
                    ),
                ),
                io.Boolean.Input(
                    "auto_threshold",
                    default=True,
                    tooltip=(
                        "On: each picture gets the threshold that parts its differences best in two (Otsu). "
                        "Off: `threshold`."
                    ),
                ),
                io.Float.Input(
                    "threshold",
                    default=0.3,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip=(
                        "A difference above it belongs to the region; 1 is the largest in the picture. "
                        "0 = soft mask. Read only where auto_threshold is off."
                    ),
                ),
                grow_input(),
                blur_input(),
                *mask_inputs("edit", "edit's"),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip=(
                        "The picture that was inverted: the region's edge follows its edges, and the heatmap "
                        "is drawn on it. Without it the edge is as coarse as the latent."
                    ),
                ),
            ],
            outputs=[
                io.Mask.Output(display_name="mask", tooltip="Full picture size; 1 = the region."),
                io.Image.Output(
                    display_name="heatmap",
                    tooltip="The difference drawn over the picture, the mask's edge in white.",
                ),
            ],
            # Its preview is wanted while no sampler is connected yet.
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model,
        inversion: Inversion,
        positive,
        evaluations,
        auto_threshold,
        threshold,
        grow,
        blur,
        mask=None,
        combine="intersect",
        image=None,
    ) -> io.NodeOutput:
        node_id, trajectory = cls.hidden.unique_id, inversion.trajectory
        size = trajectory.picture_size
        image = picture_for(image, trajectory.batch, size)
        soft = _edit_map(model, inversion, positive, evaluations, node_id)
        if image is not None:
            soft = refined(soft[:, None], image, size)[:, 0]
        level = None if auto_threshold else threshold
        region = shaped(masks.threshold(soft, level), size, level != 0, grow, blur)
        if mask is not None:
            mask = host.fit_mask(mask, trajectory.batch, size, node_id)
        region = with_own(region, mask, combine, node_id)
        drawn = heatmap(masks.enlarge(soft, size), region, image)
        return io.NodeOutput(region, drawn, ui=ui.PreviewImage(drawn, cls=cls))


def _edit_map(model, inversion: Inversion, positive: list, evaluations: int, node_id: str | None) -> Tensor:
    """How much the predictions differ, [B, h, w] in 0..1. Raises ValueError for inputs that do not fit."""
    trajectory = inversion.trajectory
    grid = trajectory.grid
    if not positive:
        raise ValueError("positive is empty: connect the target prompt of the edit")
    if host.fingerprint(positive) == trajectory.fingerprint:
        raise ValueError(
            "positive is the source prompt itself, so that no edit acts anywhere: connect the target prompt"
        )
    if evaluations > grid.steps:
        raise ValueError(
            f"evaluations is {evaluations}, and the inversion has {grid.steps} steps: ask at most at each"
        )
    if host.needs_negative(model):
        raise ValueError(
            "what is patched into this model (such as Self-Attention Guidance) asks for a negative prompt, "
            "which this node has not: connect the model from before the patch"
        )
    host.check_same_model(model, trajectory.signature, node_id)
    host.check_covered(positive, "the target prompt", node_id)
    host.check_same_picture(inversion.positive, positive, node_id)
    host.check_same_encoder(inversion.positive, positive)
    known = keeps_answers(trajectory)
    branches = [host.Branch(TARGET, positive, None, 1.0)]
    if not known:
        branches = [host.Branch(host.SOURCE, inversion.positive, None, 1.0), *branches]
    chosen, tick = spread_steps(grid.steps, evaluations), host.progress(model, evaluations)

    def loop(network: host.Network, latent: Tensor) -> Tensor:
        def ask(x: Tensor, sigma: float) -> list[Tensor]:
            found = network({branch.name: x.to(latent) for branch in branches}, sigma)
            tick(x, found[TARGET])
            return [found[branch.name].cpu() for branch in branches]

        if known:
            return by_trajectory(trajectory, chosen, lambda x, sigma: ask(x, sigma)[0])
        return by_both(trajectory, chosen, ask)

    return host.sample(model, branches, trajectory.source, grid.levels, 0, loop, len(branches))


NODES = [EtaEditMask]
