// The address holds the state: what is shown can be shared by it. Filters have the names that the API has for them.

export const FILTERS = ["q", "class", "share", "status", "disagrees", "several", "classes", "entropy", "order"];

const listeners = new Set();

/** What the address says: its path, and its parameters as texts. */
export function current() {
  const parameters = Object.fromEntries(new URLSearchParams(location.search));
  return { path: location.pathname, parameters };
}

export function filtersOf(parameters) {
  return Object.fromEntries(FILTERS.filter((name) => parameters[name]).map((name) => [name, parameters[name]]));
}

/** An address with parameters; those that are empty are left out. */
export function link(path, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value != null && value !== false);
  const query = new URLSearchParams(given).toString();
  return query ? `${path}?${query}` : path;
}

/** Goes to another page, as a link does. */
export function go(path, parameters = {}) {
  history.pushState(null, "", link(path, parameters));
  listeners.forEach((listener) => listener());
}

/** Notes what is shown now, in place of what was. */
export function note(path, parameters) {
  history.replaceState(null, "", link(path, parameters));
}

export function onChange(listener) {
  listeners.add(listener);
}

addEventListener("popstate", () => listeners.forEach((listener) => listener()));

// Links of this page change it in place; with a modifier they open as links do.
addEventListener("click", (event) => {
  const anchor = event.target.closest?.("a[data-link]");
  if (!anchor || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  history.pushState(null, "", anchor.getAttribute("href"));
  listeners.forEach((listener) => listener());
});
