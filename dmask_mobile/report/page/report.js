"use strict";
// The page is whole without this: it adds a switch between themes, and details by pointer and keyboard.
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const name = () => { button.textContent = isDark() ? "Light theme" : "Dark theme"; };
  const keep = (theme) => { try { localStorage.setItem("dmask-theme", theme); } catch { /* not allowed here */ } };
  try {
    const kept = localStorage.getItem("dmask-theme");
    if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  } catch { /* not allowed here */ }
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    keep(root.dataset.theme);
    name();
  });
  dark.addEventListener("change", name);
  button.hidden = false;
  name();

  const tip = document.getElementById("tip");
  let shown = null; // the mark whose details are seen
  const hide = () => { shown = null; tip.hidden = true; };
  const show = (mark) => {
    shown = mark;
    tip.textContent = mark.getAttribute("aria-label").replaceAll("; ", "\n");
    tip.hidden = false;
    const at = mark.getBoundingClientRect(), size = tip.getBoundingClientRect();
    const left = at.left + at.width / 2 - size.width / 2;
    const above = at.top - size.height - 8;
    tip.style.left = `${Math.max(6, Math.min(left, window.innerWidth - size.width - 6))}px`;
    tip.style.top = `${above >= 6 ? above : at.bottom + 8}px`;
  };

  // A picture is one stop of the Tab key; the arrow keys lead through its marks.
  for (const picture of document.querySelectorAll("svg[data-marks]")) {
    const marks = [...picture.querySelectorAll(".mark")];
    for (const mark of marks) {
      const title = mark.querySelector("title"); // shown by browsers without this script
      mark.setAttribute("aria-label", title.textContent);
      title.remove();
      mark.setAttribute("tabindex", "-1");
      mark.addEventListener("pointerenter", () => show(mark));
      mark.addEventListener("pointerleave", hide);
      mark.addEventListener("focus", () => show(mark));
      mark.addEventListener("blur", hide);
    }
    marks[0].setAttribute("tabindex", "0");
    picture.addEventListener("keydown", (event) => {
      const place = marks.indexOf(event.target);
      const last = marks.length - 1;
      const next = { ArrowRight: place + 1, ArrowDown: place + 1, ArrowLeft: place - 1, ArrowUp: place - 1, Home: 0, End: last }[event.key];
      if (place < 0 || next === undefined) return;
      event.preventDefault();
      const target = marks[Math.max(0, Math.min(last, next))];
      event.target.setAttribute("tabindex", "-1");
      target.setAttribute("tabindex", "0");
      target.focus();
    });
  }
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  document.addEventListener("scroll", () => { if (shown) show(shown); }, { capture: true, passive: true });
})();
