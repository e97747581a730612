"""The pack's nodes, by subject; each file ends in its NODES."""

from comfy_api.latest import ComfyExtension, io

from . import inversion_nodes, mask_nodes, sampler_nodes, schedule_nodes


class EtaInversionExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [*inversion_nodes.NODES, *schedule_nodes.NODES, *mask_nodes.NODES, *sampler_nodes.NODES]
