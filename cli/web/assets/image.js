// The page of one image: its map, its soft label, and the soft label of a crop that follows the box.
import { filtersOf, go, link, note } from "/assets/address.js";
import { get, latest, pool } from "/assets/api.js";
import { bars } from "/assets/bars.js";
import { CropBox, WHOLE, formatBox, mirrored, parseBox, sides } from "/assets/box.js";
import { h, isTyping, percent, quiet } from "/assets/dom.js";
import { Stage } from "/assets/stage.js";

const START = [0.25, 0.25, 0.75, 0.75];
const TOP = 5;
const LISTED = 12;
const CROPS = 8;

export function showImage(content, parameters) {
  const page = new ImagePage(content, parameters);
  page.start();
  return () => page.leave();
}

class ImagePage {
  constructor(content, parameters) {
    this.content = content;
    this.filters = filtersOf(parameters);
    this.state = {
      id: parameters.id ?? "",
      box: parseBox(parameters.box) ?? START,
      opacity: Math.max(0, Math.min(100, Number(parameters.opacity ?? 70) || 0)),
      heat: /^\d+$/.test(parameters.heat ?? "") ? Number(parameters.heat) : null,
      crops: /^\d+$/.test(parameters.crops ?? "") ? Number(parameters.crops) : null,
      at: /^\d+$/.test(parameters.at ?? "") ? Number(parameters.at) : null,
    };
    this.keydown = (event) => this.pressed(event);
    this.noteSoon = quiet(150, () => this.left || this.note());
  }

  async start() {
    document.title = `${this.state.id} · labelstore`;
    addEventListener("keydown", this.keydown);
    try {
      this.found = await get("maps", { id: this.state.id });
    } catch (error) {
      if (!this.left) this.content.append(h("h1", {}, this.state.id), h("p", { class: "notice error" }, error.message));
      return;
    }
    if (this.left) return;
    this.content.append(this.heading());
    if (this.found.map) this.showMap();
    else this.showWhyNot();
  }

  leave() {
    this.left = true;
    removeEventListener("keydown", this.keydown);
  }

  note() {
    const { id, box, opacity, heat, crops, at } = this.state;
    note("/image", { ...this.filters, id, box: formatBox(box), opacity: opacity === 70 ? "" : opacity, heat, crops, at });
  }

  heading() {
    const { target, row } = this.found;
    const label = target ? h("p", { class: "target" }, "Single label: ", h("strong", {}, labelOf(target))) : null;
    const step = (by, text) => h("button", { type: "button", class: "quiet", disabled: this.state.at == null,
      on: { click: () => this.step(by) } }, text);
    return h("div", { class: "heading" },
      h("a", { class: "back", href: link("/", { ...this.filters, at: this.state.at }), "data-link": true }, "All images"),
      h("h1", {}, this.found.id), label,
      h("span", { class: "steps" }, step(-1, "Previous"), step(1, "Next"), h("span", { class: "faint" }, `row ${row}`)));
  }

  showWhyNot() {
    const why = this.found.status === "failed" ? `This image failed: ${this.found.reason}` :
      "The label map of this image has not been made yet: run annotate again.";
    const stage = new Stage(this.found, { opacity: 0, heat: null, onCell: () => {} });
    this.content.append(h("p", { class: "notice error", role: "status" }, why), h("div", { class: "left" }, stage.element));
  }

  showMap() {
    const { state, found } = this;
    this.cellText = h("p", { class: "cell-text", role: "status" });
    this.stage = new Stage(found, { ...state, onCell: (text) => this.tellCell(text) });
    this.tellCell(null);
    this.crop = h("ol", { class: "bars", id: "crop-label", "aria-label": "Soft label of the crop" });
    this.verdict = h("p", { class: "verdict", role: "status" });
    this.preview = h("canvas", { class: "preview", role: "img", "aria-label": "The crop" });
    this.text = h("input", { id: "box-text", class: "box-text", value: formatBox(state.box), spellcheck: "false", on: {
      change: (event) => this.typed(event.target),
    } });
    this.legend = h("ul", { class: "legend", "aria-label": "Best class of each location" });
    this.strip = h("div", { class: "strip" });
    this.content.append(
      h("div", { class: "left" }, this.stage.element, this.cellText, this.tools(), this.strip),
      h("div", { class: "right" },
        h("section", {}, h("h2", {}, "This crop"), h("div", { class: "crop" }, this.preview, h("div", {}, this.crop)), this.verdict),
        h("section", {}, h("h2", {}, "Whole image"), h("ol", { class: "bars", id: "whole-label" }, bars(found.whole.slice(0, TOP), found.swatches))),
        h("section", {}, h("h2", {}, "Map"), h("p", { class: "faint" }, "Click a class for its heat map alone."), this.legend)));
    this.showLegend();
    const ask = latest((box) => pool(found.id, box, TOP), (label, error) => this.showCrop(label, error));
    this.box = new CropBox(this.stage.element, state.box, (box) => {
      state.box = box;
      this.text.value = formatBox(box);
      ask(box);
      this.drawPreview();
      this.noteSoon();
    });
    ask(state.box);
    this.stage.ready.then(() => {
      if (this.left) return;
      this.drawPreview();
      if (state.crops != null) this.showCrops(state.crops);
    });
  }

  tools() {
    const button = (text, key, click) => h("button", { type: "button", "aria-keyshortcuts": key, on: { click } }, text);
    return h("div", { class: "tools" },
      h("label", {}, "Map ", h("input", { type: "range", id: "opacity", min: 0, max: 100, value: this.state.opacity, on: {
        input: (event) => this.setOpacity(Number(event.target.value)),
      } })),
      button("Mirror", "f", () => this.mirror(true)),
      button("Whole image", "w", () => this.box.set(WHOLE)),
      button("Random crops", "r", () => this.showCrops((this.state.crops ?? -1) + 1)),
      h("label", {}, "Box ", this.text),
      h("span", { id: "box-help", class: "visually-hidden" },
        "Arrow keys move the crop, with Shift they resize it, with Control in small steps; f mirrors it."));
  }

  setOpacity(value) {
    this.state.opacity = value;
    this.stage.setOpacity(value);
    document.getElementById("opacity").value = String(value);
    this.noteSoon();
  }

  mirror(sideways) {
    this.box.set(mirrored(this.state.box, sideways));
  }

  typed(input) {
    const box = parseBox(input.value);
    input.setAttribute("aria-invalid", String(!box));
    if (box) this.box.set(box);
  }

  tellCell(text) {
    const { height, width } = this.found.map;
    this.cellText.textContent = text ?? `${height} x ${width} locations; point at one for its classes`;
  }

  showCrop(label, error) {
    if (this.left) return;
    if (error) {
      this.verdict.replaceChildren(h("span", { class: "error" }, error.message));
      return;
    }
    this.crop.replaceChildren(...bars(label, this.found.swatches));
    this.verdict.replaceChildren(...this.judge(label));
  }

  /** A crop's label beside the image's single label: what ReLabel is about. */
  judge(label) {
    const best = label[0];
    const { target, whole } = this.found;
    const own = !target ? whole[0].class : this.found.compared ? target.class : null;
    const said = target ? `the single label says ${labelOf(target)}` : `the whole image says ${whole[0].name}`;
    if (own == null) return [`This crop is ${best.name}; ${said}, which ${whyNot(target)}. ${REMEDY}`];
    if (own === best.class) return [h("span", { class: "same" }, "Same"), ` as ${said.replace(" says", ":")}.`];
    return [h("span", { class: "tag differs" }, "differs"), ` This crop is ${best.name}; ${said}.`];
  }

  showLegend() {
    const { map, swatches, other } = this.found;
    this.legend.replaceChildren(...map.shares.slice(0, LISTED).map(({ class: number, share, sure }) => {
      const swatch = swatches[number] ?? other;
      const pressed = this.state.heat === number;
      return h("li", {}, h("button", { type: "button", "aria-pressed": String(pressed), on: {
        click: () => this.setHeat(pressed ? null : number),
      } },
        h("span", { class: "letter", style: { background: swatch.colour, color: swatch.text } }, swatch.letter),
        h("span", { class: "name" }, map.names[number], sure ? null : h("span", { class: "faint" }, " unsure")),
        h("span", { class: "share" }, percent(share))));
    }));
  }

  setHeat(number) {
    this.state.heat = number;
    this.stage.setHeat(number);
    const focused = [...this.legend.querySelectorAll("button")].indexOf(document.activeElement);
    this.showLegend();
    if (focused >= 0) this.legend.querySelectorAll("button")[focused].focus();
    this.note();
  }

  drawPreview() {
    drawCrop(this.preview, this.stage, this.state.box, 150);
  }

  async showCrops(seed) {
    this.state.crops = seed;
    this.note();
    const aspect = this.found.size ? "" : this.stage.aspect.toFixed(4); // the server goes by the size that the store has
    const { crops } = await get("crops", { id: this.found.id, count: CROPS, seed, aspect, top: 2 });
    if (this.left) return;
    const { target, compared, whole } = this.found;
    const own = compared ? target.class : whole[0].class;
    const differing = crops.filter(({ label }) => label[0].class !== own).length;
    this.strip.replaceChildren(
      h("p", { class: "faint", role: "status" }, `${differing} of ${crops.length} random crops differ from ` +
        (compared ? "the single label." : "the whole image's best class.") +
        (target && !compared ? ` Its single label ${whyNot(target)}. ${REMEDY}` : "")),
      h("ul", { class: "crops", "aria-label": "Random training crops" }, crops.map(({ box, label }) => {
        const canvas = h("canvas", {});
        drawCrop(canvas, this.stage, box, 96);
        return h("li", {}, h("button", { type: "button", on: { click: () => this.box.set(box) } }, canvas,
          h("span", { class: "name" }, label[0].name.split(",")[0]),
          h("span", { class: "share" }, percent(label[0].probability)),
          label[0].class === own ? null : h("span", { class: "tag differs" }, "differs")));
      })));
  }

  async step(by) {
    const at = this.state.at + by;
    if (this.state.at == null || at < 0) return;
    const found = await get("ids", { ...this.filters, offset: at, limit: 1 });
    const image = found.images[0];
    if (!image || this.left) return;
    const { opacity } = this.state;
    go("/image", { ...this.filters, id: image.id, at, opacity: opacity === 70 ? "" : opacity });
  }

  pressed(event) {
    if (isTyping(event) || event.ctrlKey) return;
    const keys = { j: () => this.step(1), k: () => this.step(-1) };
    if (this.box) {
      Object.assign(keys, {
        b: () => this.box.element.focus(),
        f: () => this.mirror(true),
        v: () => this.mirror(false),
        w: () => this.box.set(WHOLE),
        r: () => this.showCrops((this.state.crops ?? -1) + 1),
        m: () => this.setOpacity(this.state.opacity ? 0 : 70),
      });
    }
    if (!(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  }
}

const REMEDY = "view --class-map FILE says which class it is.";

/** Why a single label is not held against maps. */
function whyNot({ class: number }) {
  return number == null ? "is no class of the annotator" : "has the name of a class of the annotator that none of its images shows";
}

/** An image's single label: the name of its class, beside the folder's where that is another. */
function labelOf({ name, class_name: known }) {
  return known && known !== name ? `${known} (${name})` : name;
}

/** Draws a crop as a training loop would see it, mirrored as it is; without a photograph nothing. */
function drawCrop(canvas, stage, box, side) {
  const { photo } = stage;
  const [left, top, right, bottom] = sides(box);
  if (!photo.naturalWidth) {
    canvas.hidden = true;
    return;
  }
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  const [across, down] = [box[0] > box[2] ? -1 : 1, box[1] > box[3] ? -1 : 1];
  context.setTransform(across, 0, 0, down, across < 0 ? side : 0, down < 0 ? side : 0);
  const { naturalWidth: width, naturalHeight: height } = photo;
  context.drawImage(photo, left * width, top * height, (right - left) * width, (bottom - top) * height, 0, 0, side, side);
}
