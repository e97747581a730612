"""EtaSchedule: eta over time, as a value."""

from __future__ import annotations

from comfy_api.latest import io

from ..eta_core.eta import EtaSchedule as Schedule
from ..eta_core.eta import flow_gentle, flow_strong, paper_gentle, paper_strong, parse_curve
from .types import CATEGORY, EtaNode, EtaSocket, schema

PRESETS = {
    "paper_strong": lambda low, high, power, curve: paper_strong(),
    "paper_gentle": lambda low, high, power, curve: paper_gentle(),
    "flow_strong": lambda low, high, power, curve: flow_strong(),
    "flow_gentle": lambda low, high, power, curve: flow_gentle(),
    "linear": lambda low, high, power, curve: Schedule((low, high)),
    "constant": lambda low, high, power, curve: Schedule((high,)),
    "cosine": lambda low, high, power, curve: Schedule((low, high), shape="cosine"),
    "custom": lambda low, high, power, curve: Schedule(
        parse_curve(curve) if curve.strip() else (low, high), power
    ),
}


def _unit(name: str, default: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.01, tooltip=tooltip)


class EtaSchedule(EtaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EtaSchedule",
            display_name="Eta Schedule",
            category=CATEGORY,
            search=(
                "eta curve",
                "noise schedule",
                "eta over time",
            ),
            description="How much fresh noise each sampling step brings in. More eta: more edit. "
            "(In RF-Inversion a higher eta means the opposite, more faithful to the source.)",
            inputs=[
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    tooltip=(
                        "paper_strong: (t 0.6, eta 0) to (1, 0.7), for changes of shape. paper_gentle: (0.3, "
                        "0) to (1, 0.2), for changes of look. On a flow model both are read in its own time; "
                        "flow_strong and flow_gentle are the same curves at the flow's times of the same "
                        "noise: (0.695, 0) to (0.936, 0.7) and (0.454, 0) to (0.936, 0.2). All four ignore "
                        "the fields below. linear and cosine run from start to end, constant is end_eta "
                        "everywhere, custom takes power and the curve."
                    ),
                ),
                _unit(
                    "start_t",
                    0.0,
                    "Time where the curve starts; 0 = image, 1 = noise. Before it eta stays at start_eta. "
                    "Paper: 0.3 to 0.6.",
                ),
                _unit("start_eta", 0.0, "Eta at start_t. 0 = no fresh noise (Direct Inversion). Paper: 0."),
                _unit("end_t", 1.0, "Time where the curve ends; after it eta stays at end_eta. Paper: 1."),
                _unit(
                    "end_eta",
                    0.4,
                    "Eta at end_t. 0 = no fresh noise, 1 = as much as DDPM. Paper: 0.2 to 0.7; its program's "
                    "default is 0.4.",
                ),
                io.Float.Input(
                    "power",
                    default=1.0,
                    min=0.05,
                    max=10.0,
                    step=0.05,
                    tooltip=(
                        "Bend of the custom curve between its points; 1 = straight (paper), above 1 = eta "
                        "falls sooner towards the image."
                    ),
                ),
                io.String.Input(
                    "curve",
                    default="",
                    optional=True,
                    tooltip=(
                        "Points t:eta of the custom curve, for example 0.6:0, 1:0.7. Empty = the two points "
                        "above. Other presets do not read it."
                    ),
                ),
            ],
            outputs=[EtaSocket.Output(display_name="eta", tooltip="Eta over time, for EtaSampler.")],
        )

    @classmethod
    def execute(
        cls,
        preset: str,
        start_t: float,
        start_eta: float,
        end_t: float,
        end_eta: float,
        power: float,
        curve: str = "",
    ) -> io.NodeOutput:
        return io.NodeOutput(PRESETS[preset]((start_t, start_eta), (end_t, end_eta), power, curve))


NODES = [EtaSchedule]
