// Search, keys, sorting, comparison, favourites and notes, and downloads. A classic script, since a page opened from
// disk can neither load a module nor fetch a file; pages can be read without it. Names and notes are inserted as text,
// never as markup.
// @ts-check
"use strict";

(() => {
  /**
   * @typedef {{ layers: [string, string, number][], classes: [string, string][], findings: [string, string][],
   *   images: number[] }} Index  name, address, and for layers the number of units; the images that have a page, as
   *   runs of a first number and a length
   * @typedef {{ names: string[], classes: number[] }} Images  what they are called, nothing where that is their number,
   *   and the class that each is predicted as
   * @typedef {{ classes: number[][], colours: string[], names: Record<string, string> }} Shown  of each class, how many
   *   hits of a unit are of it and the unit, pair by pair; of each unit of a layer, the letter of its colour and how
   *   much of it there is; the colours' names
   * @typedef {{ text: string, kind: string, href: string }} Found
   * @typedef {{ title: string, note: string, favourite: boolean, picture: string | null }} Kept
   */

  const html = document.documentElement;
  const root = html.dataset.root ?? "";
  const here = /layers\/([^/]+)\/(\d+)\.html$/.exec(window.location.pathname);
  /** The unit of this page, as in its address: "conv1/3". */
  const unit = here ? `${here[1]}/${here[2]}` : null;
  /** The folder of its layer, as the index names it. */
  const own = here ? `layers/${here[1]}/` : null;

  /** Return whether a path is a unit's address inside the gallery. @param {string} path */
  const isUnit = (path) => /^[^/:?#\\]+\/\d+$/.test(path) && !/^(\.|%2e)+\//i.test(path);

  // --- storage: where the browser blocks it, settings last as long as the page

  /** @type {Map<string, string>} */
  const fallback = new Map();
  const storage = {
    lasting: true,
    /** @param {string} key @returns {string | null} */
    read(key) {
      try {
        return window.localStorage.getItem(`interpret.${key}`);
      } catch {
        storage.lasting = false;
        return fallback.get(key) ?? null;
      }
    },
    /** @param {string} key @param {string} value */
    write(key, value) {
      try {
        window.localStorage.setItem(`interpret.${key}`, value);
      } catch {
        storage.lasting = false;
        fallback.set(key, value);
      }
    },
  };

  /** @type {(tag: string, attributes?: Record<string, string>, ...children: (Node | string)[]) => HTMLElement} */
  const make = /** @type {any} */ (window).interpretMake; // by pictures.js

  /** Download a file. @param {string} name @param {Blob} blob */
  function download(name, blob) {
    const link = /** @type {HTMLAnchorElement} */ (make("a", { href: URL.createObjectURL(blob), download: name }));
    link.click();
    window.setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  /** Name a file after this unit. @param {string} ending */
  const fileName = (ending) =>
    `${decodeURIComponent(decodeURIComponent(unit ?? "")).replace(/[^\w.-]+/g, "-")}.${ending}`;

  // --- sorting and filtering a layer's units

  const sheet = document.querySelector(".sheet");

  /** Order the sheet's units by one of their numbers. @param {string} key */
  function sortSheet(key) {
    if (!sheet) return;
    const ascending = key !== "selectivity";
    const units = /** @type {HTMLElement[]} */ ([...sheet.children]);
    /** @param {HTMLElement} one */
    const number = (one) => {
      const value = Number(one.dataset[key] ?? NaN);
      return Number.isNaN(value) ? Infinity : ascending ? value : -value;
    };
    /** @param {HTMLElement} one */
    const bare = (one) => Number(!one.querySelector("img")); // those without pictures come last
    units.sort(
      (a, b) => bare(a) - bare(b) || number(a) - number(b) || Number(a.dataset.index) - Number(b.dataset.index),
    );
    sheet.append(...units);
  }

  /** Show the units that match every filter. */
  function filterSheet() {
    if (!sheet) return;
    const filters = /** @type {HTMLSelectElement[]} */ ([...document.querySelectorAll("[data-filter]")]);
    let shown = 0;
    for (const one of /** @type {HTMLElement[]} */ ([...sheet.children])) {
      one.hidden = filters.some(({ value, dataset }) => {
        if (value === "") return false;
        if (dataset.filter === "dead") return one.classList.contains("dead") !== (value === "1");
        if (dataset.filter === "preferred") return one.dataset.preferred !== value;
        if (dataset.filter === "colour") return one.dataset.colour !== value;
        const [low, high] = value.split(" ").map(Number);
        return !(Number(one.dataset.density) >= low && Number(one.dataset.density) < high);
      });
      shown += one.hidden ? 0 : 1;
    }
    const said = document.querySelector("#shown");
    if (said) {
      said.textContent = filters.some((filter) => filter.value) ? `${shown} of ${sheet.children.length} shown` : "";
    }
  }

  /** Store and restore the choice of a group of radio buttons. @param {HTMLFieldSetElement} group */
  function remember(group) {
    const name = group.dataset.switch ?? "";
    const inputs = /** @type {HTMLInputElement[]} */ ([...group.querySelectorAll("input")]);
    const sorts = name === "sort";
    const before = inputs.find((input) => input.value === storage.read(name));
    if (before && !before.checked) {
      before.checked = true;
      if (sorts) sortSheet(before.value);
    }
    group.hidden = false;
    group.addEventListener("change", () => {
      const chosen = inputs.find((input) => input.checked);
      if (!chosen) return;
      storage.write(name, chosen.value);
      if (sorts) sortSheet(chosen.value);
    });
  }

  // --- search

  /** @type {Map<string, Promise<any>>} */
  const loading = new Map();

  /** Load a part of the search index as a script, when it is first needed. @param {string} file @param {string} name */
  function load(file, name) {
    const coming =
      loading.get(file) ??
      new Promise((resolve, reject) => {
        const script = /** @type {HTMLScriptElement} */ (make("script", { src: `${root}assets/${file}` }));
        script.onload = () => resolve(/** @type {any} */ (window)[name]);
        script.onerror = reject;
        document.head.append(script);
      });
    loading.set(file, coming);
    return coming;
  }

  /** Load the names of layers, classes and findings. @returns {Promise<Index>} */
  const loadIndex = () => load("index.js", "interpretIndex");
  /** Load the content of units. @returns {Promise<Shown>} */
  const loadShown = () => load("shown.js", "interpretShown");
  /** Load the names and classes of images, which may be a million. @returns {Promise<Images>} */
  const loadImages = () => load("images.js", "interpretImages");

  /** The address of an image's page. @param {number} number */
  const imageHref = (number) => `images/${number}.html`;

  /**
   * The numbers of all images with a page, with their places.
   * @param {number[]} runs
   * @returns {Generator<[number, number]>}
   */
  function* numbersOf(runs) {
    let place = 0;
    for (let j = 0; j < runs.length; j += 2) {
      for (let number = runs[j]; number < runs[j] + runs[j + 1]; number += 1, place += 1) yield [number, place];
    }
  }

  /** The place of an image, -1 where it has no page. @param {number[]} runs @param {number} number */
  function placeOf(runs, number) {
    let before = 0;
    for (let j = 0; j < runs.length; before += runs[j + 1], j += 2) {
      if (number >= runs[j] && number < runs[j] + runs[j + 1]) return before + number - runs[j];
    }
    return -1;
  }

  const MOST = 30;
  /** At most so many of the results are units, and images, found by their content. */
  const MOST_BY_CONTENT = 12;
  /** At most so many of the matching classes are searched for units, and so many units of each. */
  const CLASSES_AT_ONCE = 40;
  const UNITS_OF_CLASS = 60;
  /** @type {Record<string, string>} */
  const ALSO_CALLED = { gray: "grey", purple: "violet", magenta: "violet", cyan: "turquoise", teal: "turquoise" };

  /** Whether each of some words is in a name. @param {string[]} words @param {string} name */
  const has = (words, name) => words.every((word) => name.includes(word));

  /** Whether each of some words begins a word of a name. @param {string[]} words @param {string} name */
  const begins = (words, name) => {
    const parts = name.split(/[\s./_-]+/);
    return words.every((word) => parts.some((part) => part.startsWith(word)));
  };

  /**
   * Find the classes whose names contain all words, first those whose own words begin with them.
   * @param {Index} index
   * @param {string[]} words
   * @returns {number[]} places among the classes
   */
  function classesCalled(index, words) {
    if (!words.length) return [];
    const found = index.classes.flatMap(([name], place) => (has(words, name.toLowerCase()) ? [place] : []));
    const first = found.filter((place) => begins(words, index.classes[place][0].toLowerCase()));
    return [...new Set([...first, ...found])].slice(0, CLASSES_AT_ONCE);
  }

  /**
   * Find units by content: "goldfish", "red", "red features.3", "features.3 goldfish".
   * @param {Index} index
   * @param {Shown} shown
   * @param {string[]} words
   * @returns {Found[]}
   */
  function unitsShowing(index, shown, words) {
    const letterOf = new Map(Object.entries(shown.names).map(([letter, name]) => [name, letter]));
    const names = index.layers.map(([name]) => name.toLowerCase());
    /** @param {string} word */
    const colour = (word) => letterOf.get(ALSO_CALLED[word] ?? word);
    if (words.length === 1 && colour(words[0])) {
      return unitsOfColour(index, shown, colour(words[0]) ?? "", index.layers.map(() => true));
    }
    let classes = classesCalled(index, words);
    let [place, letter] = /** @type {[string[], string | undefined]} */ ([[], undefined]);
    if (!classes.length) {
      letter = words.map(colour).find(Boolean);
      const others = words.filter((word) => !letter || colour(word) !== letter);
      place = others.filter((word) => names.some((name) => name.includes(word)));
      const called = others.filter((word) => !place.includes(word));
      classes = classesCalled(index, called);
      if (called.length && !classes.length) return [];
    }
    const within = names.map((name) => has(place, name));
    if (classes.length) return unitsOfClasses(index, shown, classes, within, letter);
    return letter ? unitsOfColour(index, shown, letter, within) : [];
  }

  /**
   * @param {Index} index
   * @param {Shown} shown
   * @param {number[]} classes
   * @param {boolean[]} within  for each layer, whether it is searched
   * @param {string} [letter]  the colour that units must have
   * @returns {Found[]}
   */
  function unitsOfClasses(index, shown, classes, within, letter) {
    const starts = [0];
    for (const [, , count] of index.layers) starts.push(starts[starts.length - 1] + count);
    /** @type {{ count: number, found: Found }[]} */
    const units = [];
    for (const place of classes) {
      const pairs = shown.classes[place];
      for (let j = 0, taken = 0; j < pairs.length && taken < UNITS_OF_CLASS; j += 2) {
        let [low, high] = [0, index.layers.length];
        while (high - low > 1) {
          const middle = (low + high) >> 1;
          if (starts[middle] <= pairs[j + 1]) low = middle;
          else high = middle;
        }
        const number = pairs[j + 1] - starts[low];
        if (!within[low] || (letter && shown.colours[low][2 * number] !== letter)) continue;
        const [name, base] = index.layers[low];
        const kind = `unit, ${index.classes[place][0]} in ${pairs[j]} hit${pairs[j] > 1 ? "s" : ""}`;
        units.push({ count: pairs[j], found: { text: `${name} ${number}`, kind, href: `${base}${number}.html` } });
        taken += 1;
      }
    }
    return units
      .sort((a, b) => b.count - a.count)
      .slice(0, MOST)
      .map(({ found }) => found);
  }

  /**
   * Find the units of a colour, those with the largest share first.
   * @param {Index} index
   * @param {Shown} shown
   * @param {string} letter
   * @param {boolean[]} within  for each layer, whether it is searched
   * @returns {Found[]}
   */
  function unitsOfColour(index, shown, letter, within) {
    /** @type {[number, number][][]} */
    const byShare = Array.from({ length: 10 }, () => []);
    shown.colours.forEach((letters, layer) => {
      if (!within[layer]) return;
      for (let at = letters.indexOf(letter); at >= 0; at = letters.indexOf(letter, at + 2)) {
        byShare[Number(letters[at + 1])].push([layer, at / 2]);
      }
    });
    const kind = `unit, ${shown.names[letter]}`;
    return byShare
      .slice(1)
      .reverse()
      .flat()
      .slice(0, MOST)
      .map(([layer, number]) => {
        const [name, base] = index.layers[layer];
        return { text: `${name} ${number}`, kind, href: `${base}${number}.html` };
      });
  }

  /**
   * Find units ("conv2 17", "17"), layers, classes, images, findings and notes by name, and units and images by
   * content.
   * @param {Index} index
   * @param {Shown | undefined} shown  undefined until it is loaded
   * @param {Images | undefined} called  undefined until it is loaded
   * @param {string} query
   * @returns {Found[]}
   */
  function find(index, shown, called, query) {
    const words = query
      .toLowerCase()
      .split(/[\s:/]+/)
      .filter(Boolean);
    if (!words.length) {
      return index.layers.slice(0, MOST).map(([text, base]) => ({ text, kind: "layer", href: `${base}index.html` }));
    }
    /** @type {Found[]} */
    const found = [];
    const last = words[words.length - 1];
    if (/^\d+$/.test(last)) {
      const number = Number(last);
      const named = index.layers.filter(([name]) =>
        words.slice(0, -1).every((word) => name.toLowerCase().includes(word)),
      );
      // the layer of this page first
      named.sort((a, b) => Number(b[1] === own) - Number(a[1] === own));
      for (const [name, base, count] of named) {
        if (number < count) found.push({ text: `${name} ${number}`, kind: "unit", href: `${base}${number}.html` });
        if (found.length >= MOST) break;
      }
    }
    const asked = words.join(" ");
    const number = /^(?:image )?\d+$/.test(asked) ? Number(last) : -1;
    const place = placeOf(index.images, number);
    const numbered = place < 0 ? undefined : imageHref(number);
    if (numbered) {
      const text = called?.names[place] ?? `image ${number}`;
      const kind = `image ${number}`;
      // a single number means a unit first
      const first = asked === last ? 1 : 0;
      found.splice(first, 0, { text, kind: text.toLowerCase() === kind ? "image" : kind, href: numbered });
    }
    /** @type {Found[]} */
    const within = [];
    /** @param {Iterable<[string, string, ...unknown[]]>} entries @param {string} kind @param {string} end */
    const add = (entries, kind, end) => {
      const most = within.length + MOST;
      for (const [text, href] of entries) {
        if (found.length >= MOST || within.length >= most) return;
        const lower = text.toLowerCase();
        if (!has(words, lower) || href === numbered) continue;
        // matches at the start of a word come first
        (begins(words, lower) ? found : within).push({ text, kind, href: href + end });
      }
    };
    add(index.layers, "layer", "index.html");
    add(index.classes, "class", "");
    add(index.findings, "finding", "");
    if (called) add(namesOf(index, called), "image", "");
    for (const [path, kept] of Object.entries(favourites())) {
      if (isUnit(path) && kept.note && words.every((word) => kept.note.toLowerCase().includes(word))) {
        found.push({ text: `${kept.title}: ${kept.note}`, kind: "note", href: `layers/${path}.html` });
      }
    }
    const named = [...found, ...within];
    const taken = new Set(named.map(({ href }) => href));
    const classes = new Set(classesCalled(index, words));
    const images = called && classes.size ? imagesOfClasses(index, called, classes, taken) : [];
    const units = shown ? unitsShowing(index, shown, words).filter(({ href }) => !taken.has(href)) : [];
    // each kind keeps some places
    const reserved = Math.min(MOST_BY_CONTENT, units.length) + Math.min(MOST_BY_CONTENT, images.length);
    const kept = named.slice(0, MOST - reserved);
    const seen = images.slice(0, Math.max(MOST_BY_CONTENT, MOST - kept.length - units.length));
    // a single colour means units first
    const first = shown && words.length === 1 && Object.values(shown.names).includes(words[0]) ? MOST_BY_CONTENT : 0;
    return [...units.slice(0, first), ...kept, ...seen, ...units.slice(first)].slice(0, MOST);
  }

  /**
   * The names and addresses of all images.
   * @param {Index} index
   * @param {Images} called
   * @returns {Generator<[string, string]>}
   */
  function* namesOf(index, called) {
    for (const [number, place] of numbersOf(index.images)) {
      yield [called.names[place] ?? `image ${number}`, imageHref(number)];
    }
  }

  /**
   * Find images that are predicted as one of some classes.
   * @param {Index} index
   * @param {Images} called
   * @param {Set<number>} classes
   * @param {Set<string>} taken  addresses that are found already
   * @returns {Found[]}
   */
  function imagesOfClasses(index, called, classes, taken) {
    /** @type {Found[]} */
    const found = [];
    for (const [number, place] of numbersOf(index.images)) {
      const href = imageHref(number);
      if (!classes.has(called.classes[place]) || taken.has(href)) continue;
      const kind = `image, ${index.classes[called.classes[place]][0]}`;
      found.push({ text: called.names[place] ?? `image ${number}`, kind, href });
      if (found.length >= MOST) break;
    }
    return found;
  }

  /** An example of a query, in the layer of this page if it has one. @param {Index} index */
  function example({ layers }) {
    const [name, , count] = layers.find(([, base]) => base === own) ?? layers[Math.min(1, layers.length - 1)];
    return `${name} ${Math.min(17, count - 1)}`;
  }

  const BY_CONTENT = "You can also search for units by the predicted class of their hits or by colour (“red”).";

  /**
   * Return the hint of an empty list of results.
   * @param {Index} index
   * @param {boolean} units  whether only units are searched
   * @returns {(Node | string)[]}
   */
  function searchHint(index, units) {
    if (units) {
      return [`Enter a unit’s layer and number (“${example(index)}”) or words of your note. ${BY_CONTENT}`];
    }
    const images = index.images.length
      ? [", an ", make("a", { href: `${root}images/index.html` }, "image"), " by its number or the name of its file"]
      : [];
    return [
      `Search for a layer, a unit by its layer and number (“${example(index)}”)`,
      ...(index.classes.length ? [", a class"] : []),
      ...images,
      ` or words of your notes. ${BY_CONTENT}`,
    ];
  }

  /**
   * Open the search.
   * @param {(found: Found) => void} choose
   * @param {boolean} [units]  whether only units are searched
   */
  function search(choose, units = false) {
    const input = /** @type {HTMLInputElement} */ (
      make("input", {
        type: "search",
        role: "combobox",
        "aria-expanded": "true",
        "aria-controls": "results",
        "aria-label": "Search units, layers, classes and images",
        placeholder: units ? "a unit" : "a unit, a layer, a class, an image, a colour …",
        autocomplete: "off",
        spellcheck: "false",
      })
    );
    const list = make("ul", { id: "results", role: "listbox", "aria-label": "Results" });
    const said = make("p", { class: "quiet", role: "status" });
    const dialog = openDialog("search", "Search", input, list, said);
    /** @type {Found[]} */
    let results = [];
    let chosen = 0;
    /** @type {Shown | undefined} */
    let shown;
    /** @type {Images | undefined} */
    let called;

    function mark() {
      [...list.children].forEach((row, place) => row.setAttribute("aria-selected", String(place === chosen)));
      const row = list.children[chosen];
      if (row) {
        input.setAttribute("aria-activedescendant", row.id);
        row.scrollIntoView({ block: "nearest" });
      } else input.removeAttribute("aria-activedescendant");
    }

    /** @param {Index} index */
    function showResults(index) {
      const asked = input.value.trim() !== "";
      results = !asked && units ? suggestions(index) : find(index, shown, called, input.value);
      if (units) results = results.filter(({ href }) => /^layers\/[^/]+\/\d+\.html$/.test(href));
      chosen = 0;
      list.replaceChildren(
        ...results.map((result, place) => {
          const row = make(
            "li",
            { role: "option", id: `result-${place}` },
            make("span", { dir: "auto" }, result.text),
            make("span", { class: "quiet" }, result.kind),
          );
          row.addEventListener("click", () => choosePlace(place));
          return row;
        }),
      );
      const hint = [asked ? "No results. " : "", ...searchHint(index, units)];
      said.replaceChildren(...(results.length ? [] : hint));
      mark();
    }

    /** @param {number} place */
    function choosePlace(place) {
      const result = results[place];
      if (!result) return;
      dialog.close();
      choose(result);
    }

    let ready = false;
    let enterPressed = false; // before the index was loaded
    loadIndex().then(
      (index) => {
        ready = true;
        input.placeholder = units ? example(index) : `${example(index)}, a layer, a class, an image, a colour …`;
        showResults(index);
        if (enterPressed) choosePlace(chosen);
        input.addEventListener("input", () => showResults(index));
        const again = () => chosen === 0 && showResults(index);
        // what has come can be searched without what is missing
        loadShown().then((come) => ((shown = come), again()), () => {});
        loadImages().then((come) => ((called = come), again()), () => {});
      },
      () => (said.textContent = "The index of this gallery is missing: write the gallery again."),
    );
    input.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown") chosen = Math.min(chosen + 1, results.length - 1);
      else if (event.key === "ArrowUp") chosen = Math.max(chosen - 1, 0);
      else if (event.key === "Enter" && ready) choosePlace(chosen);
      else if (event.key === "Enter") enterPressed = true;
      else if (event.key === "Escape") dialog.close();
      else return;
      event.preventDefault();
      mark();
    });
    input.focus();
  }

  /**
   * Open a dialog, which is removed when it is closed.
   * @param {string} kind
   * @param {string} title
   * @param {Node[]} content
   */
  function openDialog(kind, title, ...content) {
    const dialog = /** @type {HTMLDialogElement} */ (make("dialog", { class: kind, "aria-label": title }, ...content));
    document.body.append(dialog);
    dialog.addEventListener("close", () => dialog.remove());
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();
    });
    dialog.showModal();
    return dialog;
  }

  /** @param {Found} found */
  const go = (found) => window.location.assign(root + found.href);

  // --- favourites and notes, stored by gallery, since all pages opened from disk may share one storage

  const favouritesKey = `kept.${html.dataset.gallery}`;

  /** @returns {Record<string, Kept>} */
  function favourites() {
    try {
      return JSON.parse(storage.read(favouritesKey) ?? "{}") ?? {};
    } catch {
      return {};
    }
  }

  /** Store a change of this page's favourite or note. @param {Partial<Kept>} change */
  function saveUnit(change) {
    if (!unit) return;
    const all = favourites();
    const sprite = document.querySelector(".nine image");
    const picture = sprite ? (sprite.getAttribute("href") ?? "").slice(root.length) : null;
    const title = document.querySelector("h1")?.textContent?.replace(/\s+/g, " ").trim() ?? unit;
    const before = /** @type {Partial<Kept>} */ (all[unit]);
    const kept = { favourite: false, note: "", ...before, title, picture, ...change };
    if (kept.favourite || kept.note) all[unit] = kept;
    else delete all[unit];
    storage.write(favouritesKey, JSON.stringify(all));
  }

  /** Set up the button and the note of a unit's page. */
  function setUpFavourites() {
    const button = document.querySelector("[data-act=favourite]");
    const note = document.querySelector("#note");
    const kept = unit ? favourites()[unit] : undefined;
    if (note instanceof HTMLTextAreaElement) {
      note.value = kept?.note ?? "";
      note.addEventListener("input", () => saveUnit({ note: note.value }));
    }
    button?.setAttribute("aria-pressed", String(kept?.favourite ?? false));
    button?.addEventListener("click", () => {
      const now = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(now));
      saveUnit({ favourite: now });
    });
  }

  /** Fill the page of favourites. */
  function showFavourites() {
    const list = document.querySelector("#kept");
    if (!list) return;
    const all = Object.entries(favourites()).filter(([path]) => isUnit(path));
    list.replaceChildren(
      ...all.map(([path, kept]) => {
        const link = make("a", { href: `layers/${path}.html`, dir: "auto" }, kept.title);
        const picture =
          kept.picture && /^(patches|projections)\/[^?#:\\]+\.webp$/.test(kept.picture) && !kept.picture.includes("..")
            ? make("img", { src: kept.picture, alt: "", loading: "lazy" })
            : make("span");
        return make("li", {}, picture, make("div", {}, link, make("p", { dir: "auto" }, kept.note)));
      }),
    );
    const where = document.querySelector("#kept-where");
    if (where && !storage.lasting) {
      where.textContent =
        "This browser does not store data for this page: favourites and notes are lost when a page is closed.";
    } else if (where && !all.length) {
      where.textContent = "No favourites yet. Press f on the page of a unit, or write a note there.";
    }
    const compare = all.filter(([, kept]) => kept.favourite).map(([path]) => path);
    const acts = document.querySelector(".acts");
    if (acts && compare.length > 1 && !acts.querySelector("a")) {
      acts.append(" ", make("a", { href: `compare.html#${compare.join(",")}` }, "Compare"));
    }
  }

  /** @param {HTMLInputElement} input */
  function importFavourites(input) {
    const file = input.files?.[0];
    file?.text().then((text) => {
      /** @type {Record<string, Kept>} */
      const all = favourites();
      let given = {};
      try {
        given = JSON.parse(text).kept ?? {};
      } catch {
        window.alert("This file contains no favourites.");
      }
      for (const [path, kept] of Object.entries(/** @type {Record<string, any>} */ (given))) {
        all[path] = {
          title: String(kept?.title ?? path),
          note: String(kept?.note ?? ""),
          favourite: Boolean(kept?.favourite),
          picture: typeof kept?.picture === "string" ? kept.picture : null,
        };
      }
      storage.write(favouritesKey, JSON.stringify(all));
      showFavourites();
    });
  }

  // --- comparison: the address holds the selection, so that it can be shared

  /** @returns {string[]} */
  const compared = () => window.location.hash.slice(1).split(",").filter(isUnit);

  /** Show the units in the address. */
  function showPanes() {
    const panes = document.querySelector("#panes");
    if (!panes) return;
    const paths = compared();
    const open = new Map([...panes.children].map((pane) => [/** @type {HTMLElement} */ (pane).dataset.path, pane]));
    panes.replaceChildren(
      ...paths.map((path) => {
        const before = open.get(path);
        if (before) return before;
        const name = decodeURIComponent(decodeURIComponent(path)).replace(/\/(\d+)$/, " unit $1");
        const close = make("button", { type: "button", "aria-label": `Remove ${name}` }, "Remove");
        close.addEventListener("click", () => choosePanes(compared().filter((other) => other !== path)));
        const link = make("a", { href: `layers/${path}.html`, dir: "auto" }, name);
        return make(
          "div",
          { class: "pane", "data-path": path },
          make("p", {}, link, close),
          make("iframe", { src: `layers/${path}.html`, title: name }),
        );
      }),
    );
    const last = panes.lastElementChild;
    if (open.size && last && !open.has(paths[paths.length - 1])) last.scrollIntoView({ inline: "nearest" });
    const empty = document.querySelector("#empty");
    if (empty instanceof HTMLElement) empty.hidden = paths.length > 1;
    storage.write(`compare.${html.dataset.gallery}`, paths.join(","));
  }

  /** @param {string[]} paths */
  function choosePanes(paths) {
    window.location.hash = paths.join(",");
  }

  /** Add this page's unit to the comparison, as the first. */
  function compareThis() {
    if (!unit) return;
    const before = (storage.read(`compare.${html.dataset.gallery}`) ?? "")
      .split(",")
      .filter((path) => path && path !== unit);
    window.location.assign(`${root}compare.html#${[unit, ...before].join(",")}`);
  }

  /**
   * Suggest units to compare: the favourites, and for each compared unit the next and previous ones of its layer.
   * @param {Index} index
   * @returns {Found[]}
   */
  function suggestions(index) {
    const shown = compared();
    /** @type {Map<string, Found>} */
    const found = new Map();
    /** @param {string} path @param {string} text @param {string} kind */
    const offer = (path, text, kind) => {
      if (!shown.includes(path) && !found.has(path)) found.set(path, { text, kind, href: `layers/${path}.html` });
    };
    for (const [path, kept] of Object.entries(favourites())) {
      if (isUnit(path)) offer(path, kept.title, kept.favourite ? "favourite" : "note");
    }
    for (const path of shown) {
      const [, folder, number] = /** @type {RegExpExecArray} */ (/^(.*)\/(\d+)$/.exec(path));
      const layer = index.layers.find(([, base]) => base === `layers/${folder}/`);
      for (const near of layer ? [Number(number) + 1, Number(number) - 1] : []) {
        if (layer && near >= 0 && near < layer[2]) offer(`${folder}/${near}`, `${layer[0]} ${near}`, "unit");
      }
    }
    // without favourites and compared units, the first unit of each layer
    if (!found.size) for (const [name, base] of index.layers) offer(`${base.slice(7)}0`, `${name} 0`, "unit");
    return [...found.values()].slice(0, MOST);
  }

  /** Add a unit on the page of comparison. */
  function addPane() {
    search((found) => choosePanes([...compared(), found.href.replace(/^layers\/|\.html$/g, "")]), true);
  }

  // --- a unit's page

  /** Least height in pixels of a sprite in a saved picture. */
  const LEAST_SIDE = 160;

  /** Add the buttons of a unit's page, and the field for its note. */
  function addControls() {
    /** @param {string} act @param {string} text */
    const button = (act, text) => make("button", { type: "button", "data-act": act }, text);
    const favourite = button("favourite", "Favourite");
    favourite.setAttribute("aria-pressed", "false");
    const others = [" ", button("compare", "Compare"), " ", button("random", "Random")];
    document.querySelector("h1")?.after(make("p", { class: "acts" }, favourite, ...others));
    const saves = document.querySelector(".saves");
    saves?.firstChild?.after(button("json", "JSON"), " ", button("png", "PNG"), " ");
    const note = make("textarea", { id: "note", rows: "2" });
    saves?.after(make("label", { class: "note-label" }, "Your note, stored in this browser ", note));
  }

  /** Go to a random unit of the network. */
  function random() {
    loadIndex().then((index) => {
      let place = Math.floor(Math.random() * index.layers.reduce((sum, [, , count]) => sum + count, 0));
      for (const [, base, count] of index.layers) {
        if (place < count) return window.location.assign(`${root}${base}${place}.html`);
        place -= count;
      }
    });
  }

  /** What is known of this page's unit. @returns {Record<string, any>} */
  function record() {
    const number = Number(here?.[2]);
    const { names, units } = /** @type {any} */ (window).interpretUnits;
    // where things are shown is no finding
    const known = Object.entries(units[number]).filter(([key]) => !["places", "range", "relations"].includes(key));
    const hits = [...document.querySelectorAll(".hits > li")];
    /** @param {string} selector */
    const said = (selector) => hits.map((hit) => hit.querySelector(selector)?.textContent ?? null);
    const called = { sources: said("small bdi"), labels: said(".label") };
    return { ...names, unit: number, ...Object.fromEntries(known), ...called };
  }

  /**
   * Break a text into lines of at most a width; a wider word has its own line.
   * @param {CanvasRenderingContext2D} pen
   * @param {string} text
   * @param {number} width
   */
  function inLines(pen, text, width) {
    /** @type {string[]} */
    const lines = [];
    for (const word of text.split(" ")) {
      const longer = lines.length ? `${lines[lines.length - 1]} ${word}` : word;
      if (lines.length && pen.measureText(longer).width <= width) lines[lines.length - 1] = longer;
      else lines.push(word);
    }
    return lines;
  }

  /** Save the visible sprites as one picture with a title. */
  async function savePicture() {
    const images = [...document.querySelectorAll(".nine image")].filter((image) => image.checkVisibility());
    const canvas = document.createElement("canvas");
    const pen = canvas.getContext("2d");
    if (!pen || !images.length) return;
    const addresses = images.map((image) => root + (image.getAttribute("href") ?? "").slice(root.length));
    const pictures = await Promise.all(addresses.map(loaded));
    const kinds = images.map((image) => image.closest("figure")?.dataset.kind ?? "");
    const { network, layer, unit: number } = record();
    const title = `${network}, ${layer}, unit ${number}; ${kinds.join(" | ")}`;
    // magnify small pictures by a whole factor, so that pixels stay square and the title has room
    const zoom = Math.ceil(LEAST_SIDE / Math.max(...pictures.map((picture) => picture.naturalHeight)));
    const sizes = pictures.map((picture) => [zoom * picture.naturalWidth, zoom * picture.naturalHeight]);
    const width = sizes.reduce((sum, [one]) => sum + one + 4, -4);
    const family = window.getComputedStyle(document.body).fontFamily;
    let size = Math.max(14, Math.round(width / 50));
    pen.font = `${size}px ${family}`;
    const widest = Math.max(...title.split(" ").map((word) => pen.measureText(word).width));
    if (widest > width - 8) size *= (width - 8) / widest;
    pen.font = `${size}px ${family}`;
    const lines = inLines(pen, title, width - 8);
    const top = Math.ceil(1.35 * size * lines.length + 0.4 * size);
    canvas.width = width;
    canvas.height = top + Math.max(...sizes.map(([, height]) => height));
    // resizing a canvas resets its drawing state
    Object.assign(pen, { font: `${size}px ${family}`, textBaseline: "top", imageSmoothingEnabled: false });
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.fillStyle = "#1b1b1b";
    lines.forEach((line, place) => pen.fillText(line, 4, (0.2 + 1.35 * place) * size));
    let left = 0;
    pictures.forEach((picture, place) => {
      pen.drawImage(picture, left, top, sizes[place][0], sizes[place][1]);
      left += sizes[place][0] + 4;
    });
    // on a page opened from disk, a script may not read the pictures, but the browser's menu can save them
    if (window.location.protocol === "file:") showPicture(canvas);
    else canvas.toBlob((blob) => blob && download(fileName("png"), blob));
  }

  /** Show a picture for the user to save. @param {HTMLCanvasElement} canvas */
  function showPicture(canvas) {
    const close = make("button", { type: "button", class: "close" }, "Close");
    const how = make("p", {}, "Right-click the picture, or press and hold it, and choose “Save image as…”.");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `The pictures of ${document.querySelector("h1")?.textContent?.trim()}`);
    const dialog = openDialog("picture", "Save as PNG", make("h2", {}, "Save as PNG"), close, how, canvas);
    close.addEventListener("click", () => dialog.close());
  }

  /** @param {string} address @returns {Promise<HTMLImageElement>} */
  function loaded(address) {
    const picture = new Image();
    picture.src = address;
    return picture.decode().then(() => picture);
  }

  /** Copy this page's address, or follow the link where that is not allowed. @param {HTMLAnchorElement} link */
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

  /** Mark the hit under the pointer or the focus in every sprite. @param {Event} event */
  function markSame(event) {
    const link = event.target instanceof Element && event.target.closest(".nine a");
    const hit = link ? link.getAttribute("href") : null;
    for (const other of document.querySelectorAll(".nine a")) {
      other.classList.toggle("same", other.getAttribute("href") === hit);
    }
  }

  // --- keys

  const KEYS = [
    ["/", "search for a unit, a layer, a class or an image"],
    ["j →", "next unit, layer or class"],
    ["k ←", "previous unit, layer or class"],
    ["u", "up: to the layer, to the network"],
    ["r", "random unit"],
    ["f", "add this unit to the favourites, or remove it"],
    ["c", "compare this unit with others"],
    ["n", "write a note on this unit"],
  ];

  /** What the number keys switch on this page, if anything. @returns {string[][]} */
  function numberKeys() {
    const labels = [...(views()?.querySelectorAll("label") ?? [])].slice(0, NUMBERED);
    const names = labels.map((label) => label.textContent?.trim());
    const what = views()?.dataset.switch === "rule" ? "show the projections by" : "show";
    return names.length ? [[names.map((_, place) => place + 1).join(" "), `${what} ${names.join(", ")}`]] : [];
  }

  function showKeys() {
    const close = make("button", { type: "button", class: "close" }, "Close");
    const list = make("dl", { class: "keys" });
    for (const [keys, meaning] of [...KEYS, ...numberKeys(), ["?", "this list"]]) {
      list.append(
        make("dt", {}, ...keys.split(" ").flatMap((key) => [make("kbd", {}, key), " "])),
        make("dd", {}, meaning),
      );
    }
    const dialog = openDialog("help", "Keys", make("h2", {}, "Keys"), close, list);
    close.addEventListener("click", () => dialog.close());
  }

  /** @param {string} selector */
  const press = (selector) => {
    const target = document.querySelector(selector);
    if (target instanceof HTMLElement) target.click();
    return target !== null;
  };

  const NUMBERED = 3;

  /** The switch that number keys control. */
  const views = () =>
    /** @type {HTMLFieldSetElement | null} */ (
      document.querySelector("fieldset[data-switch=rule], fieldset[data-switch=view]")
    );

  /** Choose a radio button by its number. @param {number} number */
  const chooseView = (number) => views()?.querySelectorAll("input")[number - 1]?.click();

  /** @type {Record<string, () => unknown>} */
  const actions = {
    "/": () => search(go),
    "?": showKeys,
    j: () => press("a[rel=next]"),
    ArrowRight: () => press("a[rel=next]"),
    k: () => press("a[rel=prev]"),
    ArrowLeft: () => press("a[rel=prev]"),
    u: () => press(".trail li:nth-last-child(2) a"),
    r: random,
    f: () => press("[data-act=favourite]"),
    c: compareThis,
    n: () =>
      document.querySelector("#note") instanceof HTMLElement &&
      /** @type {HTMLElement} */ (document.querySelector("#note")).focus(),
    1: () => chooseView(1),
    2: () => chooseView(2),
    3: () => chooseView(3),
  };

  /** @param {KeyboardEvent} event */
  function onKey(event) {
    if (
      event.ctrlKey ||
      event.metaKey ||
      event.altKey ||
      event.defaultPrevented ||
      document.querySelector("dialog[open]")
    ) {
      return;
    }
    if (event.shiftKey && event.key !== "?" && event.key !== "/") return;
    const target = event.target instanceof Element ? event.target : null;
    if (target?.closest("textarea, select, input:not([type=radio])")) return;
    if (event.key.startsWith("Arrow") && target?.closest("input, pre")) return;
    const action = Object.hasOwn(actions, event.key) ? actions[event.key] : undefined;
    if (!action) return;
    event.preventDefault();
    action();
  }

  // --- start

  if (unit) addControls();
  for (const [rel, title] of [["prev", "Previous (k or ←)"], ["next", "Next (j or →)"]]) {
    document.querySelector(`a[rel=${rel}]`)?.setAttribute("title", title);
  }
  if (window.top !== window) html.classList.add("embedded");
  for (const group of document.querySelectorAll("fieldset[data-switch]")) {
    remember(/** @type {HTMLFieldSetElement} */ (group));
  }
  for (const link of document.querySelectorAll("a[data-copy]")) {
    copyOnClick(/** @type {HTMLAnchorElement} */ (link));
  }
  // from disk a browser opens a picture instead of saving it: open it in a new tab
  for (const link of window.location.protocol === "file:" ? document.querySelectorAll(".saves a") : []) {
    link.setAttribute("target", "_blank");
    link.setAttribute("rel", "noopener");
  }
  const asks = make("button", { type: "button", "aria-keyshortcuts": "/" }, "Search ", make("kbd", {}, "/"));
  asks.addEventListener("click", () => search(go));
  const keys = make("button", { type: "button", "aria-label": "Keys", "aria-keyshortcuts": "?" }, make("kbd", {}, "?"));
  keys.addEventListener("click", showKeys);
  const kept = make("a", { href: `${root}favourites.html` }, "Favourites");
  document.querySelector(".site a:last-child")?.before(kept, " ");
  document.querySelector(".site")?.prepend(asks);
  document.querySelector(".site")?.append(keys);
  for (const element of document.querySelectorAll(".scripted")) /** @type {HTMLElement} */ (element).hidden = false;
  for (const filter of document.querySelectorAll("[data-filter]")) filter.addEventListener("change", filterSheet);
  filterSheet(); // a browser may have restored the filters
  setUpFavourites();
  showFavourites();
  showPanes();
  window.addEventListener("hashchange", showPanes);
  document.addEventListener("keydown", onKey);
  document.addEventListener("click", (event) => {
    const act = event.target instanceof HTMLElement ? event.target.dataset.act : undefined;
    if (act === "random") random();
    else if (act === "compare") compareThis();
    else if (act === "add") addPane();
    else if (act === "clear") choosePanes([]);
    else if (act === "png") savePicture();
    else if (act === "json") {
      const text = JSON.stringify({ gallery: html.dataset.gallery, ...record() }, null, 1);
      download(fileName("json"), new Blob([text], { type: "application/json" }));
    } else if (act === "export") {
      const all = { gallery: html.dataset.gallery, kept: favourites() };
      download("favourites.json", new Blob([JSON.stringify(all, null, 1)], { type: "application/json" }));
    }
  });
  const given = document.querySelector("#import");
  if (given instanceof HTMLInputElement) given.addEventListener("change", () => importFavourites(given));
  if (document.querySelector(".nine")) {
    document.addEventListener("pointerover", markSame);
    document.addEventListener("focusin", markSame);
  }
})();
