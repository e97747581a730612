// @ts-check

/** The pictures of an item, before and after, and the ways of looking at them. */

import { get, say } from "./page.js";

const GAIN = 4; // of the difference, so that small ones are seen

const stage = get("stage", HTMLElement);
const left = get("left", HTMLCanvasElement);
const right = get("right", HTMLCanvasElement);

/** @type {Record<string, string>} addresses by what they show */
let addresses = {};
/** @type {Record<string, HTMLImageElement>} */
let pictures = {};
/** @type {{ difference?: HTMLCanvasElement, outline?: HTMLCanvasElement }} */
let made = {};
let edit = "edited"; // which of an item's edits is shown
/** before: held, the picture before stands in the place of the edit. x, y: what an exact picture shows of itself. */
export const view = { before: false, difference: false, outline: false, exact: false, single: false, x: 0.5, y: 0.5 };

/** Load an item's pictures by their addresses, {} where there is no item; draw() shows them. @param {Record<string, string>} found */
export async function take(found) {
    addresses = found;
    pictures = {};
    made = {};
    view.before = false;
    [view.x, view.y] = [0.5, 0.5];
    edit = edits()[0] ?? "edited";
    const loaded = await Promise.all(Object.entries(found).map(async ([name, address]) => [name, await load(address)]));
    pictures = Object.fromEntries(loaded);
}

/** @param {string} address @returns {Promise<HTMLImageElement>} */
async function load(address) {
    const image = new Image();
    image.src = address;
    await image.decode();
    return image;
}

/** The names of an item's edits. */
export function edits() {
    return Object.keys(addresses).filter((name) => name.startsWith("edited"));
}

export function nextEdit() {
    const all = edits();
    edit = all[(all.indexOf(edit) + 1) % all.length] ?? "edited";
    made = {};
    draw();
}

/** The picture before, and the mask if there is one. */
export function beforeAndMask() {
    return { picture: pictures.source, mask: pictures[mask()] };
}

function mask() {
    return "given_mask" in pictures ? "given_mask" : "mask";
}

export function draw() {
    stage.classList.toggle("single", view.single);
    stage.classList.toggle("exact", view.exact);
    if (!pictures.source) return;
    const showsDifference = view.difference && !view.before;
    if (showsDifference) made.difference ??= difference();
    const after = view.before ? pictures.source : showsDifference && made.difference ? made.difference : pictures[edit];
    paint(left, pictures.source);
    paint(right, after);
    const several = edits().length;
    const which = several > 1 ? ` ${edits().indexOf(edit) + 1} / ${several}` : "";
    const title = view.before ? "before" : showsDifference ? "difference" : "after";
    get("right-title", HTMLElement).textContent = say(title) + (title === "after" ? which : "");
    left.setAttribute("aria-label", say("before"));
    right.setAttribute("aria-label", say(title) + which);
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
export function pan(dx, dy) {
    if (!view.exact || !pictures[edit]) return;
    const rooms = [right.width - pictures[edit].naturalWidth, right.height - pictures[edit].naturalHeight];
    /** @param {number} at @param {number} by @param {number} room */
    const moved = (at, by, room) => (room < 0 ? Math.min(1, Math.max(0, at - (by * devicePixelRatio) / room)) : at);
    view.x = moved(view.x, dx, rooms[0]);
    view.y = moved(view.y, dy, rooms[1]);
    draw();
}

for (const canvas of [left, right]) {
    canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
    canvas.addEventListener("pointermove", (event) => {
        if (canvas.hasPointerCapture(event.pointerId)) pan(-event.movementX, -event.movementY);
    });
}
addEventListener("resize", draw);
