// @ts-check
/**
 * The pack's words in a language that is chosen while the page is open. Two things go wrong there. The page makes its nodes anew before the
 * language's texts have come: here they are made once more. The page of ComfyUI 0.3.75 merges the texts of the packs into a language and loads
 * the language's own over them: here they are merged again. Where all texts are there nothing is done.
 */
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const PAUSE_MS = 50;
const PATIENCE_MS = 10_000;

/** What of the page's vue-i18n is used here.
 * @typedef {{
 *   getLocaleMessage: (language: string) => { nodeDefs?: Record<string, unknown> },
 *   mergeLocaleMessage: (language: string, texts: object) => void,
 * }} Translations
 */

/** The page's translations, or undefined where the page keeps them in another place.
 * @returns {Translations | undefined}
 */
function translations() {
    const root = /** @type {any} */ (document.getElementById("vue-app"));
    const provided = root?.__vue_app__?._context?.provides ?? {};
    const values = Object.getOwnPropertySymbols(provided).map((key) => provided[key]);
    return values.find((value) => value?.global?.mergeLocaleMessage)?.global;
}

/** Waits for the language's own texts, and gives it the packs' where it has lost them.
 * @param {string} language
 * @returns {Promise<boolean>} whether texts were missing, so that nodes made until now lack them
 */
async function restore(language) {
    const known = translations();
    const has = (/** @type {string} */ node) => known?.getLocaleMessage(language).nodeDefs?.[node];
    if (!known || (has("KSampler") && has("EtaSampler"))) return false;
    const texts = (await (await api.fetchApi("/i18n")).json())[language];
    if (!texts?.nodeDefs?.EtaSampler) return false;
    for (let waited = 0; !has("KSampler"); waited += PAUSE_MS) {
        if (waited > PATIENCE_MS) return false;
        await new Promise((done) => setTimeout(done, PAUSE_MS));
    }
    if (!has("EtaSampler")) known.mergeLocaleMessage(language, texts);
    return true;
}

/** A language chosen in the settings.
 * @param {CustomEvent<{ value: string }>} event
 */
async function change(event) {
    if (await restore(event.detail.value)) await app.extensionManager.command.execute("Comfy.RefreshNodeDefinitions");
}

app.registerExtension({
    name: "eta-inversion.languages",
    async init() {
        app.ui.settings.addEventListener("Comfy.Locale.change", change);
        await restore(app.extensionManager.setting.get("Comfy.Locale"));
    },
});
