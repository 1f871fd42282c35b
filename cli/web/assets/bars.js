// A soft label as bars.
import { link } from "/assets/address.js";
import { h, percent } from "/assets/dom.js";

/** @param label the API's list of classes @param swatches colours of the classes that the map shows, by number */
export function bars(label, swatches = {}) {
  return label.map((entry) => {
    const swatch = swatches[entry.class];
    return h("li", {},
      h("span", { class: "letter", style: swatch ? { background: swatch.colour, color: swatch.text } : {} }, swatch?.letter ?? "·"),
      h("a", { class: "name", href: link("/", { class: entry.class }), "data-link": true, title: `${entry.name}: all images` },
        entry.name),
      h("span", { class: "share" }, percent(entry.probability)),
      h("span", { class: "track", "aria-hidden": "true" },
        h("span", { class: "bar", style: { width: `${100 * entry.probability}%`, ...(swatch ? { background: swatch.colour } : {}) } })),
    );
  });
}
