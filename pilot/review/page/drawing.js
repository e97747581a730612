// @ts-check

const COLOUR = [240, 140, 0]; // of what is painted, over the picture

/** A mask that is painted over a picture, in the picture's own pixels. */
export class Drawing {
    /** @param {HTMLCanvasElement} canvas */
    constructor(canvas) {
        this.canvas = canvas;
        this.region = document.createElement("canvas");
        /** @type {HTMLImageElement | null} */
        this.picture = null;
        this.erases = false;
        this.brush = 24;
        /** @type {[number, number] | null} */
        this.last = null;
        canvas.addEventListener("pointerdown", (event) => {
            canvas.setPointerCapture(event.pointerId);
            this.last = this.place(event);
            this.stroke(event);
        });
        canvas.addEventListener("pointermove", (event) => canvas.hasPointerCapture(event.pointerId) && this.stroke(event));
    }

    /** @param {HTMLCanvasElement} canvas */
    static context(canvas) {
        const context = canvas.getContext("2d", { willReadFrequently: true });
        if (!context) throw new Error("no 2d canvas");
        return context;
    }

    /** Start on a picture, from the mask that it was edited with. @param {HTMLImageElement} picture @param {HTMLImageElement} [mask] */
    begin(picture, mask) {
        const [width, height] = [picture.naturalWidth, picture.naturalHeight];
        this.picture = picture;
        [this.canvas.width, this.canvas.height] = [this.region.width, this.region.height] = [width, height];
        this.brush = Math.max(4, Math.round(Math.max(width, height) / 24));
        this.erases = false;
        const context = Drawing.context(this.region);
        context.clearRect(0, 0, width, height);
        if (mask) {
            context.drawImage(mask, 0, 0, width, height);
            const found = context.getImageData(0, 0, width, height);
            for (let i = 0; i < found.data.length; i += 4) {
                found.data.set([...COLOUR, found.data[i] > 127 ? 255 : 0], i);
            }
            context.putImageData(found, 0, 0);
        }
        this.show();
    }

    clear() {
        Drawing.context(this.region).clearRect(0, 0, this.region.width, this.region.height);
        this.show();
    }

    show() {
        if (!this.picture) return;
        const context = Drawing.context(this.canvas);
        context.globalAlpha = 1;
        context.drawImage(this.picture, 0, 0, this.canvas.width, this.canvas.height);
        context.globalAlpha = 0.55;
        context.drawImage(this.region, 0, 0);
    }

    /** Where the pointer is in the picture, which stands in the middle of its box. @param {PointerEvent} event @returns {[number, number]} */
    place(event) {
        const { width, height } = this.canvas;
        const box = this.canvas.getBoundingClientRect();
        const scale = Math.min(box.width / width, box.height / height);
        const [left, top] = [box.left + (box.width - width * scale) / 2, box.top + (box.height - height * scale) / 2];
        return [(event.clientX - left) / scale, (event.clientY - top) / scale];
    }

    /** @param {PointerEvent} event */
    stroke(event) {
        const context = Drawing.context(this.region);
        const here = this.place(event);
        context.globalCompositeOperation = this.erases ? "destination-out" : "source-over";
        context.strokeStyle = `rgb(${COLOUR.join(",")})`;
        context.lineWidth = this.brush;
        context.lineCap = context.lineJoin = "round";
        context.beginPath();
        context.moveTo(...(this.last ?? here));
        context.lineTo(...here);
        context.stroke();
        context.globalCompositeOperation = "source-over";
        this.last = here;
        this.show();
    }

    /** The mask as a PNG in base64, white where it was painted; empty where nothing is. */
    png() {
        const { width, height } = this.region;
        const found = Drawing.context(this.region).getImageData(0, 0, width, height);
        let painted = false;
        for (let i = 0; i < found.data.length; i += 4) {
            const inside = found.data[i + 3] > 127;
            painted ||= inside;
            const level = inside ? 255 : 0;
            found.data.set([level, level, level, 255], i);
        }
        if (!painted) return "";
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [width, height];
        Drawing.context(canvas).putImageData(found, 0, 0);
        return canvas.toDataURL("image/png").split(",")[1];
    }
}
