// @ts-check
/** The pack's own widgets in a node: made, followed, written to, and taken away again. */
import { api } from "../../../../scripts/api.js";
import { app } from "../../../../scripts/app.js";

/** What the page tells of a node of LiteGraph; only what is used here.
 * @typedef {{
 *   id: number | string, comfyClass: string, title: string, size: [number, number], graph: any,
 *   widgets: Field[], inputs: { name: string, link: number | null }[], outputs: { links: number[] | null }[],
 *   computeSize: () => [number, number], setSize: (size: [number, number]) => void, setDirtyCanvas: (a: boolean, b: boolean) => void,
 *   getInputNode: (slot: number) => GraphNode | null,
 *   addDOMWidget: (name: string, type: string, element: HTMLElement, options: object) => Field,
 * } & Record<string, any>} GraphNode
 * @typedef {{ name: string, value: any, serialize?: boolean, callback?: (...values: any[]) => any, computeLayoutSize?: any }} Field
 * @typedef {{ filename: string, subfolder: string, type: string }} Saved
 */

/** Puts an element into a node as a widget without a value: the node's fields keep what it shows.
 * @param {GraphNode} node
 * @param {string} name
 * @param {HTMLElement} element
 * @param {number} height the least, in pixels
 */
export function addWidget(node, name, element, height) {
    const widget = node.addDOMWidget(name, name, element, { serialize: false, hideOnZoom: false, getMinHeight: () => height });
    widget.serialize = false;
    // Undo makes the nodes anew, and the page's Nodes 2.0 go on showing the old node's element.
    const replace = () => {
        const shown = document.querySelector(`[data-node-id="${node.id}"] .${element.className}`);
        if (node.graph === app.canvas.graph && shown !== element) shown?.replaceWith(element);
    };
    after(node, "onConfigure", () => requestAnimationFrame(replace));
    node.setSize([Math.max(node.size[0], 300), Math.max(node.size[1], node.computeSize()[1])]);
}

/** The node of an address such as "12", or "7:12" and "<id of the subgraph>:12" inside a subgraph.
 * @param {string} address
 */
export function nodeAt(address) {
    const steps = address.split(":");
    const last = steps.pop();
    let graph = app.graph;
    for (const step of steps) graph = graph?.subgraphs?.get(step) ?? graph?.getNodeById(step)?.subgraph;
    return graph?.getNodeById(last);
}

/** Calls `then` after whatever a node's hook does already.
 * @param {any} owner
 * @param {string} hook
 * @param {(...values: any[]) => void} then
 */
export function after(owner, hook, then) {
    const theirs = owner[hook];
    owner[hook] = function (/** @type {any[]} */ ...values) {
        const answer = theirs?.apply(this, values);
        then(...values);
        return answer;
    };
}

/** @param {GraphNode} node @param {string} name */
export function field(node, name) {
    const found = node.widgets.find((widget) => widget.name === name);
    if (!found) throw new Error(`${node.comfyClass} has no field ${name}`);
    return found;
}

/** Writes into fields as a hand would.
 * @param {GraphNode} node
 * @param {Record<string, any>} values
 */
export function write(node, values) {
    for (const [name, value] of Object.entries(values)) {
        const widget = field(node, name);
        if (widget.value === value) continue;
        widget.value = value;
        widget.callback?.(value);
    }
    node.setDirtyCanvas(true, true);
}

/** One change for the page's undo.
 * @param {() => void} change
 */
export function once(change) {
    app.canvas.emitBeforeChange();
    try {
        change();
    } finally {
        app.canvas.emitAfterChange();
    }
}

/** The node that an input comes from, through reroutes and subgraph ends as far as the page follows them.
 * @param {GraphNode | null} node
 * @param {string} name
 * @returns {GraphNode | null}
 */
export function sourceOf(node, name) {
    if (!node?.graph) return null;
    const slot = node.inputs?.findIndex((input) => input.name === name) ?? -1;
    return slot >= 0 ? node.getInputNode(slot) : null;
}

/** Those of the fields whose value comes by a link, so that the page does not know it.
 * @param {GraphNode} node
 * @param {string[]} names
 */
export function linked(node, names) {
    return node.inputs.filter(({ name, link }) => link !== null && names.includes(name)).map(({ name }) => name);
}

/** A file's name with the page's %date% and %node.widget% filled in, as on the host's own saving nodes.
 * @param {string} name
 */
export function namesFilledIn(name) {
    return /** @type {any} */ (window).comfyAPI?.utils?.applyTextReplacements?.(app, name) ?? name;
}

/** The address of a picture that a node has shown.
 * @param {Saved} saved
 * @param {Record<string, string>} [more] what the host's /view can do with it, such as { channel: "rgb" }
 */
export function address({ filename, subfolder, type }, more = {}) {
    return api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type, ...more })}`);
}

/** By its events: decode() may also refuse a picture that is there, where many are decoded at once.
 * @param {Saved} saved @param {Record<string, string>} [more] as of `address` @returns {Promise<HTMLImageElement>}
 */
export function load(saved, more = {}) {
    return new Promise((resolve, reject) => {
        const image = new Image();
        image.onload = () => resolve(image);
        image.onerror = () => reject(new Error(`${image.src} cannot be shown`));
        image.src = address(saved, more);
    });
}

/** @template {keyof HTMLElementTagNameMap} K
 * @param {K} kind
 * @param {Partial<Record<string, any>>} [properties]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function html(kind, properties = {}, ...children) {
    const element = document.createElement(kind);
    Object.assign(element, properties);
    element.append(...children);
    return element;
}

/** Adds rules to the page once.
 * @param {string} text
 */
export function style(text) {
    document.head.append(html("style", { textContent: text }));
}
