// @ts-check
/** The pack's warnings as toasts; they also stand on their node and in the log. */
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { say } from "./shared/words.js";

const LIFE_MS = 12_000;

/** @param {CustomEvent<{ node: string | null, text: string }>} event */
function warn({ detail: { node, text } }) {
    const title = node === null ? null : app.graph.getNodeById(/** @type {any} */ (node))?.title;
    app.extensionManager.toast.add({ severity: "warn", summary: title ?? say("pack"), detail: text, life: LIFE_MS });
}

app.registerExtension({
    name: "eta-inversion.messages",
    setup() {
        api.addEventListener(/** @type {any} */ ("eta-inversion.warning"), /** @type {any} */ (warn));
    },
});
