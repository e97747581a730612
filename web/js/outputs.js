// @ts-check
/** What a node has shown, shown again where the page makes its nodes anew: after undo, in another tab of workflows, for a job of the queue. */
import { app } from "../../../scripts/app.js";

const KINDS = ["AttentionMask", "EtaCompare", "EtaSampler"];

/** The node of an address such as "12", or "7:12" and "<id of the subgraph>:12" inside a subgraph.
 * @param {string} address
 */
function nodeAt(address) {
    const steps = address.split(":");
    const last = steps.pop();
    let graph = app.graph;
    for (const step of steps) graph = graph?.subgraphs?.get(step) ?? graph?.getNodeById(step)?.subgraph;
    return graph?.getNodeById(last);
}

app.registerExtension({
    name: "eta-inversion.outputs",
    /** @param {Record<string, object>} outputs */
    onNodeOutputsUpdated(outputs) {
        for (const [address, output] of Object.entries(outputs)) {
            const node = nodeAt(address);
            if (KINDS.includes(node?.comfyClass)) node.onExecuted(output);
        }
    },
});
