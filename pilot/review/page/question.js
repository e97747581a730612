// @ts-check

/** What is asked before an item is rejected or sent back, and the mask that may be drawn for it. */

import { Drawing } from "./drawing.js";
import { get, make, say, SIGNS, tell } from "./page.js";
import { beforeAndMask } from "./stage.js";

/** @typedef {{ reason: string, comment: string, eta: number | undefined, mask: string }} Answer */

const dialog = get("dialog", HTMLDialogElement);
const comment = get("comment", HTMLTextAreaElement);
const eta = get("eta", HTMLInputElement);
const drawing = get("drawing", HTMLDialogElement);
const drawn = new Drawing(get("drawn", HTMLCanvasElement));

/** @type {"reject" | "again"} */
let asking = "reject";
/** @type {(answer: Answer) => void} */
let onAnswer = () => {};
let redrawn = ""; // the mask for what is sent back, a PNG in base64

/**
 * Ask; a question that is given up calls nobody. itsEta: of the item that is sent back, null where none may be given.
 * @param {"reject" | "again"} action @param {string[]} reasons
 * @param {number | null} itsEta @param {(answer: Answer) => void} answered
 */
export function open(action, reasons, itsEta, answered) {
    if (dialog.open) return;
    [asking, onAnswer] = [action, answered];
    get("dialog-title", HTMLElement).textContent = say(`${action}_title`);
    get("dialog-keys", HTMLElement).textContent = say(`${action}_keys`);
    offer(reasons);
    const send = get("send", HTMLButtonElement);
    send.className = action;
    send.replaceChildren(make("span", { class: "sign", "aria-hidden": "true" }, SIGNS[action]), say(action), make("kbd", {}, "Enter"));
    get("cancel", HTMLButtonElement).replaceChildren(say("cancel"), make("kbd", {}, "Esc"));
    comment.value = "";
    eta.value = "";
    const asksEta = action === "again" && itsEta !== null;
    get("etas", HTMLElement).hidden = !asksEta;
    get("eta-label", HTMLElement).textContent = say("eta", { eta: itsEta ?? "" });
    get("redraws", HTMLElement).hidden = action !== "again";
    get("redraw", HTMLButtonElement).textContent = say("redraw");
    useMask("");
    dialog.showModal();
    if (action === "again") (asksEta ? eta : comment).focus();
    else choices()[0].focus();
}

/** @param {string[]} reasons of a rejection */
function offer(reasons) {
    const list = get("reasons", HTMLElement);
    list.hidden = asking === "again";
    const legend = list.querySelector("legend");
    list.replaceChildren(
        ...(legend ? [legend] : []),
        ...reasons.map((reason, i) => {
            const choice = make("input", { type: "radio", name: "reason", value: reason });
            return make("label", {}, choice, make("kbd", { "aria-hidden": "true" }, String(i + 1)), say(`reason_${reason}`));
        })
    );
}

/** @returns {HTMLInputElement[]} */
function choices() {
    return [...dialog.querySelectorAll('input[name="reason"]')].filter((one) => one instanceof HTMLInputElement);
}

function send() {
    const reason = asking === "reject" ? (choices().find((one) => one.checked)?.value ?? "") : "";
    if (asking === "reject" && !reason) {
        get("dialog-keys", HTMLElement).textContent = say("choose");
        tell(say("choose"));
        return;
    }
    if (!eta.checkValidity()) {
        get("dialog-keys", HTMLElement).textContent = say("eta_range");
        tell(say("eta_range"));
        return;
    }
    dialog.close();
    onAnswer({
        reason,
        comment: comment.value.trim(),
        eta: eta.value === "" ? undefined : Number(eta.value),
        mask: redrawn,
    });
}

/** @param {KeyboardEvent} event */
function inDialog(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        if (document.activeElement instanceof HTMLButtonElement && document.activeElement.id !== "send") return;
        event.preventDefault();
        send();
    } else if (asking === "reject" && /^[1-9]$/.test(event.key) && document.activeElement !== comment) {
        event.preventDefault();
        const choice = choices()[Number(event.key) - 1];
        if (!choice) return;
        choice.checked = true;
        choice.focus();
        get("dialog-keys", HTMLElement).textContent = say("reject_keys");
    }
}

// --- the mask, drawn anew ---------------------------------------------------------------------------

/** @param {string} png */
function useMask(png) {
    redrawn = png;
    get("redrawn", HTMLElement).textContent = png ? say("redrawn") : "";
}

/** @type {{ id: string, key: string, run: () => void, pressed?: () => boolean }[]} */
const TOOLS = [
    { id: "erase", key: "x", run: () => (drawn.erases = !drawn.erases), pressed: () => drawn.erases },
    { id: "smaller", key: "-", run: () => (drawn.brush = Math.max(2, drawn.brush / 1.4)) },
    { id: "larger", key: "+", run: () => (drawn.brush = Math.min(2000, drawn.brush * 1.4)) },
    { id: "clear", key: "c", run: () => drawn.clear() },
    { id: "use", key: "Enter", run: finish },
    { id: "cancel", key: "Esc", run: () => drawing.close() },
];

function tools() {
    const made = TOOLS.map((tool) => {
        const look = tool.id === "use" ? "again" : "plain";
        const one = make("button", { type: "button", class: look }, say(tool.id), make("kbd", {}, tool.key.toUpperCase()));
        if (tool.pressed) one.setAttribute("aria-pressed", String(tool.pressed()));
        one.addEventListener("click", () => work(tool));
        return one;
    });
    get("tools", HTMLElement).replaceChildren(...made);
}

/** @param {{ run: () => void }} tool */
function work(tool) {
    tool.run();
    tools();
}

function redraw() {
    get("drawing-title", HTMLElement).textContent = say("drawing");
    const { picture, mask } = beforeAndMask();
    drawn.begin(picture, mask);
    tools();
    drawing.showModal();
    drawn.canvas.focus();
}

function finish() {
    useMask(drawn.png());
    get("drawing-title", HTMLElement).textContent = say(redrawn ? "drawing" : "nothing_drawn");
    if (!redrawn) return tell(say("nothing_drawn"));
    drawing.close();
    comment.focus();
}

/** @param {KeyboardEvent} event */
function inDrawing(event) {
    const key = event.key === "=" ? "+" : event.key;
    const found = TOOLS.find((tool) => tool.key.toLowerCase() === key.toLowerCase());
    const onButton = document.activeElement instanceof HTMLButtonElement;
    if (!found || (key === "Enter" && onButton) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    work(found);
}

// --- keys and buttons -------------------------------------------------------------------------------

/** Whether a question is open; then the key is its own. @param {KeyboardEvent} event */
export function takes(event) {
    if (drawing.open) inDrawing(event);
    else if (dialog.open) inDialog(event);
    else return false;
    return true;
}

dialog.querySelector("form")?.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
});
get("cancel", HTMLButtonElement).addEventListener("click", () => dialog.close());
get("redraw", HTMLButtonElement).addEventListener("click", redraw);
drawn.canvas.addEventListener("pointerdown", () => {
    get("drawing-title", HTMLElement).textContent = say("drawing");
});
