// @ts-check
/** %date% and %node.widget% in the name of a saved file, as the host's own saving nodes have them. */
import { app } from "../../../scripts/app.js";
import { field, namesFilledIn } from "./shared/widget.js";

const SAVING = ["EtaSaveInversion", "EtaSaveEdited"];

app.registerExtension({
    name: "eta-inversion.names",
    /** @param {any} node */
    nodeCreated(node) {
        if (!SAVING.includes(node.comfyClass)) return;
        const prefix = /** @type {any} */ (field(node, "filename_prefix"));
        prefix.serializeValue = () => namesFilledIn(prefix.value);
    },
});
