// The page of the store: what it says of itself, and what its maps say of the data set.
import { link } from "/assets/address.js";
import { get } from "/assets/api.js";
import { count, h, percent } from "/assets/dom.js";

const AGAIN = 2000;
const FAILURES = 50;

export function showStore(content, parameters, info) {
  document.title = "Store · labelstore";
  const facts = h("dl", { class: "facts" });
  const survey = h("div", { class: "survey" });
  const failures = h("section", {});
  let timer = null;
  let left = false;
  content.append(h("h1", {}, "Store"), facts, survey, failures);
  info.then((found) => facts.append(...found.facts.flatMap(({ name, value }) => [h("dt", {}, name), h("dd", {}, value)])))
    .catch((error) => facts.replaceWith(h("p", { class: "notice error" }, error.message)));

  async function look() {
    const found = await get("survey").catch(() => null);
    if (left || !found) return;
    survey.replaceChildren(...describe(found));
    if (!found.surveyed.finished) timer = setTimeout(look, AGAIN);
  }
  look();
  get("failures", { limit: FAILURES }).then((found) => left || showFailures(failures, found)).catch(() => {});
  return () => {
    left = true;
    clearTimeout(timer);
  };
}

function describe(found) {
  const { rows } = found.surveyed;
  const state = found.surveyed.finished ? `${count(rows)} maps looked at` : `${count(rows)} of ${count(found.of)} maps looked at ...`;
  const tiles = [
    ["several classes", rows ? percent(found.several / rows) : "–", `of images: two or more, each in ${percent(found.shown)} of the map or more`],
    ...(found.left_out ? [["left out", count(found.left_out.images),
      `images: their labels (${found.left_out.labels.map((each) => each.label).join(", ")}${found.left_out.others ? ", ..." : ""}) ` +
      `are no class of the annotator, or have only the name of one. view ${found.left_out.remedy}`]] : []),
    ["agreement", found.labelled ? percent(found.agree / found.labelled) : "–",
      found.labelled ? `of ${count(found.labelled)} single labels are the map's best class` : "images have no labels that are classes"],
  ];
  const sections = [
    h("p", { class: "faint", role: "status" }, state),
    h("div", { class: "tiles" }, tiles.map(([name, value, about]) =>
      h("div", { class: "tile" }, h("span", { class: "value" }, value), h("strong", {}, name), h("span", { class: "faint" }, about)))),
    h("section", {}, h("h2", {}, "Entropy of the images' soft labels"), histogram(found.entropy)),
    h("section", {}, h("h2", {}, "Classes"), classTable(found.classes, found.labelled > 0)),
  ];
  if (found.confusions.length) sections.push(h("section", {}, h("h2", {}, "Labels and maps that disagree"), confusionTable(found.confusions)));
  if (found.damaged.length) {
    sections.push(h("section", {}, h("h2", {}, "Maps that cannot be read"), h("ul", {}, found.damaged.map(({ message }) =>
      h("li", { class: "error" }, message)))));
  }
  return sections;
}

function histogram({ edges, images }) {
  const most = Math.max(...images, 1);
  const labels = images.map((number, bin) => `${edges[bin].toFixed(1)} to ${edges[bin + 1].toFixed(1)} nats: ${count(number)} images`);
  return h("ul", { class: "histogram" }, images.map((number, bin) =>
    h("li", { title: labels[bin] }, h("span", { class: "visually-hidden" }, labels[bin]),
      h("span", { class: "column", "aria-hidden": "true", style: { height: `${(100 * number) / most}%` } }),
      h("span", { class: "tick", "aria-hidden": "true" }, bin % 4 ? "" : edges[bin].toFixed(1)))));
}

function classTable(classes, labelled) {
  const heads = ["class", "best class of", "shown by", ...(labelled ? ["single label of", "agree"] : [])];
  return table(heads, classes.map((entry) => [
    h("a", { href: link("/", { class: entry.class }), "data-link": true }, entry.name),
    count(entry.best), count(entry.shown),
    ...(labelled ? [count(entry.labelled), entry.labelled ? percent(entry.agree / entry.labelled) : "–"] : []),
  ]), "Classes by the images whose best class they are");
}

function confusionTable(confusions) {
  return table(["single label", "the map says", "images"], confusions.map(({ label, best, images }) => [
    label.name,
    h("a", { href: link("/", { class: best.class, disagrees: "true" }), "data-link": true }, best.name),
    count(images),
  ]), "Single labels and best classes that differ, by images");
}

function table(heads, rows, caption) {
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption }, h("table", {},
    h("caption", { class: "visually-hidden" }, caption),
    h("thead", {}, h("tr", {}, heads.map((text) => h("th", { scope: "col" }, text)))),
    h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, place) => (place ? h("td", {}, cell) : h("th", { scope: "row" }, cell))))))));
}

function showFailures(section, { total, failures }) {
  if (!total) return;
  section.append(h("h2", {}, total === 1 ? "1 failed row" : `${count(total)} failed rows`),
    h("ul", { class: "failures" }, failures.map(({ id, reason }) =>
      h("li", {}, h("a", { href: link("/image", { id }), "data-link": true }, id), `: ${reason}`))));
  if (total > failures.length) section.append(h("p", {}, h("a", { href: link("/", { status: "failed" }), "data-link": true }, "All of them")));
}
