// The page of all images: search, filters, the grid.
import { filtersOf, link, note } from "/assets/address.js";
import { get } from "/assets/api.js";
import { count, h, quiet } from "/assets/dom.js";
import { Grid } from "/assets/grid.js";

const AGAIN = 1500;

export function showImages(content, parameters, info) {
  document.title = "Images · labelstore";
  let grid = null;
  let suggested = null;
  let timer = null;
  const summary = h("p", { class: "summary", role: "status" });
  const maps = h("input", { type: "checkbox", name: "maps", checked: parameters.maps === "1" });
  const form = makeForm(parameters, maps, (now) => start(now));
  const chips = h("div", { class: "chips" });
  content.append(h("h1", { class: "visually-hidden" }, "Images"), form, chips, summary);
  info.then((found) => found.has_targets || form.querySelector(".disagrees").remove()).catch(() => {});

  function start(now, at = 0) {
    parameters = { ...now, maps: maps.checked ? "1" : "" };
    note("/", { ...parameters, at: at || "" });
    grid?.leave();
    grid?.element.remove();
    clearTimeout(timer);
    grid = new Grid({
      load: async (offset, limit) => {
        const found = await get("ids", { ...filtersOf(parameters), offset, limit });
        tell(found);
        return found;
      },
      href: (image, index) => link("/image", { ...filtersOf(parameters), id: image.id, at: index }),
      maps: maps.checked,
      start: at,
      onMove: quiet(250, (index) => note("/", { ...parameters, at: index || "" })),
    });
    grid.onError = (error) => summary.replaceChildren(h("span", { class: "error" }, error.message));
    content.append(grid.element);
    suggest(now.q ?? "");
    showChosen(now.class);
  }

  function tell(found) {
    const all = found.total === 1 ? "1 image" : `${count(found.total)} images`;
    const filtered = Object.keys(filtersOf(parameters)).length > 0;
    const partly = filtered && !found.surveyed.finished;
    summary.replaceChildren(all, partly ? `, of ${count(found.surveyed.rows)} maps looked at by now` : "");
    if (partly) {
      clearTimeout(timer);
      timer = setTimeout(again, AGAIN);
    }
  }

  async function again() {
    // More maps have been looked at: what is shown stays, the total grows.
    const shown = grid;
    const found = await get("ids", { ...filtersOf(parameters), offset: 0, limit: 1 }).catch(() => null);
    if (!found || shown !== grid || grid.left) return;
    tell(found);
    if (found.total !== grid.total && grid.y === 0) start(parameters);
  }

  // Classes whose name fits what is searched for: to filter by one of them is a click away.
  async function suggest(text) {
    suggested?.abort();
    chips.replaceChildren();
    if (text.trim().length < 2) return;
    suggested = new AbortController();
    const found = await get("classes", { q: text, order: "images", limit: 6 }, suggested.signal).catch(() => null);
    const there = found?.classes.filter((entry) => entry.images > 0) ?? [];
    chips.replaceChildren(...there.map((entry) =>
      h("a", { class: "chip", href: link("/", { class: entry.class }), "data-link": true },
        h("span", { class: "dot", style: { background: entry.colour } }), `${entry.name.split(",")[0]} · ${count(entry.images)}`)));
  }

  async function showChosen(number) {
    if (!number) return;
    const found = await classNamed(number).catch(() => null);
    if (found) chips.replaceChildren(h("span", { class: "chip chosen" },
      h("span", { class: "dot", style: { background: found.colour } }), `class ${found.class}: ${found.name}`));
  }

  maps.addEventListener("change", () => {
    grid.setMaps(maps.checked);
    parameters = { ...parameters, maps: maps.checked ? "1" : "" };
    note("/", parameters);
  });
  start({ ...filtersOf(parameters) }, Number(parameters.at) || 0);
  return () => {
    grid?.leave();
    clearTimeout(timer);
  };
}

async function classNamed(number) {
  const found = await get("classes", { offset: number, limit: 1 });
  return found.classes[0];
}

function makeForm(parameters, maps, changed) {
  const field = (name, label, attributes) =>
    h("label", { class: name }, h("span", {}, label), h("input", { name, value: parameters[name] ?? "", ...attributes }));
  const choice = (name, label, options) =>
    h("label", { class: name }, h("span", {}, label), h("select", { name }, options.map(([value, text]) =>
      h("option", { value, selected: (parameters[name] ?? "") === value }, text))));
  const form = h("form", { class: "filters", role: "search", on: {
    submit: (event) => event.preventDefault(),
    change: (event) => event.target !== maps && read(),
    input: (event) => event.target.name === "q" && later(),
  } },
    field("q", "Search", { id: "search", type: "search", placeholder: "image id or class name", autocomplete: "off", maxlength: 200 }),
    choice("status", "Rows", [["", "all"], ["done", "done"], ["failed", "failed"], ["pending", "pending"]]),
    choice("several", "Classes in the map", [["", "any"], ["0.1", "two or more, 10 % each"], ["0.2", "two or more, 20 % each"],
      ["0.3", "two or more, 30 % each"]]),
    choice("entropy", "Entropy", [["", "any"], ["0.5", "0.5 or more"], ["1", "1 or more"], ["2", "2 or more"], ["3", "3 or more"]]),
    choice("order", "Order", [["", "by id"], ["doubt", "doubtful labels first"], ["entropy", "highest entropy first"],
      ["classes", "most classes first"]]),
    h("label", { class: "check disagrees" }, h("input", { type: "checkbox", name: "disagrees", value: "true",
      checked: parameters.disagrees === "true" }), "disagrees with its label"),
    h("label", { class: "check" }, maps, "maps"),
    h("input", { type: "hidden", name: "class", value: parameters.class ?? "" }),
    h("input", { type: "hidden", name: "share", value: parameters.share ?? "" }),
    h("button", { type: "button", class: "quiet", on: { click: () => clear() } }, "Clear"),
  );
  let last = JSON.stringify(given());
  function given() {
    return Object.fromEntries([...new FormData(form)].filter(([name, value]) => value && name !== "maps"));
  }
  function read() {
    // A field that is left tells of its change once more, between the press and the release of a click elsewhere.
    const now = JSON.stringify(given());
    if (now === last || !form.isConnected) return;
    last = now;
    changed(given());
  }
  function clear() {
    for (const input of form.elements) {
      if (input.type === "checkbox") input.checked = input === maps && maps.checked;
      else input.value = "";
    }
    read();
  }
  const later = quiet(200, read);
  return form;
}
