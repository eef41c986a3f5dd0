// What the pages do beyond being read: remember a choice, sort a sheet, turn the page from the keyboard, copy a link.
// A classic script, since a page opened from disk cannot load a module; every page reads the same without it.
"use strict";

(() => {
  // a browser may refuse storage altogether: then a choice lasts as long as the page
  const memory = {
    /** @param {string} key @returns {string | null} */
    read(key) {
      try {
        return window.localStorage.getItem(`interpret.${key}`);
      } catch {
        return null;
      }
    },
    /** @param {string} key @param {string} value */
    write(key, value) {
      try {
        window.localStorage.setItem(`interpret.${key}`, value);
      } catch {
        // nothing to do: the choice still holds on this page
      }
    },
  };

  /** Order the sheet's units by one of their numbers. @param {string} key */
  function sortSheet(key) {
    const sheet = document.querySelector(".sheet");
    if (!sheet) return;
    const units = /** @type {HTMLElement[]} */ ([...sheet.children]);
    units.sort((a, b) => Number(a.dataset[key]) - Number(b.dataset[key]));
    sheet.append(...units);
  }

  /** Let a group of radio buttons remember what was chosen. @param {HTMLFieldSetElement} group */
  function remember(group) {
    const name = group.dataset.switch ?? "";
    const inputs = /** @type {HTMLInputElement[]} */ ([...group.querySelectorAll("input")]);
    const sorts = name === "sort";
    const before = inputs.find((input) => input.value === memory.read(name));
    if (before && !before.checked) {
      before.checked = true;
      if (sorts) sortSheet(before.value);
    }
    group.hidden = false;
    group.addEventListener("change", () => {
      const chosen = inputs.find((input) => input.checked);
      if (!chosen) return;
      memory.write(name, chosen.value);
      if (sorts) sortSheet(chosen.value);
    });
  }

  /** Follow the link to the next or the previous page. @param {KeyboardEvent} event */
  function turnPage(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey || event.defaultPrevented) return;
    const inControl = event.target instanceof Element && event.target.closest("input, textarea, select");
    if (inControl && event.key.startsWith("Arrow")) return;
    const rel = { j: "next", ArrowRight: "next", k: "prev", ArrowLeft: "prev" }[event.key];
    const link = rel && document.querySelector(`a[rel=${rel}]`);
    if (link instanceof HTMLAnchorElement) {
      event.preventDefault();
      link.click();
    }
  }

  /** Copy this page's address, or else follow the link as any other. @param {HTMLAnchorElement} link */
  function copyOnClick(link) {
    if (!navigator.clipboard) return;
    link.textContent = "Copy link";
    link.setAttribute("aria-live", "polite");
    link.addEventListener("click", (event) => {
      event.preventDefault();
      navigator.clipboard.writeText(link.href).then(
        () => (link.textContent = "Link copied"),
        () => window.location.assign(link.href),
      );
    });
  }

  /** Mark the hit under the pointer or the focus in every block that shows it. @param {Event} event */
  function markSame(event) {
    const link = event.target instanceof Element && event.target.closest(".nine a");
    const hit = link ? link.getAttribute("href") : null;
    for (const other of document.querySelectorAll(".nine a")) {
      other.classList.toggle("same", other.getAttribute("href") === hit);
    }
  }

  for (const group of document.querySelectorAll("fieldset[data-switch]")) {
    remember(/** @type {HTMLFieldSetElement} */ (group));
  }
  for (const link of document.querySelectorAll("a[data-copy]")) {
    copyOnClick(/** @type {HTMLAnchorElement} */ (link));
  }
  document.addEventListener("keydown", turnPage);
  if (document.querySelector(".nine")) {
    document.addEventListener("pointerover", markSame);
    document.addEventListener("focusin", markSame);
  }
})();
