// Which page is shown, and what all pages share: light and dark, and the list of keys.
import { current, filtersOf, go, onChange } from "/assets/address.js";
import { get } from "/assets/api.js";
import { isTyping } from "/assets/dom.js";
import { showImage } from "/assets/image.js";
import { showImages } from "/assets/images.js";
import { showStore } from "/assets/store.js";

const PAGES = { "/": showImages, "/image": showImage, "/store": showStore };
const THEMES = ["auto", "light", "dark"];
const content = document.getElementById("content");
const info = get("info");
let leave = () => {};

function show() {
  const { path, parameters } = current();
  leave();
  const page = PAGES[path] ?? showImages;
  for (const anchor of document.querySelectorAll("[data-page]")) {
    if (anchor.dataset.page === path) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
  content.replaceChildren();
  content.className = page.name;
  leave = page(content, parameters, info) ?? (() => {});
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("theme", theme);
  document.getElementById("theme").textContent = { auto: "Auto", light: "Light", dark: "Dark" }[theme];
  document.getElementById("theme").setAttribute("aria-label", `Colours: ${theme}. Change`);
}

function nextTheme() {
  const now = document.documentElement.dataset.theme;
  setTheme(THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
}

const keys = document.getElementById("keys");
document.getElementById("help").addEventListener("click", () => keys.showModal());
document.getElementById("theme").addEventListener("click", nextTheme);
addEventListener("keydown", (event) => {
  if (isTyping(event) || event.ctrlKey) return;
  if (event.key === "?") keys.showModal();
  else if (event.key === "g") go("/", filtersOf(current().parameters));
  else if (event.key === "/") {
    event.preventDefault();
    if (current().path !== "/") go("/");
    document.getElementById("search")?.focus();
  }
});

const kept = localStorage.getItem("theme");
setTheme(THEMES.includes(kept) ? kept : "auto");
info.then((found) => {
  document.getElementById("where").textContent = found.store;
  document.getElementById("where").title = found.store;
}).catch(() => {});
onChange(show);
show();
