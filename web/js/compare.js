// @ts-check
/** EtaCompare: before and after under a slider, the difference, the reconstruction, eta over time. */
import { app } from "../../../scripts/app.js";
import { addWidget, address, after, html, style } from "./shared/widget.js";
import { say } from "./shared/words.js";

/** @typedef {import("./shared/widget.js").GraphNode} GraphNode */
/** @typedef {import("./shared/widget.js").Saved} Saved */
/** @typedef {Partial<Record<"before" | "after" | "difference" | "reconstruction" | "eta", Saved[]>>} Views */

const HEIGHT = 380;
const TABS = /** @type {const} */ (["slider", "difference", "reconstruction", "eta"]);

class Comparison {
    constructor() {
        this.tabs = html("div", { className: "eta-tabs", role: "tablist" });
        this.under = html("img", { alt: say("after"), draggable: false });
        this.over = html("img", { alt: say("before"), draggable: false });
        this.handle = html("div", { className: "eta-handle" });
        this.frame = html("div", { className: "eta-frame" }, this.under, this.over, this.handle);
        this.slider = html("input", { type: "range", min: "0", max: "100", step: "1", value: "50", ariaLabel: say("slider") });
        this.previous = html("button", { type: "button", textContent: "‹", title: say("previous") });
        this.number = html("span");
        this.next = html("button", { type: "button", textContent: "›", title: say("next") });
        this.turn = html("span", { className: "eta-turn" }, this.previous, this.number, this.next);
        this.line = html("div", { className: "eta-line" }, say("notRun"));
        const below = html("div", { className: "eta-below" }, this.slider, this.turn);
        this.element = html("div", { className: "eta-compare" }, this.tabs, this.frame, below, this.line);
        /** @type {Views} */
        this.views = {};
        this.tab = "slider";
        this.at = 0;
        this.slider.addEventListener("input", () => this.slide());
        this.frame.addEventListener("pointermove", (event) => this.point(event));
        this.previous.addEventListener("click", () => this.go(-1));
        this.next.addEventListener("click", () => this.go(1));
        this.tabs.addEventListener("click", (event) => this.choose(event));
        this.element.addEventListener("pointerdown", (event) => event.stopPropagation());
        this.draw();
    }

    /** @param {Views} views */
    show(views) {
        this.views = views;
        this.at = Math.max(0, Math.min(this.at, this.count - 1));
        if (this.tab !== "slider" && !(this.tab in views)) this.tab = "slider";
        this.draw();
    }

    get count() {
        return this.views.after?.length ?? 0;
    }

    /** @param {number} by */
    go(by) {
        this.at = (this.at + by + this.count) % this.count;
        this.draw();
    }

    /** @param {MouseEvent} event */
    choose(event) {
        const tab = event.target instanceof HTMLElement ? event.target.dataset.tab : undefined;
        if (!tab) return;
        this.tab = tab;
        this.draw();
    }

    /** @param {PointerEvent} event */
    point(event) {
        if (this.tab !== "slider" || !this.count) return;
        const box = this.under.getBoundingClientRect();
        const { left, width } = inside(this.under, box);
        this.slider.value = String(Math.round((100 * (event.clientX - left)) / width));
        this.slide();
    }

    /** Cuts the picture before at the slider's place. */
    slide() {
        const share = Number(this.slider.value) / 100;
        const box = { left: 0, top: 0, width: this.under.clientWidth, height: this.under.clientHeight };
        const { left, top, width, height } = inside(this.under, box);
        const edge = left + share * width;
        this.over.style.clipPath = `inset(0 ${Math.max(0, box.width - edge)}px 0 0)`;
        Object.assign(this.handle.style, { left: `${edge}px`, top: `${top}px`, height: `${height}px` });
    }

    /** @param {keyof Views} view */
    of(view) {
        const shown = this.views[view] ?? [];
        const saved = shown[Math.min(this.at, shown.length - 1)];
        return saved ? address(saved) : "";
    }

    draw() {
        const some = this.count > 0;
        const sliding = this.tab === "slider";
        const open = TABS.filter((tab) => tab === "slider" || tab in this.views);
        const buttons = open.map((tab) => {
            const button = html("button", { type: "button", role: "tab", textContent: say(`tab_${tab}`), ariaSelected: String(tab === this.tab) });
            button.dataset.tab = tab;
            return button;
        });
        this.tabs.replaceChildren(...(some ? buttons : []));
        this.frame.hidden = !some;
        this.line.hidden = some;
        this.slider.hidden = !some || !sliding;
        this.over.hidden = this.handle.hidden = !sliding;
        this.turn.hidden = this.count < 2;
        this.number.textContent = `${this.at + 1} / ${this.count}`;
        if (!some) return;
        this.under.onload = () => this.slide();
        this.under.src = sliding ? this.of("after") : this.of(/** @type {keyof Views} */ (this.tab));
        if (sliding) this.over.src = this.of("before");
        this.slide();
    }
}

/** Where a picture with object-fit: contain lies in its box.
 * @param {HTMLImageElement} image
 * @param {{ left: number, top: number, width: number, height: number }} box
 */
function inside(image, { left, top, width, height }) {
    const scale = Math.min(width / (image.naturalWidth || 1), height / (image.naturalHeight || 1));
    const [w, h] = [scale * (image.naturalWidth || 1), scale * (image.naturalHeight || 1)];
    return { left: left + (width - w) / 2, top: top + (height - h) / 2, width: w, height: h };
}

app.registerExtension({
    name: "eta-inversion.compare",
    setup() {
        style(`
.eta-compare { display: flex; flex-direction: column; gap: 6px; height: 100%; min-height: ${HEIGHT}px; font: 12px sans-serif; color: var(--input-text, #ddd); }
.eta-compare [hidden] { display: none !important; }
.eta-tabs, .eta-below, .eta-turn { display: flex; gap: 4px; align-items: center; }
.eta-below input { flex: 1; min-width: 0; accent-color: #f0b040; }
.eta-compare button { padding: 2px 9px; border: 1px solid var(--border-color, #555); border-radius: 6px; font: inherit; cursor: pointer; color: inherit;
    background: var(--comfy-input-bg, #222); }
.eta-compare button[aria-selected="true"] { color: #222; background: #f0b040; border-color: #f0b040; }
.eta-frame { position: relative; flex: 1; min-height: 0; overflow: hidden; }
.eta-frame img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; user-select: none; }
.eta-handle { position: absolute; width: 2px; margin-left: -1px; background: #fff; box-shadow: 0 0 3px #000; pointer-events: none; }`);
    },
    /** @param {any} node */
    nodeCreated(node) {
        if (node.comfyClass !== "EtaCompare") return;
        const comparison = new Comparison();
        addWidget(node, "eta_compare", comparison.element, HEIGHT);
        const watcher = new ResizeObserver(() => comparison.slide());
        watcher.observe(comparison.frame);
        after(node, "onExecuted", (output) => {
            if (output?.eta_compare) comparison.show(output.eta_compare[0]);
        });
        after(node, "onRemoved", () => watcher.disconnect());
    },
});
