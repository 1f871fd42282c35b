// A grid of thumbnails over any number of images: only what is seen is there.
//
// Browsers have a highest element (some 17 million pixels). Where all rows would be higher, the scroll bar stands for them on a
// smaller scale, and the wheel and keys still move by what they would.
import { cells, photo } from "/assets/api.js";
import { count, h } from "/assets/dom.js";

const PAGE = 100;
const KEPT_PAGES = 40;
const HIGHEST = 8_000_000;
const LEAST_WIDTH = 168;
const GAP = 12;
const CAPTION = 46;
const OVERSCAN = 1;

export class Grid {
  /**
   * @param load (offset, limit) -> a promise of the API's answer
   * @param href (image, index) -> where an image leads
   */
  constructor({ load, href, maps, start = 0, onMove }) {
    Object.assign(this, { load, href, maps, onMove, total: 0, focus: start, y: 0, started: false });
    this.pages = new Map();
    this.asked = new Set();
    this.shown = new Map();
    this.list = h("ul", { class: "cells", "aria-label": "Images" });
    this.space = h("div", { class: "space" }, this.list);
    this.element = h("div", { class: "grid", on: {
      scroll: () => this.scrolled(),
      wheel: (event) => this.wheeled(event),
      keydown: (event) => this.pressed(event),
      focusin: (event) => this.focused(event),
    } }, this.space);
    this.observer = new ResizeObserver(() => this.lay());
    this.observer.observe(this.element);
    this.fetch(Math.floor(start / PAGE));
  }

  leave() {
    this.observer.disconnect();
    this.left = true;
  }

  setMaps(maps) {
    this.maps = maps;
    this.clear();
    this.render();
  }

  /** Measures, keeping the image that is focused in sight. */
  lay() {
    const inner = this.element.clientWidth - 2 * GAP;
    this.columns = Math.max(Math.floor((inner + GAP) / (LEAST_WIDTH + GAP)), 2);
    this.width = (inner - (this.columns - 1) * GAP) / this.columns;
    this.step = Math.round(this.width * 0.75) + CAPTION + GAP;
    this.real = Math.ceil(this.total / this.columns) * this.step + GAP;
    this.height = Math.min(this.real, HIGHEST);
    this.space.style.setProperty("height", `${this.height}px`);
    this.clear();
    if (this.total && !this.started) {
      this.started = true;
      this.reveal(this.focus);
    } else this.moveTo(this.y);
  }

  get ratio() {
    const view = this.element.clientHeight;
    return this.height > view ? (this.real - view) / (this.height - view) : 1;
  }

  scrolled() {
    // The scroll bar has moved; not by moveTo, whose place it only rounds.
    if (Math.abs(this.element.scrollTop - this.y / this.ratio) > 1) this.y = this.element.scrollTop * this.ratio;
    this.render();
  }

  wheeled(event) {
    if (this.ratio === 1 || event.ctrlKey) return;
    event.preventDefault();
    this.moveTo(this.y + event.deltaY * (event.deltaMode === 1 ? 40 : 1));
  }

  moveTo(y) {
    this.y = Math.max(0, Math.min(y, this.real - this.element.clientHeight));
    this.element.scrollTop = this.y / this.ratio;
    this.render();
  }

  /** Brings an image into sight. */
  reveal(index) {
    const top = Math.floor(index / this.columns) * this.step;
    const view = this.element.clientHeight;
    if (top < this.y) this.moveTo(top);
    else if (top + this.step + GAP > this.y + view) this.moveTo(top + this.step + GAP - view);
    else this.render();
  }

  clear() {
    for (const cell of this.shown.values()) cell.remove();
    this.shown.clear();
  }

  render() {
    if (!this.columns || this.left) return;
    const first = Math.max(Math.floor(this.y / this.step) - OVERSCAN, 0) * this.columns;
    const last = Math.min((Math.ceil((this.y + this.element.clientHeight) / this.step) + OVERSCAN) * this.columns, this.total);
    for (const [index, cell] of this.shown) {
      if (index < first || index >= last) {
        if (cell.contains(document.activeElement)) this.element.focus?.();
        cell.remove();
        this.shown.delete(index);
      }
    }
    for (let index = first; index < last; index++) {
      let cell = this.shown.get(index);
      if (!cell) {
        cell = this.cell(index);
        this.shown.set(index, cell);
        const after = this.shown.get(index - 1);
        if (after) after.after(cell);
        else this.list.prepend(cell);
      }
      this.place(cell, index);
    }
    this.wanted = [...new Set([first, last - 1].map((index) => Math.floor(Math.max(index, 0) / PAGE)))];
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.wanted.forEach((page) => this.fetch(page)), this.pages.size ? 40 : 0);
    this.onMove?.(Math.min(Math.ceil(this.y / this.step) * this.columns, Math.max(this.total - 1, 0)));
  }

  place(cell, index) {
    // Where it is seen is by y; where the list lies is by the scroll bar.
    const top = Math.floor(index / this.columns) * this.step - this.y + this.element.scrollTop + GAP;
    const left = (index % this.columns) * (this.width + GAP) + GAP;
    cell.style.setProperty("transform", `translate(${left}px, ${Math.round(top)}px)`);
    cell.style.setProperty("width", `${this.width}px`);
    cell.style.setProperty("height", `${this.step - GAP}px`);
  }

  imageAt(index) {
    return this.pages.get(Math.floor(index / PAGE))?.[index % PAGE];
  }

  cell(index) {
    const image = this.imageAt(index);
    const item = h("li", { class: "cell", "aria-setsize": this.total, "aria-posinset": index + 1 });
    item.append(image ? this.filled(image, index) : h("span", { class: "waiting" }));
    return item;
  }

  filled(image, index) {
    const picture = h("span", { class: "thumb" });
    if (image.status === "failed") picture.classList.add("missing");
    else picture.append(h("img", { src: photo(image.row, 256), alt: "", loading: "lazy", decoding: "async", on: {
      error: (event) => {
        event.target.remove();
        picture.classList.add("missing");
      },
    } }));
    if (this.maps && image.status === "done") picture.append(h("img", { class: "pixels", src: cells(image.row), alt: "" }));
    if (image.status !== "done") picture.append(h("span", { class: `tag ${image.status}` }, image.status));
    else if (image.disagrees) picture.append(h("span", { class: "tag differs" }, "differs"));
    const said = image.best ? `${image.best.name.split(",")[0]}, ${Math.round(100 * image.best.probability)} %` : image.status;
    return h(
      "a",
      { href: this.href(image, index), "data-link": true, "data-index": index, tabindex: index === this.focus ? 0 : -1,
        title: image.id },
      picture,
      h("span", { class: "name" }, image.id),
      h("span", { class: "said" }, said),
    );
  }

  async fetch(page) {
    if (this.asked.has(page) || page < 0) return;
    this.asked.add(page);
    try {
      const found = await this.load(page * PAGE, PAGE);
      if (this.left) return;
      this.pages.set(page, found.images);
      if (this.pages.size > KEPT_PAGES) {
        const oldest = this.pages.keys().next().value;
        this.pages.delete(oldest);
        this.asked.delete(oldest);
      }
      if (found.total !== this.total) {
        this.total = found.total;
        this.focus = Math.min(this.focus, Math.max(this.total - 1, 0));
        this.lay();
      } else this.refill(page);
    } catch (error) {
      this.asked.delete(page);
      if (!this.left) this.onError?.(error);
    }
  }

  refill(page) {
    for (const [index, cell] of this.shown) {
      const image = Math.floor(index / PAGE) === page && this.imageAt(index);
      if (image) cell.replaceChildren(this.filled(image, index));
    }
    if (this.toFocus != null) this.focusOn(this.toFocus);
  }

  focused(event) {
    const index = Number(event.target.dataset?.index);
    if (!Number.isInteger(index) || index === this.focus) return;
    this.shown.get(this.focus)?.querySelector("a")?.setAttribute("tabindex", "-1");
    this.focus = index;
    event.target.setAttribute("tabindex", "0");
  }

  focusOn(index) {
    this.reveal(index);
    const anchor = this.shown.get(index)?.querySelector("a");
    this.toFocus = anchor ? null : index;
    anchor?.focus({ preventScroll: true });
  }

  pressed(event) {
    const rows = Math.max(Math.floor(this.element.clientHeight / this.step), 1) * this.columns;
    const steps = {
      ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns,
      PageUp: -rows, PageDown: rows, Home: -this.total, End: this.total,
    };
    if (!(event.key in steps) || event.ctrlKey || event.altKey || !this.total) return;
    event.preventDefault();
    this.focusOn(Math.max(0, Math.min(this.focus + steps[event.key], this.total - 1)));
  }

  get summary() {
    return this.total === 1 ? "1 image" : `${count(this.total)} images`;
  }
}
