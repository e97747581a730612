// @ts-check

import { Drawing } from "./draw.js";
import { TEXTS } from "./texts.js";

/**
 * @typedef {{ key: string, binding: string, name: string, category: string, source_prompt: string,
 *     target_prompt: string, again: boolean, eta: number | null, pictures: Record<string, string>,
 *     earlier: { action: string, reason: string, comment: string, eta: number | null }[] }} Item
 * @typedef {{ name: string, role: string, item: Item | null, done: number, left: number, own: number,
 *     reasons: string[], paused: boolean, others?: number, seconds_left?: number, following?: Record<string, string> }} Turn
 */

const SIGNS = { approve: "\u2713", reject: "\u2715", again: "\u21bb" };
const GAIN = 4; // of the difference, so that small ones are seen
const WAIT = 15000; // milliseconds until a page that has nothing looks again
const PAN = 80; // pixels of the screen, for an arrow key

/** @template {HTMLElement} E @param {string} id @param {new () => E} kind @returns {E} */
function get(id, kind) {
    const found = document.getElementById(id);
    if (!(found instanceof kind)) throw new Error(`the page has no ${id}`);
    return found;
}

const stage = get("stage", HTMLElement);
const left = get("left", HTMLCanvasElement);
const right = get("right", HTMLCanvasElement);
const dialog = get("dialog", HTMLDialogElement);
const comment = get("comment", HTMLTextAreaElement);
const eta = get("eta", HTMLInputElement);
const drawing = get("drawing", HTMLDialogElement);
const drawn = new Drawing(get("drawn", HTMLCanvasElement));
let redrawn = ""; // the mask for what is sent back, a PNG in base64

let language = localStorage.getItem("language") ?? (navigator.language.startsWith("ja") ? "ja" : "en");
/** @type {Turn | null} */
let turn = null;
/** @type {Record<string, HTMLImageElement>} */
let pictures = {};
/** @type {{ difference?: HTMLCanvasElement, outline?: HTMLCanvasElement }} */
let made = {};
let edit = "edited"; // which of an item's edits is shown
let before = false; // held: the picture before stands in the place of the edit
const view = { difference: false, outline: false, exact: false, single: false, x: 0.5, y: 0.5 };
let shownAt = 0; // when the item came on screen; what was spent on a hidden page does not count
let hiddenFor = 0;
let hiddenAt = 0;
let busy = false;
let turns = 0;
/** @type {number | undefined} */
let waits;
/** @type {"reject" | "again"} */
let asking = "reject";

/** @param {string} key @param {Record<string, string | number>} values */
function say(key, values = {}) {
    const text = TEXTS[language === "ja" ? "ja" : "en"][key] ?? key;
    return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
}

/** @param {string} path @param {object} [body] */
async function ask(path, body) {
    const options = body && {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
    };
    const answer = await fetch(path, options);
    const found = await answer.json();
    if (!answer.ok) throw Object.assign(new Error(found.error), { status: answer.status });
    return found;
}

/** Tell it to screen readers, and to everybody where it is a problem. @param {string} text */
function tell(text, problem = false) {
    const said = get("said", HTMLElement);
    said.textContent = text;
    said.classList.toggle("shown", problem);
}

/** @param {string} kind @param {Record<string, string>} attributes @param {(Node | string)[]} content */
function make(kind, attributes = {}, ...content) {
    const element = document.createElement(kind);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...content);
    return element;
}

// --- pictures --------------------------------------------------------------------------------------

/** @param {string} address @returns {Promise<HTMLImageElement>} */
async function load(address) {
    const image = new Image();
    image.src = address;
    await image.decode();
    return image;
}

/** @param {HTMLImageElement} image @param {number} width @param {number} height */
function pixels(image, width, height) {
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    if (!context) throw new Error("no 2d canvas");
    context.drawImage(image, 0, 0, width, height);
    return { canvas, context, data: context.getImageData(0, 0, width, height) };
}

/** The largest distance of a channel between before and after, GAIN times, in grey: every eye reads it. */
function difference() {
    const after = pictures[edit];
    const [width, height] = [after.naturalWidth, after.naturalHeight];
    const one = pixels(pictures.source, width, height);
    const other = pixels(after, width, height);
    const found = other.data.data;
    const given = one.data.data;
    for (let i = 0; i < found.length; i += 4) {
        const red = Math.abs(found[i] - given[i]);
        const green = Math.abs(found[i + 1] - given[i + 1]);
        const blue = Math.abs(found[i + 2] - given[i + 2]);
        found[i] = found[i + 1] = found[i + 2] = Math.max(red, green, blue) * GAIN;
    }
    other.context.putImageData(other.data, 0, 0);
    return other.canvas;
}

/** The mask's edge, black beside white: it is seen on every picture. */
function outline() {
    const after = pictures[edit];
    const [width, height] = [after.naturalWidth, after.naturalHeight];
    const found = pixels(pictures[mask()], width, height);
    const inside = found.data.data.slice();
    const reach = Math.max(1, Math.round(Math.max(width, height) / 500));
    /** @param {number} x @param {number} y */
    const isIn = (x, y) => x >= 0 && y >= 0 && x < width && y < height && inside[4 * (y * width + x)] > 127;
    for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) {
            const here = isIn(x, y);
            const near = [[reach, 0], [-reach, 0], [0, reach], [0, -reach]];
            const edge = near.some(([dx, dy]) => isIn(x + dx, y + dy) !== here);
            found.data.data.set(edge ? (here ? [0, 0, 0, 255] : [255, 255, 255, 255]) : [0, 0, 0, 0], 4 * (y * width + x));
        }
    }
    found.context.putImageData(found.data, 0, 0);
    return found.canvas;
}

function mask() {
    return "given_mask" in pictures ? "given_mask" : "mask";
}

function edits() {
    return Object.keys(turn?.item?.pictures ?? {}).filter((name) => name.startsWith("edited"));
}

function draw() {
    if (!turn?.item || !pictures.source) return;
    const showsDifference = view.difference && !before;
    if (showsDifference) made.difference ??= difference();
    const after = before ? pictures.source : showsDifference && made.difference ? made.difference : pictures[edit];
    paint(left, pictures.source);
    paint(right, after);
    const several = edits().length;
    const which = several > 1 ? ` ${edits().indexOf(edit) + 1} / ${several}` : "";
    const title = before ? "before" : showsDifference ? "difference" : "after";
    get("right-title", HTMLElement).textContent = say(title) + (title === "after" ? which : "");
    left.setAttribute("aria-label", say("before"));
    right.setAttribute("aria-label", say(title) + which);
}

/** @param {HTMLCanvasElement} canvas @param {HTMLImageElement | HTMLCanvasElement} picture */
function paint(canvas, picture) {
    const scale = devicePixelRatio;
    const { clientWidth, clientHeight } = canvas;
    canvas.width = Math.round(clientWidth * scale);
    canvas.height = Math.round(clientHeight * scale);
    const context = canvas.getContext("2d");
    if (!context || !canvas.width) return;
    const [width, height] = [pictures[edit].naturalWidth, pictures[edit].naturalHeight];
    const zoom = view.exact ? 1 : Math.min(canvas.width / width, canvas.height / height);
    context.imageSmoothingEnabled = !view.exact && zoom < 2;
    context.imageSmoothingQuality = "high";
    /** Of one side: centred where it fits, else as far as it was moved. @param {number} room @param {number} size @param {number} at */
    const start = (room, size, at) => (size <= room ? (room - size) / 2 : -(size - room) * at);
    const x = Math.round(start(canvas.width, width * zoom, view.x));
    const y = Math.round(start(canvas.height, height * zoom, view.y));
    context.drawImage(picture, x, y, width * zoom, height * zoom);
    if (view.outline && mask() in pictures) {
        made.outline ??= outline();
        context.drawImage(made.outline, x, y, width * zoom, height * zoom);
    }
}

/** Move both pictures together. @param {number} dx @param {number} dy in pixels of the screen */
function pan(dx, dy) {
    if (!view.exact || !pictures[edit]) return;
    const rooms = [right.width - pictures[edit].naturalWidth, right.height - pictures[edit].naturalHeight];
    /** @param {number} at @param {number} by @param {number} room */
    const moved = (at, by, room) => (room < 0 ? Math.min(1, Math.max(0, at - (by * devicePixelRatio) / room)) : at);
    view.x = moved(view.x, dx, rooms[0]);
    view.y = moved(view.y, dy, rooms[1]);
    draw();
}

// --- the panel -------------------------------------------------------------------------------------

/** @type {{ id: string, key: string, shown: string, run: () => void, pressed?: () => boolean }[]} */
const VIEWS = [
    { id: "before", key: "b", shown: "B", run: () => hold(!before), pressed: () => before },
    { id: "difference", key: "d", shown: "D", run: () => toggle("difference"), pressed: () => view.difference },
    { id: "outline", key: "m", shown: "M", run: () => toggle("outline"), pressed: () => view.outline },
    { id: "exact", key: "z", shown: "Z", run: () => toggle("exact"), pressed: () => view.exact },
    { id: "single", key: "v", shown: "V", run: () => toggle("single"), pressed: () => view.single },
    { id: "variant", key: "e", shown: "E", run: variant },
];
/** @type {{ id: string, key: string, shown: string, run: () => void }[]} */
const VOTES = [
    { id: "approve", key: "a", shown: "A", run: () => void vote("approve") },
    { id: "reject", key: "r", shown: "R", run: () => open("reject") },
    { id: "again", key: "s", shown: "S", run: () => open("again") },
    { id: "next", key: " ", shown: "Space", run: () => void show(turn?.item?.key) },
    { id: "undo", key: "u", shown: "U", run: () => void undo() },
];

function panel() {
    document.documentElement.lang = language;
    const focused = document.activeElement?.getAttribute("aria-keyshortcuts");
    document.title = say("title");
    for (const element of document.querySelectorAll("[data-text]")) {
        element.textContent = say(element.getAttribute("data-text") ?? "");
    }
    for (const element of document.querySelectorAll("[data-label]")) {
        element.setAttribute("aria-label", say(element.getAttribute("data-label") ?? ""));
    }
    const other = get("language", HTMLButtonElement);
    other.replaceChildren(make("kbd", {}, "L"), say("language"));
    other.setAttribute("aria-keyshortcuts", "L");
    const offered = VIEWS.filter(({ id }) => id !== "variant" || edits().length > 1);
    get("views", HTMLElement).replaceChildren(
        ...offered.map((one) => button(one, say(`view_${one.id}`), String(one.pressed?.() ?? "")))
    );
    get("votes", HTMLElement).replaceChildren(
        ...VOTES.map((one) => button(one, say(one.id), "", one.id in SIGNS ? SIGNS[/** @type {"approve"} */ (one.id)] : ""))
    );
    stage.classList.toggle("single", view.single);
    stage.classList.toggle("exact", view.exact);
    /** @type {HTMLElement | null} */
    const same = focused ? document.querySelector(`[aria-keyshortcuts="${focused}"]`) : null;
    same?.focus();
}

/**
 * @param {{ id: string, shown: string, run: () => void }} one
 * @param {string} label @param {string} pressed @param {string} sign
 */
function button(one, label, pressed = "", sign = "") {
    const key = make("kbd", { "aria-hidden": "true" }, one.shown === "Space" ? say("space") : one.shown);
    const content = sign ? [make("span", { class: "sign", "aria-hidden": "true" }, sign), label, key] : [key, label];
    if (one.id === "next" || one.id === "undo") content.splice(0, 2, label, key);
    const made = make("button", { type: "button", class: sign ? one.id : "quiet", "aria-keyshortcuts": one.shown }, ...content);
    if (pressed) made.setAttribute("aria-pressed", pressed);
    made.addEventListener("click", one.run);
    return made;
}

/** @param {"difference" | "outline" | "exact" | "single"} name */
function toggle(name) {
    view[name] = !view[name];
    tell(say(view[name] ? "on" : "off", { what: say(`view_${name}`) }));
    panel();
    draw();
}

/** @param {boolean} held */
function hold(held) {
    if (before === held) return;
    before = held;
    panel();
    draw();
}

function variant() {
    const all = edits();
    edit = all[(all.indexOf(edit) + 1) % all.length] ?? "edited";
    made = {};
    draw();
}

/**
 * The words of one prompt that the other does not have stand out.
 * @param {HTMLElement} where @param {string} text @param {string} other
 */
function prompt(where, text, other) {
    const known = new Set(other.toLowerCase().split(/\s+/));
    const isNew = (/** @type {string} */ word) => word.trim() && !known.has(word.toLowerCase());
    const parts = text.split(/(\s+)/).map((word) => (isNew(word) ? make("mark", {}, word) : word));
    where.replaceChildren(...parts);
}

/** @param {number} seconds */
function duration(seconds) {
    return seconds < 90 ? say("seconds", { n: Math.max(1, Math.round(seconds)) }) : say("minutes", { n: Math.round(seconds / 60) });
}

function describe() {
    const item = turn?.item;
    const { done = 0, left: waiting = 0 } = turn ?? {};
    const progress = get("progress", HTMLProgressElement);
    progress.max = Math.max(1, done + waiting);
    progress.value = done;
    progress.setAttribute("aria-label", say("progress"));
    const counted = say("counted", { done, all: done + waiting });
    get("counted", HTMLElement).textContent =
        counted + (item ? say("time_left", { time: duration(turn?.seconds_left ?? 0) }) : "");
    get("paused", HTMLElement).hidden = !turn?.paused;
    get("person", HTMLElement).textContent = turn ? `${turn.name} \u00b7 ${say(turn.role)}` : "";
    stage.classList.toggle("empty", !item);
    const message = get("message", HTMLElement);
    message.hidden = Boolean(item);
    get("about", HTMLElement).hidden = get("views", HTMLElement).hidden = !item;
    for (const one of document.querySelectorAll("#votes button:not(:last-child)")) {
        if (one instanceof HTMLElement) one.hidden = !item;
    }
    if (!item) {
        const why = turn?.own ? say("own", { n: turn.own }) : turn?.others ? say("waiting", { n: turn.others }) : "";
        message.textContent = turn ? [say("nothing"), why].filter(Boolean).join("\n") : message.textContent;
        return;
    }
    get("name", HTMLElement).textContent = item.name;
    const several = edits().length > 1 ? say("several", { n: edits().length }) : "";
    get("tags", HTMLElement).textContent = [item.category, item.again ? say("came_back") : "", several].filter(Boolean).join(" \u00b7 ");
    prompt(get("source", HTMLElement), item.source_prompt, item.target_prompt);
    prompt(get("target", HTMLElement), item.target_prompt, item.source_prompt);
    const earlier = get("earlier", HTMLElement);
    earlier.hidden = !item.earlier.length;
    earlier.replaceChildren(
        make("b", {}, say("disagree")),
        ...item.earlier.map((one) => {
            const why = [one.reason ? say(`reason_${one.reason}`) : "", one.eta === null ? "" : `eta ${one.eta}`, one.comment].filter(Boolean).join(": ");
            const action = /** @type {"approve"} */ (one.action);
            return make("p", { class: action }, make("span", { class: "sign", "aria-hidden": "true" }, SIGNS[action]), ` ${say(action)}`, why ? ` (${why})` : "");
        })
    );
}

// --- a turn ----------------------------------------------------------------------------------------

/** Show the next item that waits. @param {string} [after] */
async function show(after = "") {
    await alone(async () => {
        turn = /** @type {Turn} */ (await ask(`/api/next?after=${encodeURIComponent(after)}`));
        clearTimeout(waits);
        before = false;
        made = {};
        pictures = {};
        [view.x, view.y] = [0.5, 0.5];
        const item = turn.item;
        edit = edits()[0] ?? "edited";
        if (item) {
            const loaded = await Promise.all(
                Object.entries(item.pictures).map(async ([name, address]) => [name, await load(address)])
            );
            pictures = Object.fromEntries(loaded);
        }
        panel();
        describe();
        draw();
        [shownAt, hiddenFor] = [performance.now(), 0];
        document.body.setAttribute("data-item", item?.key ?? "");
        document.body.setAttribute("data-turn", String(++turns));
        if (!item) {
            waits = setTimeout(() => void show(), WAIT);
            return tell(get("message", HTMLElement).textContent ?? "");
        }
        tell(say("announced", { name: item.name, source: item.source_prompt, target: item.target_prompt, left: turn.left }));
        for (const address of Object.values(turn.following ?? {})) new Image().src = address;
        get("name", HTMLElement).focus();
    });
}

/**
 * @param {"approve" | "reject" | "again"} action @param {string} reason @param {string} words
 * @param {number} [newEta] @param {string} newMask
 */
async function vote(action, reason = "", words = "", newEta, newMask = "") {
    const item = turn?.item;
    if (!item || busy) return;
    const seconds = (performance.now() - shownAt - hiddenFor) / 1000;
    const ballot = { item: item.key, binding: item.binding, action, reason, comment: words, seconds, eta: newEta, mask: newMask };
    const voted = await alone(async () => {
        told(action, await ask("/api/vote", ballot));
        return true;
    });
    if (voted) await show(item.key);
}

async function undo() {
    const undone = await alone(async () => {
        await ask("/api/undo", {});
        get("last", HTMLElement).hidden = true;
        return true;
    });
    if (undone) {
        await show();
        tell(say("undone"));
    }
}

/**
 * What the machine had said of it, now that it cannot sway.
 * @param {"approve" | "reject" | "again"} action
 * @param {{ name: string, verdict: string, figures: string[][] }} answer
 */
function told(action, answer) {
    const last = get("last", HTMLElement);
    const rows = answer.figures
        .slice(0, 5)
        .map(([name, value]) => make("tr", {}, make("td", {}, say(name)), make("td", {}, value)));
    last.replaceChildren(
        make("p", { class: action }, make("b", {}, answer.name), " ", make("span", { class: "sign" }, SIGNS[action]), ` ${say(action)}`),
        make("p", {}, say("machine", { verdict: say(`verdict_${answer.verdict}`) })),
        make("table", {}, ...rows)
    );
    last.hidden = false;
}

/** One thing at a time; what goes wrong is told. @template T @param {() => Promise<T>} work */
async function alone(work) {
    if (busy) return undefined;
    busy = true;
    tell("");
    try {
        return await work();
    } catch (error) {
        const status = error instanceof Error && "status" in error ? error.status : 0;
        const text = error instanceof Error ? error.message : String(error);
        if (status === 401) stop(say("no_link"));
        else if (status === 409) setTimeout(() => show().then(() => tell(say("changed"), true)));
        else tell(status ? text : say("unreachable"), true);
        return undefined;
    } finally {
        busy = false;
    }
}

/** @param {string} why */
function stop(why) {
    turn = null;
    panel();
    const message = get("message", HTMLElement);
    message.textContent = why;
    describe();
    tell(why);
}

// --- the question that a rejection asks ------------------------------------------------------------

/** @param {"reject" | "again"} action */
function open(action) {
    if (!turn?.item || busy || dialog.open) return;
    asking = action;
    get("dialog-title", HTMLElement).textContent = say(`${action}_title`);
    get("dialog-keys", HTMLElement).textContent = say(`${action}_keys`);
    const reasons = get("reasons", HTMLElement);
    reasons.hidden = action === "again";
    const legend = reasons.querySelector("legend");
    reasons.replaceChildren(
        ...(legend ? [legend] : []),
        ...turn.reasons.map((reason, i) => {
            const choice = make("input", { type: "radio", name: "reason", value: reason });
            return make("label", {}, choice, make("kbd", { "aria-hidden": "true" }, String(i + 1)), say(`reason_${reason}`));
        })
    );
    const send = get("send", HTMLButtonElement);
    send.className = action;
    send.replaceChildren(make("span", { class: "sign", "aria-hidden": "true" }, SIGNS[action]), say(action), make("kbd", {}, "Enter"));
    get("cancel", HTMLButtonElement).replaceChildren(say("cancel"), make("kbd", {}, "Esc"));
    comment.value = "";
    eta.value = "";
    const asksEta = action === "again" && turn.item.eta !== null;
    get("etas", HTMLElement).hidden = !asksEta;
    get("eta-label", HTMLElement).textContent = say("eta", { eta: turn.item.eta ?? "" });
    get("redraws", HTMLElement).hidden = action !== "again";
    get("redraw", HTMLButtonElement).textContent = say("redraw");
    useMask("");
    dialog.showModal();
    if (action === "again") (asksEta ? eta : comment).focus();
    else choices()[0].focus();
}

function choices() {
    return [...dialog.querySelectorAll("input")];
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
    drawn.begin(pictures.source, pictures[mask()]);
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
    void vote(asking, reason, comment.value.trim(), eta.value === "" ? undefined : Number(eta.value), redrawn);
}

/** @param {KeyboardEvent} event */
function inDialog(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        if (document.activeElement instanceof HTMLButtonElement && document.activeElement.id !== "send") return;
        event.preventDefault();
        send();
    } else if (asking === "reject" && /^[1-6]$/.test(event.key) && document.activeElement !== comment) {
        event.preventDefault();
        const choice = choices()[Number(event.key) - 1];
        choice.checked = true;
        choice.focus();
        get("dialog-keys", HTMLElement).textContent = say("reject_keys");
    }
}

// --- keys ------------------------------------------------------------------------------------------

/** @type {Record<string, [number, number]>} */
const ARROWS = { ArrowLeft: [-PAN, 0], ArrowRight: [PAN, 0], ArrowUp: [0, -PAN], ArrowDown: [0, PAN] };

document.addEventListener("keydown", (event) => {
    if (drawing.open) return inDrawing(event);
    if (dialog.open) return inDialog(event);
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const key = event.key.toLowerCase();
    const onButton = document.activeElement instanceof HTMLButtonElement;
    if ((key === " " || key === "enter") && onButton) return;
    if (event.key in ARROWS && view.exact) {
        event.preventDefault();
        return pan(...ARROWS[event.key]);
    }
    if (key === "l") return switchLanguage();
    const found = [...VIEWS, ...VOTES].find((one) => one.key === key);
    if (!found) return;
    event.preventDefault();
    if (event.repeat) return;
    if (found.id === "before") hold(true);
    else found.run();
});

document.addEventListener("keyup", (event) => {
    if (event.key.toLowerCase() === "b") hold(false);
});
addEventListener("blur", () => hold(false));
addEventListener("resize", draw);
document.addEventListener("visibilitychange", () => {
    if (document.hidden) hiddenAt = performance.now();
    else hiddenFor += performance.now() - hiddenAt;
});

for (const canvas of [left, right]) {
    canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
    canvas.addEventListener("pointermove", (event) => {
        if (canvas.hasPointerCapture(event.pointerId)) pan(-event.movementX, -event.movementY);
    });
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
get("language", HTMLButtonElement).addEventListener("click", switchLanguage);

function switchLanguage() {
    language = language === "ja" ? "en" : "ja";
    localStorage.setItem("language", language);
    panel();
    describe();
    draw();
}

/** The secret of the link leaves the address at once; a cookie that no script can read keeps it. */
async function enter() {
    const token = location.hash.slice(1);
    if (token) {
        history.replaceState(null, "", location.pathname);
        await ask("/api/enter", { token });
    }
}

panel();
enter().then(
    () => show(),
    (error) => (error.status ? stop(say("no_link")) : tell(say("unreachable"), true))
);
