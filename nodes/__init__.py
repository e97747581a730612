"""The pack's nodes, by subject; each file ends in its NODES."""

from comfy_api.latest import ComfyExtension, io

from . import (
    approve_nodes,
    compare_nodes,
    edit_mask_nodes,
    evidence_nodes,
    flow_edit_nodes,
    inversion_nodes,
    mask_nodes,
    method_nodes,
    picture_nodes,
    prompt_nodes,
    sampler_nodes,
    save_nodes,
    schedule_nodes,
    target_words_nodes,
    tune_nodes,
)


class EtaInversionExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        modules = (
            inversion_nodes,
            schedule_nodes,
            mask_nodes,
            edit_mask_nodes,
            sampler_nodes,
            flow_edit_nodes,
            prompt_nodes,
            method_nodes,
            target_words_nodes,
            compare_nodes,
            evidence_nodes,
            approve_nodes,
            picture_nodes,
            save_nodes,
            tune_nodes,
        )
        return [node for module in modules for node in module.NODES]
