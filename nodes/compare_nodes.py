"""EtaCompare: an edit beside its source."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..eta_core.eta import EtaSchedule
from . import host, preview
from .plot import line_plot
from .types import CATEGORY, EtaNode, EtaSocket, Inversion, InversionSocket, schema

POINTS = 101  # of a curve that is drawn without an inversion


class EtaCompare(EtaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EtaCompare",
            display_name="Eta Compare",
            category=CATEGORY,
            search=(
                "before after",
                "image slider",
                "image difference",
                "compare images",
            ),
            description=(
                "The picture before and after the edit under a slider, what changed, the reconstruction, and "
                "eta over time."
            ),
            inputs=[
                io.Image.Input("before", tooltip="The picture that was edited."),
                io.Image.Input(
                    "after", tooltip="The edited picture. Variants of one picture may be a batch."
                ),
                io.Float.Input(
                    "gain",
                    default=4.0,
                    min=1.0,
                    max=64.0,
                    step=0.5,
                    tooltip=(
                        "Brightness of the difference; 1 = as it is (neutral). 4 shows changes of 1 in 64."
                    ),
                ),
                io.Image.Input(
                    "reconstruction",
                    optional=True,
                    tooltip="EtaSampler's reconstruction, decoded: what the VAE alone has changed.",
                ),
                EtaSocket.Input("eta", optional=True, tooltip="Draws eta over time."),
                InversionSocket.Input(
                    "inversion", optional=True, tooltip="Draws the steps of this inversion on eta."
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="difference", tooltip="Absolute difference of after and before, times gain."
                )
            ],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        before: Tensor,
        after: Tensor,
        gain: float,
        reconstruction: Tensor | None = None,
        eta: EtaSchedule | None = None,
        inversion: Inversion | None = None,
    ) -> io.NodeOutput:
        others = {"before": before} | ({} if reconstruction is None else {"reconstruction": reconstruction})
        fitted = {
            name: host.beside_edited(after, picture, name, cls.hidden.unique_id)
            for name, picture in others.items()
        }
        difference = ((after[..., :3] - fitted["before"]).abs() * gain).clamp(0, 1)
        pictures = fitted | {"after": after, "difference": difference}
        if eta is not None:
            times = (
                [i / (POINTS - 1) for i in range(POINTS)]
                if inversion is None
                else inversion.trajectory.grid.times
            )
            pictures["eta"] = line_plot(times, [eta(t) for t in times], "time (0 image, 1 noise)", "eta")
        views = {name: preview.show(picture) for name, picture in pictures.items()}
        return io.NodeOutput(difference, ui={"eta_compare": [views]})


NODES = [EtaCompare]
