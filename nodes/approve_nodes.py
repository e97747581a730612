"""EtaApprove: a person looks, and says what goes on."""

from __future__ import annotations

import math

import torch
from comfy_api.latest import io
from torch import Tensor

from ..eta_core.evidence.metrics import METRICS
from ..eta_core.evidence.report import report_of_json
from . import host, preview
from .types import CATEGORY, EtaNode, schema

APPROVE, REJECT = "approve", "reject"
DAY = 24 * 60 * 60
TOLD = (
    "background_psnr",
    "background_mean_difference",
    "background_differing",
    "changed_area",
    "clip_similarity",
)


class EtaApprove(EtaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EtaApprove",
            display_name="Approve Edit",
            category=CATEGORY,
            search=("human in the loop", "pause", "confirm", "review", "pick images", "choose images"),
            description=(
                "Waits on the page until a person approves, rejects, or picks some of a batch. Rejected "
                "pictures do not go on."
            ),
            inputs=[
                io.Image.Input("before", tooltip="The picture that was edited."),
                io.Image.Input(
                    "after",
                    tooltip=(
                        "What is decided on: the edited picture or a batch of them. AttentionMask's heatmap "
                        "asks about the region before sampling is paid for."
                    ),
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip=(
                        "The region, shown in the pictures. It can be redrawn in the host's mask editor, and "
                        "goes on as redrawn."
                    ),
                ),
                io.String.Input(
                    "figures",
                    force_input=True,
                    optional=True,
                    tooltip="EtaMetrics' figures, shown under the pictures.",
                ),
                io.Float.Input(
                    "time_limit",
                    default=900.0,
                    min=0.0,
                    max=float(DAY),
                    step=1.0,
                    optional=True,
                    tooltip=(
                        "Seconds an answer is waited for; 0 = for ever. The server's queue stands still "
                        "meanwhile."
                    ),
                ),
                io.Combo.Input(
                    "without_answer",
                    options=[REJECT, APPROVE],
                    default=REJECT,
                    optional=True,
                    tooltip=(
                        "What is done after time_limit, and where no page waits for the run (a script). "
                        "reject holds everything back, approve lets everything on unseen."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image", tooltip="Those of `after` that were approved, unchanged."
                ),
                io.Mask.Output(
                    display_name="mask", tooltip="The region of the approved pictures, redrawn where it was."
                ),
                io.String.Output(display_name="decision", tooltip="approve or reject."),
                io.String.Output(
                    display_name="reason", tooltip="Who decided, and how much of the batch goes on."
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> float:
        """Every run asks anew, and an old answer approves nothing.

        A new object each time: the host's cache takes math.nan for the value it has seen before.
        """
        return float("nan")

    @classmethod
    def execute(
        cls, before, after, mask=None, figures=None, time_limit=900.0, without_answer=REJECT
    ) -> io.NodeOutput:
        node_id, size = cls.hidden.unique_id, (after.shape[1], after.shape[2])
        before = host.beside_edited(after, before, "before", node_id)
        if mask is not None:
            mask = host.beside(host.stacked(mask), len(after), "mask")
            mask = host.fit_mask(mask, len(after), size, node_id).expand(len(after), -1, -1)
        shown = {
            "pictures": _views(before[..., :3].expand(len(after), -1, -1, -1), after, mask),
            "figures": _lines(figures, len(after)),
            "count": len(after),
        }
        answer = host.approvals.ask(shown, len(after), size, time_limit, node_id)
        chosen, reason = _decided(answer, len(after), time_limit, without_answer)
        decision = APPROVE if chosen else REJECT
        said = {"decision": decision, "reason": reason, "how": answer.how}
        if not chosen:
            # A person knows what he rejected; what nobody has seen is said on the nodes behind.
            held = host.blocked(None if answer.how == host.approvals.ANSWERED else f"held back: {reason}")
            return io.NodeOutput(held, held, decision, reason, ui={"eta_approve": [said]})
        region = (
            host.blocked("connect the region to EtaApprove's mask")
            if mask is None
            else torch.stack([answer.masks.get(i, mask[i]) for i in chosen])
        )
        return io.NodeOutput(after[list(chosen)], region, decision, reason, ui={"eta_approve": [said]})


def _decided(
    answer: host.approvals.Answer, count: int, time_limit: float, without_answer: str
) -> tuple[tuple[int, ...], str]:
    """The pictures that go on, and the reason in words."""
    if answer.how == host.approvals.ANSWERED:
        count_redrawn = len(answer.masks)
        redrawn = f", {count_redrawn} region{'s' * (count_redrawn > 1)} redrawn" if count_redrawn else ""
        if not answer.chosen:
            return (), "rejected by a person"
        return answer.chosen, f"approved by a person: {len(answer.chosen)} of {count} pictures{redrawn}"
    why = (
        "no page waits for this run"
        if answer.how == host.approvals.NOBODY
        else f"nobody answered within {time_limit:g} s"
    )
    chosen = tuple(range(count)) if without_answer == APPROVE else ()
    return chosen, f"{why}; without_answer says {without_answer}"


def _views(before: Tensor, after: Tensor, mask: Tensor | None) -> dict[str, list]:
    """before, after, and `region`: the picture before, transparent where the mask is, as the mask editor
    wants it.
    """
    views = {"before": preview.show(before), "after": preview.show(after)}
    if mask is not None:
        views["region"] = preview.show_holes(before, mask)
    return views


def _lines(figures: str | None, count: int) -> list[str]:
    """A line of figures for each picture."""
    if figures is None:
        return []
    report = report_of_json(figures)
    if len(report.pictures) != count:
        raise ValueError(
            f"after has {count} pictures, the figures {len(report.pictures)}: connect the pictures that "
            "EtaMetrics measured"
        )
    return [
        ", ".join(
            f"{METRICS[name].label} {METRICS[name](value)}"
            for name in TOLD
            if not math.isnan(value := picture.get(name, math.nan))
        )
        for picture in report.pictures
    ]


NODES = [EtaApprove]
