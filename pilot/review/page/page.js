// @ts-check

/** The page's elements, and its words in the reader's language. */

import { TEXTS } from "./texts.js";

export const SIGNS = { approve: "\u2713", reject: "\u2715", again: "\u21bb" };

let language = localStorage.getItem("language") ?? (navigator.language.startsWith("ja") ? "ja" : "en");

/** @template {HTMLElement} E @param {string} id @param {new () => E} kind @returns {E} */
export function get(id, kind) {
    const found = document.getElementById(id);
    if (!(found instanceof kind)) throw new Error(`the page has no ${id}`);
    return found;
}

/** @param {string} kind @param {Record<string, string>} attributes @param {(Node | string)[]} content */
export function make(kind, attributes = {}, ...content) {
    const element = document.createElement(kind);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...content);
    return element;
}

/** @param {string} key @param {Record<string, string | number>} values */
export function say(key, values = {}) {
    const text = TEXTS[language === "ja" ? "ja" : "en"][key] ?? key;
    return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
}

/** Tell it to screen readers, and to everybody where it is a problem. @param {string} text */
export function tell(text, problem = false) {
    const said = get("said", HTMLElement);
    said.textContent = text;
    said.classList.toggle("shown", problem);
}

export function switchLanguage() {
    language = language === "ja" ? "en" : "ja";
    localStorage.setItem("language", language);
}

/** Every text that is always the same, in the language of now. */
export function translate() {
    document.documentElement.lang = language;
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
}
