// A crop's box over an image: dragged, resized and mirrored, by pointer or keyboard.
//
// A box is [x1, y1, x2, y2], fractions of the image's width and height; x1 > x2 is a mirrored view of the same region. An edge
// that is dragged past the one opposite mirrors the box, as it does in drawing programs.
import { h } from "/assets/dom.js";

const SMALLEST = 0.01;
const STEP = 0.02;
const FINE = 0.002;
const HANDLES = { nw: [0, 1], n: [null, 1], ne: [2, 1], e: [2, null], se: [2, 3], s: [null, 3], sw: [0, 3], w: [0, null] };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export const WHOLE = [0, 0, 1, 1];
const limited = (value) => Math.max(0, Math.min(1, value));

/** A box out of a text such as "0,0,0.5,1"; null if it is none. */
export function parseBox(text) {
  const numbers = (text ?? "").split(",").map((part) => (part.trim() ? Number(part) : NaN));
  if (numbers.length !== 4 || !numbers.every(Number.isFinite)) return null;
  const box = numbers.map(limited);
  return Math.abs(box[2] - box[0]) >= SMALLEST / 2 && Math.abs(box[3] - box[1]) >= SMALLEST / 2 ? box : null;
}

export const formatBox = (box) => box.map((edge) => String(Number(edge.toFixed(4)))).join(",");

/** Left, top, right, bottom. */
export function sides([x1, y1, x2, y2]) {
  return [Math.min(x1, x2), Math.min(y1, y2), Math.max(x1, x2), Math.max(y1, y2)];
}

export function moved(box, dx, dy) {
  const [left, top, right, bottom] = sides(box);
  const x = Math.max(-left, Math.min(1 - right, dx));
  const y = Math.max(-top, Math.min(1 - bottom, dy));
  return [box[0] + x, box[1] + y, box[2] + x, box[3] + y];
}

/** With its right and lower sides moved, as seen. */
export function resized(box, dx, dy) {
  const found = [...box];
  const right = box[0] <= box[2] ? 2 : 0;
  const lower = box[1] <= box[3] ? 3 : 1;
  const [left, top] = sides(box);
  found[right] = Math.max(left + SMALLEST, limited(box[right] + dx));
  found[lower] = Math.max(top + SMALLEST, limited(box[lower] + dy));
  return found;
}

export function mirrored([x1, y1, x2, y2], sideways) {
  return sideways ? [x2, y1, x1, y2] : [x1, y2, x2, y1];
}

export class CropBox {
  /** @param changed called with the box whenever it has changed */
  constructor(stage, box, changed) {
    Object.assign(this, { stage, box, changed });
    this.element = h("div", {
      class: "box", tabindex: 0, role: "group", "aria-roledescription": "crop box", id: "box",
      "aria-describedby": "box-help",
      on: { pointerdown: (event) => this.grab(event, null), keydown: (event) => this.pressed(event) },
    });
    for (const name of Object.keys(HANDLES)) {
      this.element.append(h("span", { class: `handle ${name}`, "data-handle": name, on: {
        pointerdown: (event) => this.grab(event, name),
      } }));
    }
    stage.append(this.element);
    stage.addEventListener("pointerdown", (event) => this.draw(event));
    this.place();
  }

  set(box) {
    this.box = box;
    this.place();
    this.changed(box);
  }

  place() {
    const [left, top, right, bottom] = sides(this.box);
    const style = { left, top, width: right - left, height: bottom - top };
    for (const [name, value] of Object.entries(style)) this.element.style.setProperty(name, `${100 * value}%`);
    this.element.classList.toggle("mirrored", this.box[0] > this.box[2]);
    this.element.classList.toggle("upside-down", this.box[1] > this.box[3]);
    const mirror = this.box[0] > this.box[2] ? ", mirrored" : "";
    this.element.setAttribute("aria-label", `Crop: ${formatBox([left, top, right, bottom])}${mirror}`);
  }

  at(event) {
    const area = this.stage.getBoundingClientRect();
    return [limited((event.clientX - area.left) / area.width), limited((event.clientY - area.top) / area.height)];
  }

  grab(event, handle) {
    if (event.button) return;
    event.stopPropagation();
    event.preventDefault();
    this.element.focus({ preventScroll: true });
    const start = this.box;
    const [x0, y0] = this.at(event);
    this.follow(event, (x, y) => {
      if (!handle) return moved(start, x - x0, y - y0);
      const [across, down] = this.edges(start, handle);
      const box = [...start];
      if (across != null) box[across] = x;
      if (down != null) box[down] = y;
      return box;
    });
  }

  /** Which numbers of a box a handle moves; a mirrored box has its edges the other way round. */
  edges(box, handle) {
    const [across, down] = HANDLES[handle];
    return [
      across != null && box[0] > box[2] ? 2 - across : across,
      down != null && box[1] > box[3] ? 4 - down : down,
    ];
  }

  draw(event) {
    if (event.button || event.target.closest("a, button, input")) return;
    const [x0, y0] = this.at(event);
    event.preventDefault();
    this.element.focus({ preventScroll: true });
    this.follow(event, (x, y) => [x0, y0, x, y]);
  }

  follow(event, boxAt) {
    const move = (next) => {
      const box = boxAt(...this.at(next));
      if (Math.abs(box[2] - box[0]) >= SMALLEST && Math.abs(box[3] - box[1]) >= SMALLEST) this.set(box);
    };
    const end = () => {
      removeEventListener("pointermove", move);
      removeEventListener("pointerup", end);
      removeEventListener("pointercancel", end);
    };
    addEventListener("pointermove", move);
    addEventListener("pointerup", end);
    addEventListener("pointercancel", end);
  }

  pressed(event) {
    const arrow = ARROWS[event.key];
    if (!arrow || event.altKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    const step = event.ctrlKey ? FINE : STEP;
    const change = event.shiftKey ? resized : moved;
    this.set(change(this.box, arrow[0] * step, arrow[1] * step));
  }
}
