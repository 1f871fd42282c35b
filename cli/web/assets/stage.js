// The photograph with its map over it: colours of the best classes, or one class's heat map; a cell's classes under the pointer.
import { cells, photo } from "/assets/api.js";
import { h, percent } from "/assets/dom.js";

export class Stage {
  constructor(found, { opacity, heat, onCell }) {
    Object.assign(this, { found, onCell });
    this.photo = h("img", { class: "photo", alt: `Photograph ${found.id}`, draggable: "false" });
    this.cells = h("img", { class: "pixels", alt: "", draggable: "false" });
    this.heat = h("canvas", { class: "pixels", hidden: true });
    this.cell = h("div", { class: "hovered", hidden: true });
    this.notice = h("p", { class: "no-photo", hidden: true });
    this.element = h("div", { class: "stage", on: {
      pointermove: (event) => this.hover(event),
      pointerleave: () => this.hover(null),
    } }, this.photo, this.cells, this.heat, this.notice, this.cell);
    this.ready = new Promise((done) => this.load(done));
    if (found.map) this.cells.src = cells(found.row);
    else this.cells.hidden = true;
    this.setOpacity(opacity);
    this.setHeat(heat);
  }

  load(done) {
    this.photo.addEventListener("load", () => {
      this.aspect = this.photo.naturalWidth / this.photo.naturalHeight;
      this.fit();
      done(true);
    });
    this.photo.addEventListener("error", async () => {
      this.photo.hidden = true;
      this.element.classList.add("bare");
      this.aspect = shape(this.found) ?? 1;
      this.fit();
      const answer = await fetch(this.photo.src).then((response) => response.json()).catch(() => null);
      this.notice.textContent = `No photograph: ${answer?.error?.message ?? "it cannot be shown"}`;
      this.notice.hidden = false;
      done(false);
    });
    this.photo.src = photo(this.found.row, 1280);
  }

  /** As large as there is room for. */
  fit() {
    this.element.style.setProperty("--aspect", String(this.aspect));
  }

  setOpacity(percentage) {
    this.element.style.setProperty("--opacity", String(percentage / 100));
  }

  /** Shows how likely one class is at every location, instead of the best class of each; null: all classes. */
  setHeat(number) {
    const map = this.found.map;
    const one = map && number != null && map.names[number] != null;
    this.heat.hidden = !one;
    this.cells.hidden = !map || one;
    if (!one) return;
    this.heat.width = map.width;
    this.heat.height = map.height;
    const context = this.heat.getContext("2d");
    const pixels = context.createImageData(map.width, map.height);
    for (let y = 0; y < map.height; y++) {
      for (let x = 0; x < map.width; x++) {
        const rank = map.classes.findIndex((rows) => rows[y][x] === number);
        const share = rank < 0 ? 0 : map.probabilities[rank][y][x];
        pixels.data.set([...heatColour(share), 225], 4 * (y * map.width + x));
      }
    }
    context.putImageData(pixels, 0, 0);
  }

  hover(event) {
    const map = this.found.map;
    this.cell.hidden = !event || !map;
    if (!event || !map) {
      this.onCell(null);
      return;
    }
    const area = this.element.getBoundingClientRect();
    const x = Math.min(Math.max(Math.floor(((event.clientX - area.left) / area.width) * map.width), 0), map.width - 1);
    const y = Math.min(Math.max(Math.floor(((event.clientY - area.top) / area.height) * map.height), 0), map.height - 1);
    const place = { left: x / map.width, top: y / map.height, width: 1 / map.width, height: 1 / map.height };
    for (const [name, value] of Object.entries(place)) this.cell.style.setProperty(name, `${100 * value}%`);
    const classes = map.classes.map((rows, rank) => [rows[y][x], map.probabilities[rank][y][x]]);
    const there = classes.filter(([number]) => map.names[number] != null);
    this.onCell(`row ${y + 1}, column ${x + 1}: ` +
      there.map(([number, share]) => `${map.names[number].split(",")[0]} ${percent(share)}`).join(" · "));
  }
}

/** The image's width over its height, as the store has it; null where it does not. */
export function shape({ size }) {
  return size ? size[0] / size[1] : null;
}

/** From dark to light with what it stands for, told apart by every kind of sight: five colours of viridis, mixed. */
export function heatColour(share) {
  const colours = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  const at = Math.max(0, Math.min(1, share)) * (colours.length - 1);
  const low = Math.min(Math.floor(at), colours.length - 2);
  return colours[low].map((value, channel) => Math.round(value + (at - low) * (colours[low + 1][channel] - value)));
}
