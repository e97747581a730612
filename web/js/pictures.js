// @ts-check
/** The photographs of the example workflows: put into the input folder when a workflow that names one is opened there without it. */
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { say } from "./shared/words.js";

const SHIPPED = ["eta_cat.webp", "eta_coffee.webp", "eta_coffee_masked.webp", "eta_coffee_edited.webp"];
const LOADER = "LoadImage";

/** @typedef {{ type?: string, widgets_values?: unknown }} SavedNode */
/** @typedef {{ nodes?: SavedNode[], definitions?: { subgraphs?: { nodes?: SavedNode[] }[] } }} SavedGraph */

/** Names of our photographs in a workflow, each once.
 * @param {SavedGraph} graph
 */
function namedIn(graph) {
    const graphs = [graph, ...(graph.definitions?.subgraphs ?? [])];
    const loaders = graphs.flatMap(({ nodes }) => nodes ?? []).filter(({ type }) => type === LOADER);
    const values = loaders.flatMap((node) => Object.values(node.widgets_values ?? {}));
    return SHIPPED.filter((name) => values.includes(name));
}

/** What the server's input folder has. */
async function inputFiles() {
    const info = await (await api.fetchApi(`/object_info/${LOADER}`)).json();
    const [kind, options] = info[LOADER].input.required.image;
    return /** @type {string[]} */ (Array.isArray(kind) ? kind : options.options);
}

/** Hand one to the server, by the host's own way to upload pictures.
 * @param {string} name
 */
async function upload(name) {
    const picture = await fetch(new URL(`../pictures/${name}`, import.meta.url));
    if (!picture.ok) throw new Error(`${picture.status} ${picture.statusText}`);
    const body = new FormData();
    body.append("image", await picture.blob(), name);
    const answer = await api.fetchApi("/upload/image", { method: "POST", body });
    if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
}

/** Names that the page's lists do not have yet.
 * @type {string[]}
 */
let brought = [];

app.registerExtension({
    name: "eta-inversion.pictures",
    /** @param {SavedGraph} graph */
    async beforeConfigureGraph(graph) {
        const named = namedIn(graph);
        if (!named.length) return;
        try {
            const there = await inputFiles();
            brought = named.filter((name) => !there.includes(name));
            await Promise.all(brought.map(upload));
        } catch (error) {
            const detail = say("noPictures", named.join(", "), String(error));
            app.extensionManager.toast.add({ severity: "warn", summary: say("pack"), detail });
        }
    },
    /** @param {{ type: string, widgets?: { name: string, options: { values?: unknown } }[] }} node */
    loadedGraphNode(node) {
        const values = node.type === LOADER && node.widgets?.find(({ name }) => name === "image")?.options.values;
        if (Array.isArray(values)) values.push(...brought.filter((name) => !values.includes(name)));
    },
});
