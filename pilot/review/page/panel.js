// @ts-check

/** The side of the page: buttons, what the item is, and what was said of the last one. */

import { get, make, say, SIGNS, translate } from "./page.js";
import { edits } from "./stage.js";

/**
 * @typedef {{ id: string, key: string, shown: string, run: () => void, pressed?: () => boolean }} Button
 * @typedef {import("./server.js").Turn} Turn
 * @typedef {import("./server.js").Action} Action
 */

/** @param {Button[]} views ways of looking @param {Button[]} votes what may be done with the item */
export function showButtons(views, votes) {
    const focused = document.activeElement?.getAttribute("aria-keyshortcuts");
    translate();
    const offered = views.filter(({ id }) => id !== "variant" || edits().length > 1);
    get("views", HTMLElement).replaceChildren(
        ...offered.map((one) => button(one, say(`view_${one.id}`), String(one.pressed?.() ?? "")))
    );
    get("votes", HTMLElement).replaceChildren(
        ...votes.map((one) => button(one, say(one.id), "", one.id in SIGNS ? SIGNS[/** @type {Action} */ (one.id)] : ""))
    );
    /** @type {HTMLElement | null} */
    const same = focused ? document.querySelector(`[aria-keyshortcuts="${focused}"]`) : null;
    same?.focus();
}

/** @param {Button} one @param {string} label @param {string} pressed @param {string} sign */
function button(one, label, pressed = "", sign = "") {
    const key = make("kbd", { "aria-hidden": "true" }, one.shown === "Space" ? say("space") : one.shown);
    const content = sign ? [make("span", { class: "sign", "aria-hidden": "true" }, sign), label, key] : [key, label];
    if (one.id === "next" || one.id === "undo") content.splice(0, 2, label, key);
    const made = make("button", { type: "button", class: sign ? one.id : "quiet", "aria-keyshortcuts": one.shown }, ...content);
    if (pressed) made.setAttribute("aria-pressed", pressed);
    made.addEventListener("click", one.run);
    return made;
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

/** @param {Turn | null} turn */
export function describe(turn) {
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
    get("stage", HTMLElement).classList.toggle("empty", !item);
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
            const action = /** @type {Action} */ (one.action);
            return make("p", { class: action }, make("span", { class: "sign", "aria-hidden": "true" }, SIGNS[action]), ` ${say(action)}`, why ? ` (${why})` : "");
        })
    );
}

/**
 * What the machine had said of it, now that it cannot sway.
 * @param {Action} action
 * @param {{ name: string, verdict: string, figures: string[][] }} answer
 */
export function told(action, answer) {
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
