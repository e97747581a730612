// @ts-check

/** The review: one item after another, a vote for each, all of it by keyboard. */

import { get, say, switchLanguage, tell } from "./page.js";
import { describe, showButtons, told } from "./panel.js";
import * as question from "./question.js";
import { ask, enter } from "./server.js";
import { draw, nextEdit, pan, take, view } from "./stage.js";

/**
 * @typedef {import("./server.js").Action} Action
 * @typedef {import("./server.js").Turn} Turn
 */

const WAIT = 15000; // milliseconds until a page that has nothing looks again
const PAN = 80; // pixels of the screen, for an arrow key

/** @type {Turn | null} */
let turn = null;
let inSight = false; // whether the pictures of its item are on screen
let shownAt = 0; // when the item came on screen; what was spent on a hidden page does not count
let hiddenFor = 0;
let hiddenAt = 0;
let busy = false;
let turns = 0;
/** @type {number | undefined} */
let waits;

/** @type {import("./panel.js").Button[]} */
const VIEWS = [
    { id: "before", key: "b", shown: "B", run: () => hold(!view.before), pressed: () => view.before },
    { id: "difference", key: "d", shown: "D", run: () => toggle("difference"), pressed: () => view.difference },
    { id: "outline", key: "m", shown: "M", run: () => toggle("outline"), pressed: () => view.outline },
    { id: "exact", key: "z", shown: "Z", run: () => toggle("exact"), pressed: () => view.exact },
    { id: "single", key: "v", shown: "V", run: () => toggle("single"), pressed: () => view.single },
    { id: "variant", key: "e", shown: "E", run: nextEdit },
];
/** @type {import("./panel.js").Button[]} */
const VOTES = [
    { id: "approve", key: "a", shown: "A", run: () => void vote("approve") },
    { id: "reject", key: "r", shown: "R", run: () => askFirst("reject") },
    { id: "again", key: "s", shown: "S", run: () => askFirst("again") },
    { id: "next", key: " ", shown: "Space", run: () => void show(turn?.item?.key) },
    { id: "undo", key: "u", shown: "U", run: () => void undo() },
];

function showAll() {
    showButtons(VIEWS, VOTES);
    describe(turn);
    draw();
}

// --- looking ---------------------------------------------------------------------------------------

/** @param {"difference" | "outline" | "exact" | "single"} name */
function toggle(name) {
    view[name] = !view[name];
    tell(say(view[name] ? "on" : "off", { what: say(`view_${name}`) }));
    showButtons(VIEWS, VOTES);
    draw();
}

/** @param {boolean} held */
function hold(held) {
    if (view.before === held) return;
    view.before = held;
    showButtons(VIEWS, VOTES);
    draw();
}

// --- a turn ----------------------------------------------------------------------------------------

/** Show the next item that waits. @param {string} [after] */
async function show(after = "") {
    await alone(async () => {
        turn = /** @type {Turn} */ (await ask(`/api/next?after=${encodeURIComponent(after)}`));
        clearTimeout(waits);
        const item = turn.item;
        inSight = false;
        await take(item?.pictures ?? {});
        inSight = true;
        showAll();
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

/** @param {Action} action @param {object} [answer] to the question that it asks */
async function vote(action, answer = {}) {
    const item = turn?.item;
    if (!item || !inSight || busy) return;
    const seconds = (performance.now() - shownAt - hiddenFor) / 1000;
    const ballot = { item: item.key, binding: item.binding, action, seconds, ...answer };
    const voted = await alone(async () => {
        told(action, await ask("/api/vote", ballot));
        return true;
    });
    if (voted) await show(item.key);
}

/** @param {"reject" | "again"} action */
function askFirst(action) {
    if (!turn?.item || !inSight || busy) return;
    question.open(action, turn.reasons, turn.item.eta, (answer) => void vote(action, answer));
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
    void take({});
    showButtons(VIEWS, VOTES);
    get("message", HTMLElement).textContent = why;
    describe(turn);
    tell(why);
}

// --- keys ------------------------------------------------------------------------------------------

/** @type {Record<string, [number, number]>} */
const ARROWS = { ArrowLeft: [-PAN, 0], ArrowRight: [PAN, 0], ArrowUp: [0, -PAN], ArrowDown: [0, PAN] };

document.addEventListener("keydown", (event) => {
    if (question.takes(event)) return;
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const key = event.key.toLowerCase();
    const onButton = document.activeElement instanceof HTMLButtonElement;
    if ((key === " " || key === "enter") && onButton) return;
    if (event.key in ARROWS && view.exact) {
        event.preventDefault();
        return pan(...ARROWS[event.key]);
    }
    if (key === "l") return changeLanguage();
    const found = [...VIEWS, ...VOTES].find((one) => one.key === key);
    if (!found || (VIEWS.includes(found) && !turn?.item)) return;
    event.preventDefault();
    if (event.repeat) return;
    if (found.id === "before") hold(true);
    else found.run();
});

document.addEventListener("keyup", (event) => {
    if (event.key.toLowerCase() === "b") hold(false);
});
addEventListener("blur", () => hold(false));
document.addEventListener("visibilitychange", () => {
    if (document.hidden) hiddenAt = performance.now();
    else hiddenFor += performance.now() - hiddenAt;
});

get("language", HTMLButtonElement).addEventListener("click", changeLanguage);

function changeLanguage() {
    switchLanguage();
    showAll();
}

showButtons(VIEWS, VOTES);
enter().then(
    () => show(),
    (error) => (error.status ? stop(say("no_link")) : tell(say("unreachable"), true))
);
