// @ts-check
/**
 * eta over time as EtaSchedule makes it (nodes/schedule_nodes.py, eta_core/eta.py), for drawing. Pure: it knows no page.
 *
 * @typedef {{ t: number, eta: number }} Point
 * @typedef {{ preset: string, start_t: number, start_eta: number, end_t: number, end_eta: number, power: number, curve: string }} Fields
 * @typedef {{ points: Point[], power: number, cosine: boolean }} Curve
 */

/** @type {Record<string, Point[]>} */
const PAPER = {
    paper_strong: [
        { t: 0.6, eta: 0 },
        { t: 1, eta: 0.7 },
    ],
    paper_gentle: [
        { t: 0.3, eta: 0 },
        { t: 1, eta: 0.2 },
    ],
    // the same at the flow's times of the same noise
    flow_strong: parse("0.695:0, 0.769:0.175, 0.836:0.35, 0.893:0.525, 0.936:0.7") ?? [],
    flow_gentle:
        parse(
            "0.454:0, 0.538:0.0286, 0.618:0.0571, 0.695:0.0857, 0.769:0.1143, 0.836:0.1429, 0.893:0.1714, 0.936:0.2",
        ) ?? [],
};

/** Points of text such as "0.6:0, 1:0.7"; null where it is none that Python would take.
 * @param {string} text
 * @returns {Point[] | null}
 */
export function parse(text) {
    const parts = text
        .split(/[,;\n]/)
        .map((part) => part.trim())
        .filter(Boolean);
    const points = parts.map((part) => {
        const numbers = part.split(":").map((number) => (number.trim() === "" ? NaN : Number(number)));
        return numbers.length === 2 ? { t: numbers[0], eta: numbers[1] } : { t: NaN, eta: NaN };
    });
    const valid = points.every(
        ({ t, eta }, i) => t >= 0 && t <= 1 && eta >= 0 && eta <= 1 && (i === 0 || t > points[i - 1].t),
    );
    return points.length && valid ? points : null;
}

/** @param {Point[]} points */
export function format(points) {
    return points.map(({ t, eta }) => `${t}:${eta}`).join(", ");
}

/** @param {number} value */
export function round(value) {
    return Math.round(value * 100) / 100;
}

/** The curve that the fields stand for; null where Python would refuse them.
 * @param {Fields} fields
 * @returns {Curve | null}
 */
export function curveOf(fields) {
    const { preset, start_t, start_eta, end_t, end_eta, power, curve } = fields;
    const ends = [
        { t: start_t, eta: start_eta },
        { t: end_t, eta: end_eta },
    ];
    const straight = { power: 1, cosine: false };
    if (preset in PAPER) return { ...straight, points: PAPER[preset] };
    if (preset === "constant") return { ...straight, points: [ends[1]] };
    const points = preset === "custom" && curve.trim() ? parse(curve) : end_t > start_t ? ends : null;
    if (!points) return null;
    return { points, power: preset === "custom" ? power : 1, cosine: preset === "cosine" };
}

/** eta at a time in 0..1.
 * @param {Curve} curve
 * @param {number} time
 */
export function etaAt({ points, power, cosine }, time) {
    const last = points[points.length - 1];
    if (time <= points[0].t) return points[0].eta;
    if (time >= last.t) return last.eta;
    const k = points.findIndex((point) => point.t > time) - 1;
    const [from, to] = [points[k], points[k + 1]];
    const u = (time - from.t) / (to.t - from.t);
    return from.eta + (to.eta - from.eta) * (cosine ? (1 - Math.cos(Math.PI * u)) / 2 : u ** power);
}

/** The times at which a sampling of the paper's grid asks for eta, noise first.
 * @param {number} steps
 */
export function stepTimes(steps) {
    const stride = Math.floor(1000 / steps);
    return Array.from({ length: steps }, (_, i) => (1 + (steps - 1 - i) * stride) / 999);
}

/** The same curve in points alone, as `curve` can hold it with power 1.
 * @param {Curve} curve
 * @returns {Point[]}
 */
export function asPoints(curve) {
    const { points, power, cosine } = curve;
    if (!cosine && power === 1) return points.map((point) => ({ ...point }));
    const dense = points.slice(0, -1).flatMap((from, i) => {
        const width = points[i + 1].t - from.t;
        return [0, 0.25, 0.5, 0.75].map((u) => from.t + u * width);
    });
    const times = [...dense, points[points.length - 1].t].map(round);
    return times.filter((t, i) => i === 0 || t > times[i - 1]).map((t) => ({ t, eta: round(etaAt(curve, t)) }));
}
