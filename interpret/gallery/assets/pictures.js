// Draws what pages hold as addresses and numbers: a picture beside each link to a unit, the place of each hit, kernels
// and histograms. So a page is small, and a thousand units have no copy of the same markup. A classic script, as a page
// opened from disk loads no module; without it, pages show their sprites, numbers and links.
// @ts-check
"use strict";

(() => {
  const root = document.documentElement.dataset.root ?? "";
  const SVG = "http://www.w3.org/2000/svg";

  /**
   * Give an element attributes and children.
   * @template {Element} E
   * @param {E} element
   * @param {Record<string, string | number>} attributes
   * @param {(Node | string)[]} children
   * @returns {E}
   */
  function fill(element, attributes, children) {
    for (const [name, text] of Object.entries(attributes)) element.setAttribute(name, String(text));
    element.append(...children);
    return element;
  }

  /**
   * Make an element.
   * @param {string} tag
   * @param {Record<string, string | number>} [attributes]
   * @param {(Node | string)[]} children
   */
  const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
  Object.assign(window, { interpretMake: make });

  /**
   * Make an element of an SVG.
   * @param {string} tag
   * @param {Record<string, string | number>} attributes
   * @param {(Node | string)[]} children
   */
  const draw = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

  /** A number in three significant digits, as the pages write it. @param {number | null} number */
  function value(number) {
    if (number === null) return "–";
    const size = Math.abs(number);
    let text = "0";
    if (size >= 100) text = Math.round(size).toLocaleString("en");
    else if (size >= 10) text = size.toFixed(1);
    else if (size >= 1) text = size.toFixed(2);
    else if (size >= 0.001) text = size.toFixed(3);
    else if (size > 0) text = size.toExponential(1).replace(/e([+-])(\d)$/, "e$10$2");
    return number < 0 ? `−${text}` : text;
  }

  // --- lists of units: an entry links to `layers/LAYER/UNIT.html`, its picture is `patches/LAYER/UNIT.webp`

  /**
   * A name that may break into lines after each dot, slash or underscore.
   * @param {string} name
   * @returns {(Node | string)[]}
   */
  const breakable = (name) =>
    name.split(/(?<=[._/])/).flatMap((part, place) => (place ? [document.createElement("wbr"), part] : [part]));

  /**
   * The picture of the unit that a link leads to, or of a single hit of it.
   * @param {HTMLAnchorElement} link
   * @param {string} folder  "" where there is none
   * @param {number} [columns]  of the picture's tiles, if the hit's alone is shown
   */
  function pictureOf(link, folder, columns) {
    const found = /\/layers\/([^/]+)\/(\d+)\.html(?:#hit-(\d+))?$/.exec(link.href);
    if (!found || !folder) return "";
    const picture = make("img", { alt: "", loading: "lazy" });
    picture.setAttribute("src", `${root}${folder}/${found[1]}/${found[2].padStart(4, "0")}.webp`);
    if (!columns) return picture;
    const hit = Number(found[3]) - 1;
    const place = `across-${hit % columns} down-${Math.floor(hit / columns)}`;
    return make("span", { class: `tile columns-${columns} ${place}` }, picture);
  }

  /** Draw a kernel, which is its width and a grey from 0 to 8 for each weight. @param {string} kernel */
  function drawKernel(kernel) {
    const [width, levels] = kernel.split(" ");
    const across = Number(width);
    /** @type {Map<string, string>} */
    const paths = new Map();
    [...levels].forEach((level, place) => {
      const square = `M${place % across} ${Math.floor(place / across) || ""}.5h1`;
      if (level !== "4") paths.set(level, (paths.get(level) ?? "") + square);
    });
    const drawn = [...paths].sort().map(([level, d]) => draw("path", { class: `g${level}`, d }));
    const viewBox = `0 0 ${across} ${levels.length / across}`;
    return draw("svg", { class: "kernel", viewBox, "aria-hidden": "true" }, ...drawn);
  }

  for (const name of document.querySelectorAll(".others bdi, .hits bdi, .way h3 bdi")) {
    name.replaceChildren(...breakable(name.textContent ?? ""));
  }
  for (const list of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(".others.units"))) {
    /** @type {Element | null} */
    let name = null;
    for (const item of /** @type {HTMLElement[]} */ ([...list.children])) {
      const link = item.querySelector("a");
      if (!link) continue;
      const own = link.querySelector("bdi");
      if (own?.className === "name") name = own;
      const number = make("b", {}, /\d+$/.exec(link.textContent ?? "")?.[0] ?? "");
      const picture = pictureOf(link, item.dataset.of ?? "patches", Number(list.dataset.columns ?? 0));
      link.replaceChildren(picture, own ?? name?.cloneNode(true) ?? "unit", " ", number);
      if (item.dataset.kernel) item.append(drawKernel(item.dataset.kernel));
    }
  }

  // --- histograms

  const [WIDTH, HEIGHT] = [300, 96];

  /**
   * Draw a histogram with bins of equal width, without the empty bins at both ends, and a tick for each of some values.
   * @param {{ start: number, width: number, counts: number[] }} histogram
   * @param {number[]} values
   * @param {(low: string, high: string, most: string) => string} say  what it shows, in words
   */
  function drawHistogram({ start, width, counts }, values, say) {
    const first = counts.findIndex((count) => count > 0);
    if (first < 0 || !(width > 0)) return null;
    const bins = counts.slice(first, counts.findLastIndex((count) => count > 0) + 1);
    const [low, high] = [start + first * width, start + (first + bins.length) * width];
    const most = Math.max(...bins);
    let bars = `M0 ${HEIGHT}`;
    let last = 0;
    for (const count of bins) {
      // a bin that is not empty is visible, however small its count
      const height = count ? Math.max(Math.round((count / most) * HEIGHT), 1) : 0;
      bars += height === last ? "h1" : `v${last - height}h1`;
      last = height;
    }
    /** @param {number} number */
    const at = (number) => Number((Math.min(Math.max((number - low) / (high - low), 0), 1) * WIDTH).toFixed(1));
    const zero = at(0);
    const labelled = zero >= 0.2 * WIDTH && zero <= 0.8 * WIDTH;
    const label = say(value(low), value(high), most.toLocaleString("en"));
    return draw(
      "svg",
      { viewBox: "0 -14 300 142", role: "img", "aria-label": label },
      draw("text", { x: 0, y: -4 }, most.toLocaleString("en")),
      draw("line", { class: "axis", x1: 0, y1: 0, x2: 4, y2: 0 }),
      draw("path", { class: "counts", transform: `scale(${WIDTH / bins.length} 1)`, d: `${bars}v${last}z` }),
      draw("line", { class: "axis", x1: 0, y1: HEIGHT, x2: WIDTH, y2: HEIGHT }),
      ...(labelled ? [draw("line", { class: "axis", x1: zero, y1: HEIGHT, x2: zero, y2: 108 })] : []),
      ...(labelled ? [draw("text", { x: zero, y: 120, "text-anchor": "middle" }, "0")] : []),
      draw("path", { class: "hit", d: values.map((one) => `M${at(one)} ${HEIGHT + 1}v9`).join("") }),
      draw("text", { x: 0, y: 120 }, value(low)),
      draw("text", { x: WIDTH, y: 120, "text-anchor": "end" }, value(high)),
    );
  }

  for (const figure of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-histogram]"))) {
    const counted = JSON.parse(figure.dataset.histogram ?? "{}");
    const drawn = drawHistogram(counted, [], (low, high) => `${figure.dataset.of}, from ${low} to ${high}`);
    if (drawn) figure.prepend(drawn);
  }

  // --- the page of a unit

  /**
   * @typedef {[string, number, number]} Picture  its address, and its size
   * @typedef {[number, number, number, number, number]} Box  the place of a picture, and a part of it
   * @typedef {[number, number, number | null, ...number[]]} Example
   * @typedef {{ places: (Box | null)[], boxes?: number[][], range: [number, Example[]][],
   *   relations: Record<string, [number, number, number | null, string | undefined][]>,
   *   histogram: { start: number, width: number, counts: number[] } | null, values: number[],
   *   items: number[], positions: (number[] | null)[] }} Unit
   * @typedef {{ sentence: string[], code: string[], tiles: number[], pixels: boolean, patched: boolean,
   *   warped: boolean, size: [number, number], layers: [string, string, string][], pictures: Picture[],
   *   groups: string[], units: Record<string, Unit> }} Units
   */
  const number = /(\d+)\.html$/.exec(window.location.pathname)?.[1] ?? "";
  /** @type {Units | undefined} */
  const units = /** @type {any} */ (window).interpretUnits;
  const unit = units?.units[number];
  if (!units || !unit) return;

  const [rows, columns, wide, high] = units.tiles;
  const sprites = [...document.querySelectorAll(".nine svg")];
  const pixels = units.pixels ? " pixels" : "";
  // a smoothed edge would mix with the tile beside it: stop at the middle of the outermost pixels
  const [inset, rangeInset] = units.pixels ? [0.02, 0] : [0.5, 0.5];

  /** @param {string} href @param {number} width @param {number} height */
  const image = (href, width, height) => draw("image", { href: root + href, width, height });

  /** Left and top of a hit's tile. @param {number} hit */
  const corner = (hit) => [(hit % columns) * wide, Math.floor(hit / columns) * high];

  /** Draw the lines between the tiles of a sprite, and link each tile to its hit. */
  sprites.forEach((sprite, place) => {
    const figure = sprite.closest("figure");
    const caption = [...(figure?.querySelector("figcaption")?.children ?? [])].map((one) => one.textContent ?? "");
    if (figure) figure.dataset.kind = figure.classList.contains("patches") ? "patches" : caption[1];
    fill(sprite, { role: "group", "aria-label": caption.join(", ") }, []);
    sprite.querySelector("image")?.setAttribute("id", `sprite-${place + 1}`);
    let lines = "";
    for (let j = 1; j < columns; j += 1) lines += `M${j * wide} 0V${rows * high}`;
    for (let j = 1; j < rows; j += 1) lines += `M0 ${j * high}H${columns * wide}`;
    sprite.append(draw("path", { class: "gaps", d: lines }));
    unit.places.forEach((_, hit) => {
      const [x, y] = corner(hit);
      const tile = draw("rect", { x, y, width: wide, height: high });
      const link = draw("a", { href: `#hit-${hit + 1}`, "aria-label": `Hit ${hit + 1}` }, tile);
      if (place) link.setAttribute("tabindex", "-1"); // only the first sprite's links are in the tab order
      sprite.append(link);
    });
  });

  if (unit.histogram) {
    const total = unit.histogram.counts.reduce((sum, count) => sum + count, 0);
    const inputs = `${total.toLocaleString("en")} input${total === 1 ? "" : "s"}`;
    const bars = drawHistogram(unit.histogram, unit.values, (low, high_, most) => {
      const ends = `from ${low} to ${high_}`;
      return `Histogram of the largest value in each of ${inputs}, ${ends}; the fullest bin holds ${most}`;
    });
    const said = `Largest value on each of ${inputs}; the ticks below the axis are the hits.`;
    const facts = document.querySelector(".statistics :is(.own, .pairs + .quiet, .pairs):not(:has(~ .own))");
    if (bars) facts?.after(make("figure", { class: "histogram" }, bars, make("figcaption", { class: "quiet" }, said)));
  }

  /**
   * Outline a box on a picture; a small one has a ring around it, and around a large one the picture is darkened.
   * @param {Picture} picture
   * @param {Box} box
   */
  function outline([href, width, height], [, x, y, across, down]) {
    if (across === undefined) return []; // it is the whole picture
    const [extent, side] = [Math.max(across, down), Math.max(width, height)];
    let frame = `M${x} ${y}h${across}v${down}h-${across}z`;
    if (extent < 0.05 * side) {
      /** @param {number} length */
      const short = (length) => Number(length.toPrecision(4));
      const radius = short(0.05 * side);
      const arc = `a${radius} ${radius} 0 1 0`;
      frame += `M${short(x + across / 2 - radius)} ${short(y + down / 2)}${arc} ${2 * radius} 0${arc} -${2 * radius} 0`;
    }
    const shaded = href && extent >= 0.2 * side;
    return [
      ...(shaded ? [draw("path", { class: "shade", d: `M0 0H${width}V${height}H0Z${frame}` })] : []),
      draw("path", { class: "frame", d: frame }),
    ];
  }

  document.querySelectorAll(".hits > li").forEach((item, hit) => {
    const pictures = make("div", { class: "pictures", role: "img", "aria-label": `Hit ${hit + 1}` });
    const box = unit.places[hit];
    if (box) {
      const picture = units.pictures[box[0]];
      const [href, width, height] = picture;
      const whole = href ? image(href, width, height) : draw("rect", { class: "outline", width, height });
      const viewBox = `0 0 ${width} ${height}`;
      pictures.append(draw("svg", { class: "whole", viewBox }, whole, ...outline(picture, box)));
    }
    const [left, top] = corner(hit).map((edge) => Number((edge + inset).toFixed(2)));
    const size = [wide, high].map((length) => Number((length - 2 * inset).toFixed(2)));
    sprites.forEach((sprite, place) => {
      const viewBox = [left, top, ...size].join(" ");
      const tile = draw("svg", { viewBox }, draw("use", { href: `#sprite-${place + 1}` }));
      const rule = [...(sprite.closest("figure")?.classList ?? [])].filter((name) => /rule/.test(name));
      if (rule.length) tile.classList.add(...rule);
      pictures.append(tile);
    });
    const called = item.querySelector("a[href*='/images/']");
    const source = /(\d+)\.html$/.exec(called?.getAttribute("href") ?? "")?.[1];
    if (called && called.textContent !== `image ${source}`) called.after(`, image ${source}`);
    const rest = [...item.childNodes];
    const about = rest.findIndex((one) => one === (called ?? item.querySelector(":scope > bdi")));
    item.append(pictures, make("p", {}, ...rest.slice(0, about), make("small", {}, ...rest.slice(about))));
  });

  /** A heading with a quiet remark. @param {string} id @param {string} title @param {string} note */
  const heading = (id, title, note) => make("h2", { id }, `${title} `, make("small", { class: "quiet" }, note));

  /**
   * @param {Example} example  an item, its image, its value, a part of its picture unless it is shown whole, and the
   *   picture's size where that is not the usual one
   */
  function showExample([item, source, strongest, ...rest]) {
    const [width, height] = rest.length % 4 ? rest.slice(-2) : units?.size ?? [1, 1];
    const whole = [rangeInset, rangeInset, width - 2 * rangeInset, height - 2 * rangeInset];
    const view = rest.length < 4 ? whole : rest.slice(0, 4);
    /** @type {Record<string, string>} */
    const warped = units?.warped && view !== whole ? { preserveAspectRatio: "none" } : {}; // a box, as its patch is
    const shown = draw("svg", { viewBox: view.join(" "), ...warped }, image(`samples/${item}.webp`, width, height));
    const link = make("a", { href: `${root}images/${source}.html`, "aria-label": `image ${source}` }, shown);
    return make("li", {}, link, value(strongest));
  }

  /** @returns {Element[]} */
  function showRange() {
    if (!unit?.range.length) return [];
    const groups = unit.range.map(([place, examples]) => {
      const called = make("p", {}, make("b", {}, units?.groups[place] ?? ""));
      return make("li", {}, called, make("ul", {}, ...examples.map(showExample)));
    });
    const note = `${units?.patched ? "patches of " : ""}inputs of the sample, sorted by the unit’s largest value`;
    const list = make("ol", { class: `groups${pixels}` }, ...groups);
    const title = heading("range", "Activation range", note);
    return [make("section", { class: "range", "aria-labelledby": "range" }, title, list)];
  }

  const CORRELATION = "correlation of the largest values on the sample";
  /** @type {Record<string, [string, string]>} */
  const RELATIONS = {
    in: ["Strongest connections from earlier layers", "largest weights, + excites, − inhibits"],
    out: ["Strongest connections to later layers", "largest weights"],
    inside: ["Most correlated units in this layer", CORRELATION],
    outside: ["Most correlated units in other layers", CORRELATION],
  };

  /**
   * The number of a relation, as the pages write it: a weight with its sign, a correlation with two decimals.
   * @param {string} kind
   * @param {number | null} strength
   */
  function relation(kind, strength) {
    if (strength === null) return "–";
    if (kind === "inside" || kind === "outside") return strength.toFixed(2);
    return strength < 0 ? value(strength) : `+${value(strength)}`;
  }

  /** @returns {Element[]} */
  function showRelations() {
    const ways = Object.entries(unit?.relations ?? {}).map(([kind, links]) => {
      const entries = links.map(([place, other, strength, kernel]) => {
        const [name, base, folder] = /** @type {Units} */ (units).layers[place];
        const link = /** @type {HTMLAnchorElement} */ (make("a", { href: `${root}${base}${other}.html` }));
        const called = kind === "inside" ? "unit" : make("bdi", { class: "name" }, ...breakable(name));
        link.append(pictureOf(link, folder), called, " ", make("b", {}, String(other)));
        return make("li", {}, link, ` ${relation(kind, strength)}`, ...(kernel ? [drawKernel(kernel)] : []));
      });
      const [title, note] = RELATIONS[kind];
      const list = make("ul", { class: "others" }, ...entries);
      return make("div", { class: "way" }, make("h3", {}, title), make("p", { class: "quiet" }, note), list);
    });
    if (!ways.length) return [];
    const title = make("h2", { id: "relations" }, "Related units");
    const list = make("div", { class: "ways" }, ...ways);
    return [make("section", { class: "relations", "aria-labelledby": "relations" }, title, list)];
  }
  document.querySelector("#data")?.replaceWith(...showRange(), ...showRelations());

  /** Write numbers as Python does. @param {unknown} numbers @returns {string} */
  const python = (numbers) => JSON.stringify(numbers).replaceAll(",", ", ");

  /** How to cite the unit, and make its pictures again. */
  function showCitation() {
    const { sentence, code } = /** @type {Units} */ (units);
    const { items, positions, boxes } = /** @type {Unit} */ (unit);
    const [, layer] = sentence;
    const said = sentence.map((text, place) => {
      if (place % 2 === 0) return text;
      return make("bdi", text === layer && place === 1 ? { class: "name" } : {}, text);
    });
    const permalink = make("a", { class: "permalink", href: `${number}.html`, "data-copy": "" }, "Permalink");
    const tuples = positions.map((one) => `(${python(one).slice(1, -1)}${one?.length === 1 ? "," : ""})`);
    /** @type {Record<string, string>} */
    const put = { items: python(items), positions: `[${tuples.join(", ")}]`, unit: number };
    if (boxes) put.boxes = python(boxes);
    const lines = code.map((text, place) => (place % 2 ? put[text] : text)).join("");
    const saves = sprites.map((sprite) => {
      const href = sprite.querySelector("image")?.getAttribute("href") ?? "";
      return make("a", { href, download: "" }, sprite.closest("figure")?.dataset.kind ?? "");
    });
    return make(
      "section",
      { class: "cite", "aria-labelledby": "cite" },
      make("h2", { id: "cite" }, "Cite this unit ", permalink),
      make("p", {}, `Unit ${number}`, ...said),
      ...(items.length ? [make("pre", { tabindex: "0", "aria-label": "Python" }, make("code", {}, lines))] : []),
      make("p", { class: "saves" }, "Download ", ...saves.flatMap((link) => [link, " "]), make("small", {}, "(WebP)")),
    );
  }
  document.querySelector("main")?.append(showCitation());

  // what was drawn has moved the place that the address names
  if (window.location.hash) document.querySelector(":target")?.scrollIntoView();
})();
