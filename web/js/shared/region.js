// @ts-check
/**
 * The region that words look at, as AttentionMask makes it (nodes/mask_nodes.py, eta_core/masks.py), for drawing. Pure: it knows no page.
 *
 * @typedef {{ width: number, height: number, values: Float32Array }} Plane
 * @typedef {{ text: string, weight: number }} Phrase
 */

const EMBEDDING = "embedding:";

/** @param {string} text @returns {string[]} */
function parts(text) {
    return text
        .split(/[,\n]/)
        .map((part) => part.trim())
        .filter(Boolean);
}

/** A phrase of text such as "cat", "red ball:0.5" or "(red ball:0.5)"; its weight is NaN where it is none.
 * @param {string} part
 * @returns {Phrase}
 */
function parsePhrase(part) {
    let bare = part;
    while (bare.startsWith("(") && bare.endsWith(")")) bare = bare.slice(1, -1).trim();
    const name = bare.startsWith(EMBEDDING) ? EMBEDDING : "";
    const rest = bare.slice(name.length);
    const colon = rest.lastIndexOf(":");
    if (colon < 0) return { text: bare, weight: 1 };
    const weight = rest.slice(colon + 1).trim();
    return { text: name + rest.slice(0, colon).trim(), weight: weight ? Number(weight) : NaN };
}

/** @param {string} words @returns {Phrase[]} */
export function parsePhrases(words) {
    return parts(words).map(parsePhrase);
}

/** The same words with one more, or without it where it was there.
 * @param {string} words
 * @param {string} word
 */
export function toggle(words, word) {
    const all = parts(words);
    const others = all.filter((part) => parsePhrase(part).text !== word);
    return (others.length < all.length ? others : [...all, word]).join(", ");
}

/** The same words with the last phrase one word longer, "red" and then "ball": "red ball".
 * @param {string} words
 * @param {string} word
 */
export function extend(words, word) {
    const all = parts(words);
    const last = all.pop();
    return [...all, last ? `${last} ${word}` : word].join(", ");
}

/** The strongest weighted phrase at each pixel; null where one of them has no map or no weight.
 * @param {Map<string, Plane>} maps
 * @param {Phrase[]} phrases
 * @returns {Plane | null}
 */
export function join(maps, phrases) {
    const planes = phrases.map(({ text }) => maps.get(text));
    const [first] = planes;
    if (!first || !planes.every(Boolean) || !phrases.every(({ weight }) => weight > 0)) return null;
    const values = first.values.map((_, i) => {
        const each = phrases.map(({ weight }, k) => weight * /** @type {Plane} */ (planes[k]).values[i]);
        return Math.min(1, Math.max(0, ...each));
    });
    return { ...first, values };
}

/** @param {Plane} soft @param {number} threshold @returns {Plane} */
export function harden(soft, threshold) {
    return threshold > 0 ? { ...soft, values: soft.values.map((value) => (value > threshold ? 1 : 0)) } : soft;
}

/** The level that parts a plane's values into the two groups that differ most (Otsu), as eta_core.masks.otsu finds it.
 * @param {Plane} soft
 */
export function otsu({ values }) {
    const counts = Array.from({ length: 256 }, () => 0);
    for (const value of values) counts[Math.round(255 * value)] += 1;
    const total = counts.reduce((sum, count, step) => sum + count * step, 0);
    let [below, totalBelow, most, best] = [0, 0, 0, 0];
    counts.forEach((count, step) => {
        below += count;
        totalBelow += count * step;
        const apart = (total * below - values.length * totalBelow) ** 2 / Math.max(1, below * (values.length - below));
        if (apart > most) [most, best] = [apart, step];
    });
    return (best + 0.5) / 255;
}

/** At another size: whole blocks where `hard`, smooth where not.
 * @param {Plane} plane
 * @param {number} width
 * @param {number} height
 * @param {boolean} hard
 * @returns {Plane}
 */
export function enlarge(plane, width, height, hard) {
    const values = new Float32Array(width * height);
    const columns = hard ? blocks(plane.width, width) : between(plane.width, width);
    const rows = hard ? blocks(plane.height, height) : between(plane.height, height);
    const at = (/** @type {number} */ y, /** @type {number} */ x) => plane.values[y * plane.width + x];
    for (let y = 0; y < height; y++) {
        const [top, bottom, v] = rows[y];
        for (let x = 0; x < width; x++) {
            const [left, right, u] = columns[x];
            const upper = at(top, left) * (1 - u) + at(top, right) * u;
            const lower = at(bottom, left) * (1 - u) + at(bottom, right) * u;
            values[y * width + x] = upper * (1 - v) + lower * v;
        }
    }
    return { width, height, values };
}

/** @param {number} from @param {number} to @returns {[number, number, number][]} */
function blocks(from, to) {
    return Array.from({ length: to }, (_, i) => {
        const k = Math.floor((i * from) / to);
        return [k, k, 0];
    });
}

/** @param {number} from @param {number} to @returns {[number, number, number][]} */
function between(from, to) {
    return Array.from({ length: to }, (_, i) => {
        const place = Math.max(0, ((i + 0.5) * from) / to - 0.5);
        const k = Math.min(Math.floor(place), from - 1);
        return [k, Math.min(k + 1, from - 1), place - k];
    });
}

/** Grown by a disc of this radius in pixels; shrunk where it is negative.
 * @param {Plane} plane
 * @param {number} radius
 * @returns {Plane}
 */
export function grow(plane, radius) {
    if (Math.abs(radius) < 0.5) return plane;
    if (radius < 0) return invert(grow(invert(plane), -radius));
    const { width, height } = plane;
    const values = new Float32Array(plane.values.length);
    /** @type {Map<number, Float32Array>} */
    const spread = new Map();
    for (let dy = -Math.floor(radius); dy <= radius; dy++) {
        const reach = Math.floor(Math.sqrt(radius * radius - dy * dy));
        const wide = spread.get(reach) ?? widen(plane, reach);
        spread.set(reach, wide);
        for (let y = Math.max(0, -dy); y < Math.min(height, height - dy); y++) {
            for (let x = 0; x < width; x++) {
                const value = wide[(y + dy) * width + x];
                if (value > values[y * width + x]) values[y * width + x] = value;
            }
        }
    }
    return { width, height, values };
}

/** The largest value within `reach` pixels of the row, by the maxima of blocks from both ends (van Herk 1992, Gil and Werman 1993).
 * @param {Plane} plane
 * @param {number} reach
 */
function widen({ width, height, values }, reach) {
    const window = 2 * reach + 1;
    const padded = width + 2 * reach;
    const [forward, backward] = [new Float32Array(padded), new Float32Array(padded)];
    const wide = new Float32Array(values.length);
    for (let y = 0; y < height; y++) {
        const value = (/** @type {number} */ i) =>
            i < reach || i >= width + reach ? 0 : values[y * width + i - reach];
        for (let i = 0; i < padded; i++) forward[i] = i % window ? Math.max(forward[i - 1], value(i)) : value(i);
        for (let i = padded - 1; i >= 0; i--) {
            const ends = i === padded - 1 || (i + 1) % window === 0;
            backward[i] = ends ? value(i) : Math.max(backward[i + 1], value(i));
        }
        for (let x = 0; x < width; x++) wide[y * width + x] = Math.max(backward[x], forward[x + window - 1]);
    }
    return wide;
}

/** Gaussian blur; edges repeat the border.
 * @param {Plane} plane
 * @param {number} sigma
 * @returns {Plane}
 */
export function blur(plane, sigma) {
    if (sigma < 0.05) return plane;
    const radius = Math.floor(3 * sigma + 0.5);
    const taps = Array.from({ length: 2 * radius + 1 }, (_, i) => Math.exp(-0.5 * ((i - radius) / sigma) ** 2));
    const total = taps.reduce((sum, tap) => sum + tap, 0);
    const { width, height } = plane;
    const pass = (/** @type {Float32Array} */ values, /** @type {boolean} */ along) => {
        const out = new Float32Array(values.length);
        for (let y = 0; y < height; y++) {
            for (let x = 0; x < width; x++) {
                let sum = 0;
                for (let k = -radius; k <= radius; k++) {
                    const px = along ? Math.min(Math.max(x + k, 0), width - 1) : x;
                    const py = along ? y : Math.min(Math.max(y + k, 0), height - 1);
                    sum += taps[k + radius] * values[py * width + px];
                }
                out[y * width + x] = sum / total;
            }
        }
        return out;
    };
    return { width, height, values: pass(pass(plane.values, true), false) };
}

/** @param {Plane} plane @returns {Plane} */
export function invert(plane) {
    return { ...plane, values: plane.values.map((value) => 1 - value) };
}

/** @type {Record<string, (region: number, mask: number) => number>} */
const COMBINE = {
    replace: (_, mask) => mask,
    intersect: Math.min,
    union: Math.max,
    subtract: (region, mask) => Math.max(region - mask, 0),
    multiply: (region, mask) => region * mask,
};

/** @param {Plane} region @param {Plane} mask @param {string} how @returns {Plane} */
export function combine(region, mask, how) {
    return { ...region, values: region.values.map((value, i) => COMBINE[how](value, mask.values[i])) };
}

/** The node's mask from the joined attention of its words, drawn at `scale` of the picture's size.
 * @param {Plane} soft
 * @param {{ threshold: number, auto_threshold: boolean, grow: number, blur: number, invert: boolean, combine: string }} settings
 * @param {{ width: number, height: number, scale: number, mask: Plane | null }} drawn
 */
export function regionOf(soft, settings, { width, height, scale, mask }) {
    const threshold = settings.auto_threshold ? otsu(soft) : settings.threshold;
    const whole = enlarge(harden(soft, threshold), width, height, threshold > 0);
    const soften = blur(grow(whole, settings.grow * scale), settings.blur * scale);
    const region = settings.invert ? invert(soften) : soften;
    return mask ? combine(region, mask, settings.combine) : region;
}

/** Mean of a plane: the share of the picture that a mask covers.
 * @param {Plane} plane
 */
export function coverage({ values }) {
    return values.reduce((sum, value) => sum + value, 0) / values.length;
}
