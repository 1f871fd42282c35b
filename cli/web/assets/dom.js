// Elements out of plain calls. Texts are always set as text: names come from files that anybody may have written.

/** An element: attributes by name, `on` for listeners, `style` for CSS properties; children are elements or texts. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "style") for (const [property, text] of Object.entries(value)) element.style.setProperty(property, text);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

/** A share in words, as the command line writes it. */
export function percent(share) {
  return share > 0 && share < 0.0005 ? "<0.1 %" : `${(100 * share).toFixed(1)} %`;
}

export const count = (number) => number.toLocaleString("en");

/** Runs `run` once things have been quiet for so long. */
export function quiet(milliseconds, run) {
  let timer;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => run(...given), milliseconds);
  };
}

/** Whether a key that was pressed belongs to a field that is being filled in, or to the browser. */
export function isTyping(event) {
  const typing = event.target.closest?.("input:not([type=range]):not([type=checkbox]), select, textarea, dialog");
  return typing || event.altKey || event.metaKey;
}
