// @ts-check
/** What a node has shown, shown again where the page makes its nodes anew: after undo, in another tab of workflows, for a job of the queue. */
import { app } from "../../../scripts/app.js";
import { nodeAt } from "./shared/widget.js";

const KINDS = ["AttentionMask", "EtaApprove", "EtaCompare", "EtaSampler"];

/** Those of this pack's nodes.
 * @param {Record<string, object>} outputs by address
 */
function ours(outputs) {
    return Object.entries(outputs).filter(([address]) => KINDS.includes(nodeAt(address)?.comfyClass));
}

/** @param {Record<string, object>} outputs */
function show(outputs) {
    for (const [address, output] of ours(outputs)) nodeAt(address).onExecuted(output);
}

/** What was shown when the nodes were made anew.
 * @type {Record<string, object>}
 */
let before = {};

app.registerExtension({
    name: "eta-inversion.outputs",
    afterConfigureGraph() {
        before = app.nodeOutputs;
        show(before);
    },
    /** @param {Record<string, object>} outputs empty where another workflow is opened */
    onNodeOutputsUpdated(outputs) {
        // What comes before the answer to the page's request, as out of the server's cache, the page does not keep.
        if (Object.keys(outputs).length) for (const [address, output] of ours(before)) outputs[address] ??= output;
        before = {};
        show(outputs);
    },
});
