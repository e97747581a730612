// @ts-check
/** AttentionMask's preview: the prompt's words to click, and the region of those chosen, drawn anew at every change of a field. */
import { app } from "../../../scripts/app.js";
import { coverage, enlarge, extend, join, parsePhrases, regionOf, toggle } from "./shared/region.js";
import { addWidget, after, field, html, linked, load, once, sourceOf, style, write } from "./shared/widget.js";
import { say } from "./shared/words.js";

/** @typedef {import("./shared/region.js").Plane} Plane */
/** @typedef {import("./shared/widget.js").GraphNode} GraphNode */
/** @typedef {import("./shared/widget.js").Saved} Saved */

/** What the node sends when it has run.
 * @typedef {{
 *   words: string[], texts: string[], phrases: string[], map_size: [number, number], picture_size: [number, number],
 *   picture: Saved | null, mask: Saved | null, sheet: Saved, columns: number, fields: Record<string, string | number | boolean>,
 * }} View
 * `fields` are the values of the run; those that come by a link are known from there alone.
 */

const FIELDS = ["words", "threshold", "grow", "blur", "invert", "combine", "auto_threshold"];
const HEIGHT = 260;
const LARGEST = 320; // pixels of the longer side: small enough to follow a slider
// The colours of nodes/overlay.py.
const RAMP = [
    [13, 8, 77],
    [128, 13, 153],
    [237, 89, 64],
    [252, 204, 51],
    [255, 255, 217],
];

/** @param {number} value in 0..1 @returns {number[]} */
function colour(value) {
    const place = Math.min(Math.max(value, 0), 1) * (RAMP.length - 1);
    const low = Math.min(Math.floor(place), RAMP.length - 2);
    return RAMP[low].map((from, i) => from + (RAMP[low + 1][i] - from) * (place - low));
}

/** The red channel of a part of a picture, 0..1, drawn at a size.
 * @param {CanvasImageSource} image
 * @param {[number, number, number, number]} part x, y, width, height
 * @param {[number, number]} size width, height
 * @returns {Plane}
 */
function read(image, part, [width, height]) {
    const canvas = html("canvas", { width, height });
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
    context.drawImage(image, ...part, 0, 0, width, height);
    const { data } = context.getImageData(0, 0, width, height);
    return { width, height, values: Float32Array.from({ length: width * height }, (_, i) => data[4 * i] / 255) };
}

class Preview {
    /** @param {GraphNode} node */
    constructor(node) {
        this.node = node;
        this.chips = html("div", { className: "eta-chips" });
        this.canvas = html("canvas", { width: 1, height: 1, hidden: true });
        this.line = html("div", { className: "eta-line", role: "status" });
        this.element = html("div", { className: "eta-attention" }, this.chips, this.canvas, this.line);
        /** @type {{ view: View, maps: Map<string, Plane>, drawn: { width: number, height: number, scale: number, mask: Plane | null } } | null} */
        this.shown = null;
        /** @type {HTMLImageElement | null} */
        this.picture = null;
        this.due = 0;
        this.chips.addEventListener("click", (event) => this.choose(event));
        this.chips.addEventListener("pointerdown", (event) => event.stopPropagation());
        this.element.addEventListener("pointerenter", () => this.changed());
        for (const name of FIELDS) after(field(node, name), "callback", () => this.changed());
        this.changed();
    }

    end() {
        cancelAnimationFrame(this.due);
    }

    /** Draws once, however many fields have changed. */
    changed() {
        cancelAnimationFrame(this.due);
        this.due = requestAnimationFrame(() => this.draw());
    }

    /** @param {View} view */
    async show(view) {
        const [sheet, picture, mask] = await Promise.all(
            [view.sheet, view.picture, view.mask].map((saved) => (saved ? load(saved) : null)),
        );
        const [rows, columns] = view.map_size;
        const [tall, wide] = view.picture_size;
        const scale = Math.min(1, LARGEST / Math.max(tall, wide));
        const [width, height] = [Math.round(wide * scale), Math.round(tall * scale)];
        const maps = new Map(
            view.phrases.map((phrase, i) => {
                const [x, y] = [(i % view.columns) * columns, Math.floor(i / view.columns) * rows];
                return [phrase, read(/** @type {HTMLImageElement} */ (sheet), [x, y, columns, rows], [columns, rows])];
            }),
        );
        const whole = mask && read(mask, [0, 0, mask.naturalWidth, mask.naturalHeight], [width, height]);
        this.picture = picture;
        this.shown = { view, maps, drawn: { width, height, scale, mask: whole } };
        this.canvas.width = width;
        this.canvas.height = height;
        this.changed();
    }

    /** The text that the source prompt is encoded from; empty where the page does not know it. */
    get text() {
        const encoder = sourceOf(sourceOf(this.node, "inversion"), "positive");
        const texts = encoder?.widgets?.filter((widget) => /^(text|source_prompt|text_g)$/.test(widget.name)) ?? [];
        const [text] = encoder && linked(encoder, texts.map(({ name }) => name)).length ? [] : texts;
        return typeof text?.value === "string" ? text.value : "";
    }

    /** The words to offer: those of the last run, or of the text where that has changed. */
    get words() {
        const { text } = this;
        if (this.shown && (!text || this.shown.view.texts.includes(text))) return this.shown.view.words;
        return [...new Set(text.toLowerCase().match(/[\p{L}\p{N}'-]+/gu) ?? [])];
    }

    /** @param {MouseEvent} event */
    choose(event) {
        const chip = event.target instanceof Element ? event.target.closest("button") : null;
        if (!chip) return;
        event.stopPropagation();
        const words = field(this.node, "words").value;
        const change = event.shiftKey ? extend : toggle;
        once(() => write(this.node, { words: change(words, chip.textContent ?? "") }));
        this.changed();
    }

    draw() {
        const given = linked(this.node, FIELDS);
        const { fields } = this.shown?.view ?? {};
        const valueOf = (/** @type {string} */ name) => (given.includes(name) ? fields?.[name] : field(this.node, name).value);
        const values = Object.fromEntries(FIELDS.map((name) => [name, valueOf(name)]));
        const phrases = parsePhrases(String(values.words ?? ""));
        this.offer(new Set(phrases.map(({ text }) => text)), given.includes("words"));
        const soft = this.shown ? join(this.shown.maps, phrases) : null;
        this.canvas.hidden = !soft;
        if (!this.shown || !soft) {
            const why = !this.shown ? "firstRun" : phrases.length ? "newWords" : "noWords";
            this.line.textContent = say(why);
            return;
        }
        const { drawn } = this.shown;
        const region = regionOf(soft, /** @type {any} */ (values), drawn);
        this.paint(enlarge(soft, drawn.width, drawn.height, false), region);
        this.line.textContent = say("covers", (100 * coverage(region)).toFixed(1));
    }

    /** @param {Set<string>} chosen @param {boolean} fixed */
    offer(chosen, fixed) {
        const { words } = this;
        const chips = [...this.chips.querySelectorAll("button")];
        if (chips.map((chip) => chip.textContent).join("\n") !== words.join("\n"))
            this.chips.replaceChildren(...words.map((word) => html("button", { type: "button", textContent: word, title: say("chip") })));
        for (const chip of this.chips.querySelectorAll("button")) {
            const word = chip.textContent ?? "";
            const within = [...chosen].some((phrase) => phrase !== word && phrase.split(" ").includes(word));
            chip.setAttribute("aria-pressed", chosen.has(word) ? "true" : within ? "mixed" : "false");
            chip.disabled = fixed;
        }
    }

    /** The picture in grey under the attention, the region's edge in white.
     * @param {Plane} soft
     * @param {Plane} region
     */
    paint(soft, region) {
        const { width, height } = soft;
        const context = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d", { willReadFrequently: true }));
        context.fillStyle = "#666";
        context.fillRect(0, 0, width, height);
        if (this.picture) {
            context.filter = "grayscale(1)";
            context.drawImage(this.picture, 0, 0, width, height);
            context.filter = "none";
        }
        const drawn = context.getImageData(0, 0, width, height);
        const inside = (/** @type {number} */ x, /** @type {number} */ y) =>
            x >= 0 && y >= 0 && x < width && y < height ? region.values[y * width + x] > 0.5 : true;
        for (let y = 0; y < height; y++) {
            for (let x = 0; x < width; x++) {
                const i = y * width + x;
                const edge = inside(x, y) && ![inside(x - 1, y), inside(x + 1, y), inside(x, y - 1), inside(x, y + 1)].every(Boolean);
                const share = 0.15 + 0.6 * soft.values[i];
                colour(soft.values[i]).forEach((part, c) => {
                    drawn.data[4 * i + c] = edge ? 255 : drawn.data[4 * i + c] * (1 - share) + part * share;
                });
            }
        }
        context.putImageData(drawn, 0, 0);
    }
}

app.registerExtension({
    name: "eta-inversion.attention",
    setup() {
        style(`
.eta-attention { display: flex; flex-direction: column; gap: 6px; height: 100%; min-height: ${HEIGHT}px; font: 12px sans-serif; color: var(--input-text, #ddd); }
.eta-attention canvas { flex: 1 1 180px; height: 180px; min-height: 0; width: 100%; object-fit: contain; }
.eta-attention canvas[hidden] { display: none; }
.eta-chips { display: flex; flex-wrap: wrap; gap: 4px; max-height: 84px; overflow-y: auto; }
.eta-chips button { padding: 2px 9px; border: 1px solid var(--border-color, #555); border-radius: 10px; font: inherit; cursor: pointer;
    color: inherit; background: var(--comfy-input-bg, #222); }
.eta-chips button[aria-pressed="true"] { color: #222; background: #f0b040; border-color: #f0b040; }
.eta-chips button[aria-pressed="mixed"] { border-color: #f0b040; }
.eta-chips button:disabled { cursor: default; opacity: 0.6; }
.eta-line { opacity: 0.8; }`);
    },
    /** @param {any} node */
    nodeCreated(node) {
        if (node.comfyClass !== "AttentionMask") return;
        const preview = new Preview(node);
        addWidget(node, "eta_attention", preview.element, HEIGHT);
        after(node, "onExecuted", (output) => {
            // Pictures of a run that the server has forgotten are not shown.
            if (output?.eta_attention) preview.show(output.eta_attention[0]).catch(() => {});
        });
        after(node, "onConfigure", () => preview.changed());
        after(node, "onConnectionsChange", () => preview.changed());
        after(node, "onRemoved", () => preview.end());
    },
});
