// @ts-check
/** The host's mask editor, for a picture that belongs to no node's field. */
import { app } from "../../../../scripts/app.js";
import { load } from "./widget.js";

/** @typedef {import("./widget.js").Saved} Saved */

/** Opens the editor on a picture, whose transparent parts are the mask.
 *
 * The page's command edits the selected node. So a node that stands in no graph is the selected one while the command runs; what the editor
 * saves it writes to that node's `images`.
 * @param {Saved} picture
 * @param {(saved: Saved) => void} saved called with the file that the editor has put into the input folder
 */
export async function redraw(picture, saved) {
    const image = await load(picture);
    const node = Object.assign(new (/** @type {any} */ (window).LiteGraph.LGraphNode)("mask"), { imgs: [image], widgets: [] });
    let images = [picture];
    Object.defineProperty(node, "images", {
        configurable: true,
        enumerable: true,
        get: () => images,
        set(/** @type {Saved[]} */ written) {
            images = written;
            saved(written[0]);
        },
    });
    const { canvas } = app;
    const selected = canvas.selected_nodes;
    canvas.selected_nodes = { [node.id]: node };
    try {
        await app.extensionManager.command.execute("Comfy.MaskEditor.OpenMaskEditor");
    } finally {
        canvas.selected_nodes = selected;
    }
}
