// @ts-check
/** EtaApprove: the pictures that wait, and a person's answer, by mouse or by keys. */
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { redraw } from "./shared/mask_editor.js";
import { addWidget, address, after, html, load, nodeAt, style } from "./shared/widget.js";
import { say } from "./shared/words.js";

/** @typedef {import("./shared/widget.js").Saved} Saved */
/** @typedef {{ before: Saved[], after: Saved[], region?: Saved[] }} Pictures */
/** @typedef {{ token: string, node: string, count: number, pictures: Pictures, figures: string[], seconds: number | null }} Question */
/** @typedef {{ decision: "approve" | "reject", reason: string }} Decided */

const HEIGHT = 440;
const ROUTE = "/eta-inversion/approvals";
const TABS = /** @type {const} */ (["after", "before", "region"]);
const ORANGE = "#ff9020";
const LIFE_MS = 8_000;

class Approval {
    constructor() {
        this.tabs = html("div", { className: "eta-tabs", role: "tablist" });
        this.image = html("img", { draggable: false });
        this.canvas = html("canvas", { role: "img", ariaLabel: say("tab_region") });
        this.frame = html("div", { className: "eta-frame" }, this.image, this.canvas);
        this.previous = html("button", { type: "button", textContent: "‹", title: say("previous"), onclick: () => this.go(-1) });
        this.number = html("span");
        this.next = html("button", { type: "button", textContent: "›", title: say("next"), onclick: () => this.go(1) });
        this.pick = html("input", { type: "checkbox", onchange: () => this.toggle() });
        this.picked = html("label", { className: "eta-pick" }, this.pick, say("goesOn"));
        this.turn = html("div", { className: "eta-turn" }, this.previous, this.number, this.next, this.picked);
        this.figures = html("div", { className: "eta-figures" });
        this.yes = html("button", { type: "button", className: "eta-yes", textContent: say("approve"), onclick: () => this.send(true) });
        this.no = html("button", { type: "button", className: "eta-no", textContent: say("reject"), onclick: () => this.send(false) });
        this.edit = html("button", { type: "button", textContent: say("redraw"), onclick: () => this.redraw() });
        this.buttons = html("div", { className: "eta-answers" }, this.yes, this.no, this.edit);
        this.keys = html("div", { className: "eta-keys", textContent: say("approveKeys") });
        this.line = html("div", { className: "eta-line", role: "status", textContent: say("approveIdle") });
        const parts = [this.tabs, this.frame, this.turn, this.figures, this.buttons, this.keys, this.line];
        this.element = html("div", { className: "eta-approve", tabIndex: 0, role: "group", ariaLabel: say("approveAsks") }, ...parts);
        /** @type {Question | null} */
        this.question = null;
        /** @type {Set<number>} */
        this.chosen = new Set();
        /** @type {Map<number, Saved>} */
        this.masks = new Map();
        /** @type {typeof TABS[number]} */
        this.tab = "after";
        this.at = 0;
        this.flicker = false;
        this.clock = 0;
        this.element.addEventListener("keydown", (event) => this.press(event));
        this.element.addEventListener("keyup", (event) => this.release(event));
        this.element.addEventListener("blur", () => this.hold(false));
        this.element.addEventListener("pointerdown", (event) => event.stopPropagation());
        this.tabs.addEventListener("click", (event) => this.choose(event));
        this.draw();
    }

    get open() {
        return this.question !== null;
    }

    /** @param {Question} question */
    ask(question) {
        if (this.question?.token === question.token) return;
        this.question = question;
        this.chosen = new Set(Array.from({ length: question.count }, (_, i) => i));
        this.masks.clear();
        this.at = 0;
        this.tab = "after";
        this.until = question.seconds === null ? null : performance.now() + 1000 * question.seconds;
        clearInterval(this.clock);
        this.clock = setInterval(() => this.tick(), 1000);
        this.tick();
        this.draw();
    }

    tick() {
        const seconds = this.until === null || this.until === undefined ? null : Math.max(0, Math.ceil((this.until - performance.now()) / 1000));
        const left = seconds === null ? "" : ` ${say("approveLeft", `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`)}`;
        // Not a live region's text: a screen reader would read every second.
        this.element.dataset.left = left;
        if (this.open) this.keys.textContent = `${say("approveKeys")}${left ? " · " : ""}${left}`;
    }

    /** @param {string} token @param {string} line */
    end(token, line) {
        if (this.question?.token !== token) return;
        clearInterval(this.clock);
        this.question = null;
        this.draw(line);
    }

    /** @param {Decided} decided */
    told({ decision, reason }) {
        clearInterval(this.clock);
        this.question = null;
        this.draw(say(decision === "approve" ? "approveYes" : "approveNo", reason));
    }

    /** @param {KeyboardEvent} event */
    press(event) {
        event.stopPropagation();
        if (!this.open || event.ctrlKey || event.metaKey || event.altKey) return;
        const act = KEYS[event.key.toLowerCase()];
        if (!act || (event.target !== this.element && event.key === " ")) return; // Space presses a button that has the focus
        event.preventDefault();
        if (!event.repeat) act(this);
    }

    /** @param {KeyboardEvent} event */
    release(event) {
        event.stopPropagation();
        if (event.key === " ") this.hold(false);
    }

    /** @param {boolean} down */
    hold(down) {
        this.flicker = down;
        this.draw();
    }

    /** @param {number} by */
    go(by) {
        const count = this.question?.count ?? 1;
        this.at = (this.at + by + count) % count;
        this.draw();
    }

    toggle() {
        if (this.chosen.has(this.at)) this.chosen.delete(this.at);
        else this.chosen.add(this.at);
        this.draw();
    }

    /** @param {MouseEvent} event */
    choose(event) {
        const tab = event.target instanceof HTMLElement ? event.target.dataset.tab : undefined;
        if (tab) this.show(/** @type {typeof TABS[number]} */ (tab));
    }

    /** @param {typeof TABS[number]} tab */
    show(tab) {
        if (tab === "region" && !this.question?.pictures.region) return;
        this.tab = tab;
        this.draw();
    }

    async redraw() {
        const { question, at } = this;
        const region = question?.pictures.region?.[at];
        if (!question || !region) return;
        await redraw(this.masks.get(at) ?? region, (saved) => {
            if (this.question?.token !== question.token) return;
            this.masks.set(at, saved);
            this.show("region");
        });
    }

    /** @param {boolean} approve */
    async send(approve) {
        const { question } = this;
        if (!question) return;
        if (approve && !this.chosen.size) {
            this.line.textContent = say("approveNone");
            return;
        }
        const chosen = approve ? [...this.chosen] : [];
        const masks = approve ? Object.fromEntries(this.masks) : {};
        const body = JSON.stringify({ token: question.token, chosen, masks });
        try {
            const answer = await api.fetchApi(ROUTE, { method: "POST", body });
            if (!answer.ok) throw new Error((await answer.json()).error);
            this.end(question.token, say("approveSent"));
        } catch (error) {
            this.line.textContent = say("approveFailed", error instanceof Error ? error.message : String(error));
        }
    }

    /** @param {string} [line] */
    draw(line) {
        const { question } = this;
        for (const part of [this.tabs, this.frame, this.turn, this.figures, this.buttons, this.keys]) part.hidden = !question;
        this.element.classList.toggle("eta-waits", this.open);
        if (line !== undefined) this.line.textContent = line;
        if (!question) return;
        const { pictures, count, figures } = question;
        const tab = this.flicker ? "before" : this.tab;
        const open = TABS.filter((name) => name !== "region" || pictures.region);
        const buttons = open.map((name) => {
            const button = html("button", { type: "button", role: "tab", textContent: say(`tab_${name}`), ariaSelected: String(name === tab) });
            button.dataset.tab = name;
            return button;
        });
        this.tabs.replaceChildren(...buttons);
        this.image.hidden = tab === "region";
        this.canvas.hidden = tab !== "region";
        if (tab !== "region") {
            this.image.src = address(pictures[tab][Math.min(this.at, pictures[tab].length - 1)]);
            this.image.alt = say(tab);
        } else if (pictures.region) this.paint(this.masks.get(this.at) ?? pictures.region[this.at]);
        for (const part of [this.previous, this.number, this.next, this.picked]) part.hidden = count < 2;
        this.number.textContent = `${this.at + 1} / ${count}`;
        this.pick.checked = this.chosen.has(this.at);
        this.figures.textContent = figures[this.at] ?? "";
        this.edit.hidden = !pictures.region;
        if (line === undefined) this.line.textContent = this.masks.has(this.at) ? say("redrawn") : say("approveAsks");
    }

    /** The picture with the region, its transparent part, tinted.
     * @param {Saved} region
     */
    async paint(region) {
        const holes = await load(region);
        const whole = await load(region, { channel: "rgb" });
        const size = { width: holes.naturalWidth, height: holes.naturalHeight };
        const tint = html("canvas", size);
        const brush = /** @type {CanvasRenderingContext2D} */ (tint.getContext("2d"));
        brush.fillStyle = ORANGE;
        brush.fillRect(0, 0, size.width, size.height);
        brush.globalCompositeOperation = "destination-out";
        brush.drawImage(holes, 0, 0);
        Object.assign(this.canvas, size);
        const pen = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
        pen.drawImage(whole, 0, 0);
        pen.globalAlpha = 0.55;
        pen.drawImage(tint, 0, 0);
    }
}

/** @type {Record<string, (approval: Approval) => unknown>} */
const KEYS = {
    a: (approval) => approval.send(true),
    r: (approval) => approval.send(false),
    e: (approval) => approval.redraw(),
    x: (approval) => approval.toggle(),
    m: (approval) => approval.show(approval.tab === "region" ? "after" : "region"),
    " ": (approval) => approval.hold(true),
    arrowleft: (approval) => approval.go(-1),
    arrowright: (approval) => approval.go(1),
};

/** The widget of a node, by the node.
 * @type {WeakMap<object, Approval>}
 */
const approvals = new WeakMap();

/** @param {Question} question */
function ask(question) {
    const node = nodeAt(question.node);
    const approval = node && approvals.get(node);
    if (!approval) return;
    if (approval.question?.token !== question.token) {
        const detail = say("approveToast", node.title);
        app.extensionManager.toast.add({ severity: "info", summary: say("pack"), detail, life: LIFE_MS });
    }
    approval.ask(question);
}

/** What waits for this page, after its nodes were made anew or the page was loaded again. */
async function askAgain() {
    const client = /** @type {any} */ (api).clientId;
    if (!client) {
        // A workflow may be loaded before the socket has told the page its id, in its first status.
        api.addEventListener("status", () => void askAgain(), { once: true });
        return;
    }
    const answer = await api.fetchApi(`${ROUTE}?${new URLSearchParams({ client })}`);
    if (answer.ok) for (const question of await answer.json()) ask(question);
}

app.registerExtension({
    name: "eta-inversion.approve",
    setup() {
        style(`
.eta-approve { display: flex; flex-direction: column; gap: 6px; height: 100%; min-height: ${HEIGHT}px; box-sizing: border-box; padding: 4px; border-radius: 8px;
    border: 2px solid transparent; font: 12px sans-serif; color: var(--input-text, #ddd); }
.eta-approve.eta-waits { border-color: #f0b040; }
.eta-approve:focus-visible { outline: 2px solid #fff; outline-offset: -4px; }
.eta-approve [hidden] { display: none !important; }
.eta-approve .eta-tabs, .eta-approve .eta-turn, .eta-answers { display: flex; flex-wrap: wrap; gap: 4px; align-items: center; }
.eta-approve button { padding: 3px 9px; border: 1px solid var(--border-color, #555); border-radius: 6px; font: inherit; cursor: pointer; color: inherit;
    background: var(--comfy-input-bg, #222); }
.eta-approve button[aria-selected="true"] { color: #222; background: #f0b040; border-color: #f0b040; }
.eta-approve .eta-yes { color: #fff; background: #0b5fa5; }
.eta-approve .eta-no { color: #fff; background: #a33c00; }
.eta-approve .eta-frame { position: relative; flex: 1; min-height: 0; overflow: hidden; }
.eta-approve .eta-frame > * { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; user-select: none; }
.eta-pick { display: flex; gap: 4px; align-items: center; }
.eta-keys { opacity: 0.75; }`);
        api.addEventListener(/** @type {any} */ ("eta-inversion.approve"), (event) => ask(event.detail));
        api.addEventListener(/** @type {any} */ ("eta-inversion.approve-end"), ({ detail: { node, token } }) => {
            const found = nodeAt(node);
            if (found) approvals.get(found)?.end(token, say("approveEnded"));
        });
        api.addEventListener(/** @type {any} */ ("reconnected"), () => void askAgain());
    },
    afterConfigureGraph: () => void askAgain(),
    /** @param {any} node */
    nodeCreated(node) {
        if (node.comfyClass !== "EtaApprove") return;
        const approval = new Approval();
        approvals.set(node, approval);
        addWidget(node, "eta_approve", approval.element, HEIGHT);
        after(node, "onExecuted", (output) => {
            if (output?.eta_approve) approval.told(output.eta_approve[0]);
        });
        after(node, "onRemoved", () => clearInterval(approval.clock));
    },
});
