// @ts-check
/** EtaSchedule's curve: drawn in the node, dragged by mouse or keys, written into the node's own fields. */
import { app } from "../../../scripts/app.js";
import { asPoints, curveOf, etaAt, format, round, stepTimes } from "./shared/eta_curve.js";
import { addWidget, after, field, linked, once, sourceOf, style, write } from "./shared/widget.js";
import { say } from "./shared/words.js";

/** @typedef {import("./shared/eta_curve.js").Fields} Fields */
/** @typedef {import("./shared/eta_curve.js").Point} Point */
/** @typedef {import("./shared/widget.js").GraphNode} GraphNode */

const FIELDS = ["preset", "start_t", "start_eta", "end_t", "end_eta", "power", "curve"];
const HEIGHT = 150;
const EDGE = { left: 30, right: 12, top: 22, bottom: 22 };
const STEP = 0.01;
const STYLE = `
.eta-curve { width: 100%; height: ${HEIGHT}px; font: 11px sans-serif; color: var(--input-text, #ddd); user-select: none; }
.eta-curve svg { width: 100%; height: 100%; display: block; background: var(--comfy-input-bg, #222); border-radius: 6px; touch-action: none; }
.eta-curve text { fill: currentColor; opacity: 0.75; }
.eta-curve .grid { stroke: currentColor; opacity: 0.18; }
.eta-curve .line { fill: none; stroke: #f0b040; stroke-width: 2; }
.eta-curve .area { fill: #f0b040; opacity: 0.14; }
.eta-curve .step { stroke: #f0b040; opacity: 0.55; }
.eta-curve .point { fill: #f0b040; stroke: var(--comfy-input-bg, #222); stroke-width: 1.5; cursor: grab; }
.eta-curve .point:focus { outline: none; stroke: currentColor; stroke-width: 2.5; }
.eta-curve .problem { fill: #ff7070; opacity: 1; }
`;

/** @template {keyof SVGElementTagNameMap} K
 * @param {K} kind
 * @param {Record<string, string | number>} attributes
 * @param {string} [text]
 */
function svg(kind, attributes, text) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", kind);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
    if (text !== undefined) element.textContent = text;
    return element;
}

/** The samplers that a schedule goes to.
 * @param {GraphNode} node
 * @returns {GraphNode[]}
 */
function samplersOf(node) {
    const targets = (node.outputs?.[0]?.links ?? []).map((id) => node.graph?.getNodeById(node.graph.getLink?.(id)?.target_id));
    return targets.filter((target) => target?.comfyClass === "EtaSampler");
}

/** Times and etas of the last run of each sampler.
 * @type {WeakMap<GraphNode, [number, number][]>}
 */
const taken = new WeakMap();

/** @type {WeakMap<GraphNode, CurveEditor>} */
const editors = new WeakMap();

/** The times of the steps that the schedule is sampled at: those of the last run while its number of steps is still asked for, else those of
 * the paper's grid.
 * @param {GraphNode} node
 * @returns {number[]}
 */
function timesOf(node) {
    for (const sampler of samplersOf(node)) {
        const steps = sourceOf(sampler, "inversion")?.widgets?.find((widget) => widget.name === "steps")?.value;
        const last = taken.get(sampler)?.map(([time]) => time);
        if (last && (steps === undefined || steps === last.length)) return last;
        if (Number.isInteger(steps) && steps > 0 && steps < 1000) return stepTimes(steps);
    }
    return stepTimes(50);
}

class CurveEditor {
    /** @param {GraphNode} node */
    constructor(node) {
        this.node = node;
        this.element = document.createElement("div");
        this.element.className = "eta-curve";
        this.picture = svg("svg", { role: "group", "aria-label": say("curve") });
        this.element.append(this.picture);
        /** @type {number | null} */
        this.held = null;
        /** @type {number | null} */
        this.named = null;
        this.ended = new AbortController();
        const options = { signal: this.ended.signal };
        this.picture.addEventListener("pointerdown", (event) => this.grab(event), options);
        this.picture.addEventListener("pointermove", (event) => this.move(event), options);
        this.picture.addEventListener("pointerup", (event) => this.drop(event), options);
        this.picture.addEventListener("pointercancel", (event) => this.drop(event), options);
        this.picture.addEventListener("dblclick", (event) => this.add(event), options);
        this.picture.addEventListener("keydown", (event) => this.key(event), options);
        this.picture.addEventListener("focusin", (event) => this.name(event), options);
        this.picture.addEventListener("pointerenter", () => this.draw(), options);
        this.watcher = new ResizeObserver(() => this.draw());
        this.watcher.observe(this.element);
        for (const name of FIELDS) after(field(node, name), "callback", () => this.held ?? this.draw());
    }

    end() {
        this.ended.abort();
        this.watcher.disconnect();
    }

    /** @returns {Fields} */
    get fields() {
        return /** @type {any} */ (Object.fromEntries(FIELDS.map((name) => [name, field(this.node, name).value])));
    }

    /** The curve that will be sampled, as far as the page knows it. */
    get curve() {
        return linked(this.node, FIELDS).length ? null : curveOf(this.fields);
    }

    /** Puts points into the fields: the two ends of a preset that has them stay its own, everything else becomes a custom curve.
     * @param {Point[]} points
     */
    put(points) {
        const { preset } = this.fields;
        if (preset === "constant" && points.length === 1) write(this.node, { end_t: points[0].t, end_eta: points[0].eta });
        else if ((preset === "linear" || preset === "cosine") && points.length === 2) {
            const [start, end] = points;
            write(this.node, { start_t: start.t, start_eta: start.eta, end_t: end.t, end_eta: end.eta });
        } else if (preset === "custom") write(this.node, { curve: format(points) });
        else write(this.node, { curve: format(points), power: 1, preset: "custom" });
    }

    /** A change by hand, then drawn.
     * @param {() => void} change
     */
    change(change) {
        once(change);
        this.draw();
    }

    get size() {
        return { width: Math.max(120, this.element.clientWidth), height: Math.max(80, this.element.clientHeight) };
    }

    /** @param {Point} point */
    place({ t, eta }) {
        const { width, height } = this.size;
        return {
            x: EDGE.left + (1 - t) * (width - EDGE.left - EDGE.right),
            y: height - EDGE.bottom - eta * (height - EDGE.top - EDGE.bottom),
        };
    }

    /** The point of the plane under the pointer; the page may have scaled the node.
     * @param {MouseEvent} event
     * @returns {Point}
     */
    under(event) {
        const { width, height } = this.size;
        const box = this.picture.getBoundingClientRect();
        const x = ((event.clientX - box.left) / box.width) * width;
        const y = ((event.clientY - box.top) / box.height) * height;
        const t = 1 - (x - EDGE.left) / (width - EDGE.left - EDGE.right);
        const eta = (height - EDGE.bottom - y) / (height - EDGE.top - EDGE.bottom);
        return { t: within(t, 0, 1), eta: within(eta, 0, 1) };
    }

    /** @param {EventTarget | null} target */
    indexOf(target) {
        const index = target instanceof Element ? target.getAttribute("data-index") : null;
        return index === null ? null : Number(index);
    }

    /** @param {PointerEvent} event */
    grab(event) {
        event.stopPropagation();
        const index = this.indexOf(event.target);
        if (index === null || event.button !== 0 || !event.isPrimary) return;
        event.preventDefault();
        this.held = this.named = index;
        this.picture.setPointerCapture(event.pointerId);
        this.draw();
    }

    /** @param {PointerEvent} event */
    move(event) {
        if (this.held === null) return;
        event.stopPropagation();
        this.shift(this.held, this.under(event));
        this.draw();
    }

    /** @param {PointerEvent} event */
    drop(event) {
        if (this.held === null) return;
        event.stopPropagation();
        const index = this.held;
        this.held = null;
        this.change(() => {}); // begun and ended here: an undo under the hand would take the end of an open change away
        this.focus(index);
    }

    /** Moves a point between its neighbours; in time only where they leave it room.
     * @param {number} index
     * @param {Point} to
     */
    shift(index, to) {
        const { curve } = this;
        if (!curve || index >= curve.points.length) return;
        const points = curve.points.map((point) => ({ ...point }));
        const low = index > 0 ? points[index - 1].t + STEP : 0;
        const high = index < points.length - 1 ? points[index + 1].t - STEP : 1;
        const t = low <= high ? Number(within(round(to.t), low, high).toFixed(6)) : points[index].t;
        points[index] = { t, eta: round(within(to.eta, 0, 1)) };
        this.put(points);
    }

    /** @param {MouseEvent} event */
    add(event) {
        event.stopPropagation();
        const { curve } = this;
        if (!curve || this.indexOf(event.target) !== null) return;
        const { t, eta } = this.under(event);
        const point = { t: round(t), eta: round(eta) };
        const others = asPoints(curve).filter((other) => Math.abs(other.t - point.t) >= STEP);
        const points = [...others, point].sort((a, b) => a.t - b.t);
        this.change(() => write(this.node, { curve: format(points), power: 1, preset: "custom" }));
        this.focus(points.indexOf(point));
    }

    /** @param {KeyboardEvent} event */
    key(event) {
        const index = this.indexOf(event.target);
        const { curve } = this;
        if (index === null || !curve) return;
        const by = event.shiftKey ? 10 * STEP : STEP;
        const { t, eta } = curve.points[index];
        /** @type {Record<string, Point>} */
        const moves = {
            ArrowLeft: { t: t + by, eta },
            ArrowRight: { t: t - by, eta },
            ArrowUp: { t, eta: eta + by },
            ArrowDown: { t, eta: eta - by },
        };
        if (event.key in moves) this.change(() => this.shift(index, moves[event.key]));
        else if ((event.key === "Delete" || event.key === "Backspace") && curve.points.length > 1) {
            const points = asPoints(curve);
            points.splice(index, 1);
            this.change(() => write(this.node, { curve: format(points), power: 1, preset: "custom" }));
        } else return;
        event.preventDefault();
        event.stopPropagation();
        this.focus(Math.min(index, (this.curve?.points.length ?? 1) - 1));
    }

    /** @param {FocusEvent} event */
    name(event) {
        const index = this.indexOf(event.target);
        if (index === this.named) return;
        this.named = index;
        this.draw();
        if (index !== null) this.focus(index);
    }

    /** @param {number} index */
    focus(index) {
        const point = /** @type {SVGElement | null} */ (this.picture.querySelector(`[data-index="${index}"]`));
        this.named = index;
        point?.focus({ preventScroll: true });
    }

    draw() {
        const { width, height } = this.size;
        const focused = this.indexOf(document.activeElement);
        const inside = this.picture.contains(document.activeElement);
        const [left, right, bottom] = [EDGE.left, width - EDGE.right, height - EDGE.bottom];
        this.picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
        this.picture.replaceChildren();
        for (const eta of [0, 0.5, 1]) {
            const { y } = this.place({ t: 0, eta });
            this.picture.append(
                svg("line", { class: "grid", x1: left, x2: right, y1: y, y2: y }),
                svg("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, String(eta)),
            );
        }
        this.picture.append(
            svg("text", { x: left, y: height - 6 }, say("noise")),
            svg("text", { x: right, y: height - 6, "text-anchor": "end" }, say("image")),
        );
        const { curve } = this;
        if (!curve) {
            const given = linked(this.node, FIELDS);
            const problem = given.length ? say("linked", given.join(", ")) : say("unreadable");
            this.picture.append(svg("text", { class: "problem", x: left, y: EDGE.top - 8 }, problem));
            return;
        }
        const times = Array.from({ length: 101 }, (_, i) => 1 - i / 100);
        const path = times.map((t) => this.place({ t, eta: etaAt(curve, t) })).map(({ x, y }) => `${x},${y}`);
        this.picture.append(
            svg("polygon", { class: "area", points: `${left},${bottom} ${path.join(" ")} ${right},${bottom}` }),
        );
        const steps = timesOf(this.node);
        const etas = steps.map((t) => etaAt(curve, t));
        steps.forEach((t, i) => {
            if (etas[i] <= 0) return;
            const { x, y } = this.place({ t, eta: etas[i] });
            this.picture.append(svg("line", { class: "step", x1: x, x2: x, y1: bottom, y2: y }));
        });
        this.picture.append(svg("polyline", { class: "line", points: path.join(" ") }));
        curve.points.forEach((point, i) => {
            const { x, y } = this.place(point);
            const about = `t ${round(point.t)}, eta ${round(point.eta)}`;
            const dot = svg("circle", { class: "point", cx: x, cy: y, r: 6, tabindex: 0, "data-index": i });
            dot.setAttribute("aria-label", about);
            dot.append(svg("title", {}, about));
            this.picture.append(dot);
        });
        const acting = etas.filter((eta) => eta > 0).length;
        const named = this.named === null ? null : curve.points[this.named];
        const summary = say("steps", acting, steps.length, round(Math.max(0, ...etas)));
        const title = named ? `t ${round(named.t)}  η ${round(named.eta)}   ·   ${summary}` : summary;
        this.picture.append(svg("text", { class: "readout", x: left, y: EDGE.top - 8 }, title));
        if (inside && focused !== null && this.held === null) this.focus(focused);
    }
}

/** @param {number} value @param {number} low @param {number} high */
function within(value, low, high) {
    return Math.min(Math.max(value, low), high);
}

app.registerExtension({
    name: "eta-inversion.curve",
    setup() {
        style(STYLE);
    },
    /** @param {any} node */
    nodeCreated(node) {
        if (node.comfyClass === "EtaSampler")
            after(node, "onExecuted", (output) => {
                if (!output?.eta_taken) return;
                taken.set(node, output.eta_taken);
                const schedule = sourceOf(node, "eta");
                if (schedule) editors.get(schedule)?.draw();
            });
        if (node.comfyClass !== "EtaSchedule") return;
        const editor = new CurveEditor(node);
        editors.set(node, editor);
        addWidget(node, "eta_curve", editor.element, HEIGHT);
        after(node, "onConfigure", () => editor.draw());
        after(node, "onConnectionsChange", () => editor.draw());
        after(node, "onRemoved", () => editor.end());
    },
});
