// The inside of a model: its levels with their maps and anchors, why detections come from them, and what NMS did.

import { colourOf, css, paintLegend, paintMap, readMap, shown } from "./drawing.js";

const $ = (id) => document.getElementById(id);
const WHITE = [255, 255, 255];
const ANCHOR = [240, 228, 66];
const ORIGIN = [86, 180, 233];
// Detections of a level that are listed at first, and with each "Show more".
const LISTED = 20;

const round = (value) => (value >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3))));
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

function make(name, text = "", kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

// Shows the parts of a tab, or why there are none.
function showParts(name, there, note) {
  $(`${name}-parts`).hidden = !there;
  $(`${name}-note`).hidden = !note;
  $(`${name}-note`).textContent = note ?? "";
}

export class Pyramid {
  constructor(changed) {
    this.changed = changed;
    this.passes = () => true;
    this.inside = null;
    this.level = null;
    this.cell = null;
    this.chosen = null;
    this.listed = LISTED;
    $("alike").addEventListener("change", () => this.paint());
    $("opacity").addEventListener("input", () => this.paint());
    for (const id of ["cell-row", "cell-column"]) {
      $(id).addEventListener("input", () => this.setCell(Number($("cell-row").value), Number($("cell-column").value)));
    }
    paintLegend($("legend-bar"));
  }

  get canPick() {
    return Boolean(this.level);
  }

  async show(inside, classes = []) {
    this.inside = inside;
    this.classes = classes;
    this.level = this.cell = this.chosen = null;
    showParts("pyramid", Boolean(inside?.levels.length), inside?.note);
    $("levels").replaceChildren();
    if (!inside?.levels.length) return;
    await Promise.all(inside.levels.map(async (level) => { level.values = await readMap(level.map); }));
    if (this.inside !== inside) return;
    $("levels").replaceChildren(...inside.levels.map((level) => this.levelButton(level)));
    this.open(inside.levels.find((level) => level.name === inside.detections[0]?.level) ?? inside.levels[0]);
  }

  levelButton(level) {
    const button = make("button", "", "level");
    button.type = "button";
    level.canvas = document.createElement("canvas");
    level.found = make("span");
    button.append(level.canvas, make("strong", level.name), `stride ${level.stride}`, make("br"), `${level.columns} × ${level.rows}`, make("br"), level.found);
    button.addEventListener("click", () => this.open(level));
    level.button = button;
    return button;
  }

  open(level) {
    this.level = level;
    this.cell = null;
    this.listed = LISTED;
    for (const each of this.inside.levels) each.button.setAttribute("aria-pressed", String(each === level));
    const readers = level.read_by.length ? `Read by: ${level.read_by.join("; ")}.` : "No head reads it.";
    $("level-facts").textContent =
      `${level.name}: the root mean square of its ${level.channels} channels in each cell; a cell is ` +
      `${round(level.cell[2] - level.cell[0])} × ${round(level.cell[3] - level.cell[1])} pixels of the image. ${readers}`;
    $("cell").hidden = !level.places;
    if (level.places) $("cell-legend").textContent = `${level.places.what === "anchors" ? "Anchors" : "Point"} of a cell: click into the image, or`;
    $("cell-facts").textContent = "";
    $("cell-row").max = level.rows - 1;
    $("cell-column").max = level.columns - 1;
    $("cell-row").value = $("cell-column").value = "";
    this.count();
    this.paint();
  }

  paint() {
    if (!this.inside?.levels.length || !this.level) return;
    const alike = $("alike").checked;
    const top = Math.max(...this.inside.levels.map((each) => each.highest), Number.MIN_VALUE);
    for (const each of this.inside.levels) paintMap(each.canvas, each.values, alike ? each.highest / top : 1);
    $("legend-high").textContent = round(alike ? top : this.level.highest);
    $("opacity-value").textContent = `${$("opacity").value} %`;
    this.changed();
  }

  drawMap(canvas, size, open) {
    canvas.hidden = !open || !this.level || $("opacity").value === "0";
    if (canvas.hidden) return;
    const { cell: [x1, y1, x2, y2], rows, columns } = this.level;
    const scale = Math.min(1, 1600 / Math.max(size.width, size.height));
    canvas.width = Math.max(1, Math.round(size.width * scale));
    canvas.height = Math.max(1, Math.round(size.height * scale));
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.globalAlpha = Number($("opacity").value) / 100;
    context.drawImage(this.level.canvas, x1 * scale, y1 * scale, (x2 - x1) * columns * scale, (y2 - y1) * rows * scale);
  }

  // --- cells ---

  pick(x, y) {
    if (!this.level) return;
    const { cell: [x1, y1, x2, y2], rows, columns } = this.level;
    const within = (value, count) => Math.min(Math.max(Math.floor(value), 0), count - 1);
    this.setCell(within((y - y1) / (y2 - y1), rows), within((x - x1) / (x2 - x1), columns));
    $("cell-row").value = this.cell.row;
    $("cell-column").value = this.cell.column;
  }

  setCell(row, column) {
    const { rows, columns, values, highest, places } = this.level;
    if (!(row >= 0 && row < rows && column >= 0 && column < columns)) {
      $("cell-facts").textContent = `${this.level.name} has rows 0 to ${rows - 1} and columns 0 to ${columns - 1}.`;
      return;
    }
    this.cell = { row, column };
    const at = Math.floor((row / rows) * values.height) * values.width + Math.floor((column / columns) * values.width);
    const value = `Row ${row}, column ${column}: ${round((values.values[at] / 255) * highest)}.`;
    $("cell-facts").textContent = [value, places ? this.placesText(places) : "Nothing stands in its cells."].join(" ");
    this.changed();
  }

  placesText({ what, shapes, learns }) {
    if (what === "point") return `No anchors: boxes are measured from its point. ${this.level.name} learns ${learns}.`;
    const listed = shapes.slice(0, 12).map(({ size, ratio }) => `${round(size)} at ${ratio}`);
    const more = shapes.length > listed.length ? `, and ${shapes.length - listed.length} more` : "";
    return `${plural(shapes.length, "anchor")}, sizes in network pixels at height / width: ${listed.join(", ")}${more}.`;
  }

  cellMarks() {
    if (!this.cell) return [];
    const { cell: [x1, y1, x2, y2], places } = this.level;
    const { row, column } = this.cell;
    const [wide, high] = [x2 - x1, y2 - y1];
    const own = { box: [x1 + column * wide, y1 + row * high, x2 + column * wide, y2 + row * high], colour: WHITE };
    const moved = ([left, top, right, bottom]) => {
      const [dx, dy] = [column * places.step[0], row * places.step[1]];
      return [left + dx, top + dy, right + dx, bottom + dy];
    };
    const anchors = (places?.shapes ?? []).map(({ box }) => ({ box: moved(box), colour: ANCHOR, dot: places.what === "point" }));
    return [...anchors, own];
  }

  // --- detections ---

  label(each) {
    return `${this.classes[each.label]?.name ?? each.label} ${shown(each.score)}`;
  }

  // Those that reach the threshold.
  get found() {
    return this.inside.detections.map((each, number) => ({ ...each, number, place: each.label })).filter(this.passes);
  }

  // Counts anew what levels have, and lists what the open one has.
  count() {
    if (!this.level) return;
    const found = this.found;
    const known = this.inside.detections.some((each) => each.level);
    for (const level of this.inside.levels) level.found.textContent = known ? `${found.filter((each) => each.level === level.name).length} found` : "";
    const own = found.filter((each) => each.level === this.level.name);
    $("why-title").textContent = `Detections of ${this.level.name}${own.length ? ": choose one to see where it comes from" : ""}`;
    const rows = own.slice(0, this.listed).map((each) => {
      const row = make("li");
      const button = make("button", this.label(each), "pick");
      button.type = "button";
      const open = each.number === this.chosen;
      button.addEventListener("click", () => this.choose(open ? null : each.number, rows.indexOf(row)));
      button.setAttribute("aria-expanded", String(open));
      row.classList.toggle("chosen", open);
      row.append(button, ...(open ? each.why : []).map((sentence) => make("p", sentence)));
      return row;
    });
    if (own.length > this.listed) rows.push(this.moreOf(own.length - this.listed));
    if (!own.length) rows.push(make("li", known ? "None, at this threshold." : "It is not told which level detections come from.", "said"));
    $("why").replaceChildren(...rows);
  }

  // What lists some of those that are left; the first of these has the focus then.
  moreOf(left) {
    const row = make("li", "", "said");
    const button = make("button", `Show ${Math.min(left, LISTED)} more of ${left}`);
    button.type = "button";
    button.addEventListener("click", () => {
      const next = this.listed;
      this.listed += LISTED;
      this.count();
      $("why").children[next].querySelector("button").focus();
    });
    row.append(button);
    return row;
  }

  // Says why of one detection, or of none; its place in the list keeps the focus.
  choose(number, place) {
    this.chosen = number;
    this.count();
    this.changed();
    $("why").children[place]?.querySelector("button")?.focus();
  }

  marks() {
    if (!this.level) return null;
    const all = this.found;
    const marks = all.map((each) => ({
      box: each.box,
      colour: colourOf(each.label),
      text: this.label(each),
      faint: each.level !== this.level.name || (this.chosen !== null && each.number !== this.chosen),
      chosen: each.number === this.chosen,
    }));
    const chosen = all.find((each) => each.number === this.chosen && each.level === this.level.name);
    const origin = chosen?.origin ? [{ box: chosen.origin, colour: ORIGIN, dashed: true, dot: chosen.origin[0] === chosen.origin[2] }] : [];
    return [...origin, ...this.cellMarks(), ...marks];
  }
}

export class Choice {
  constructor(changed) {
    this.changed = changed;
    this.selection = null;
    for (const each of document.querySelectorAll("input[name=when]")) each.addEventListener("change", () => this.update());
    $("count").addEventListener("input", () => this.update());
  }

  show(inside, classes = []) {
    this.selection = inside?.selection ?? null;
    this.detections = inside?.detections ?? [];
    this.classes = classes;
    showParts("choice", Boolean(this.selection), inside && !this.selection ? inside.note : null);
    const word = this.selection?.what === "candidates" ? "Candidates" : "Proposals";
    $("tab-choice").textContent = $("choice-what").textContent = word;
    if (!this.selection) return;
    const { before, after } = this.selection;
    $("before-label").textContent = `before NMS (${before.count.toLocaleString("en")})`;
    $("after-label").textContent = `after NMS (${after.count.toLocaleString("en")})`;
    this.fillTable(inside);
    this.update();
  }

  fillTable(inside) {
    const { what, levels, places, before, after } = this.selection;
    const anchors = inside.levels.some((each) => each.places?.what === "anchors");
    const heading = ["Level", anchors ? "Anchors" : "Points", what === "proposals" ? "After top\u2011k" : "Candidates", "After NMS", "Found"];
    const row = make("tr");
    row.append(...heading.map((text) => Object.assign(make("th", text), { scope: "col" })));
    $("choice-table").tHead.replaceChildren(row);
    const rows = levels.map((name, number) => {
      const line = make("tr");
      const head = Object.assign(make("th"), { scope: "row" });
      const swatch = make("span", "", "swatch");
      swatch.style.backgroundColor = css(colourOf(number));
      head.append(swatch, name);
      const counts = [places[number], before.by_level[number], after.by_level[number]];
      line.append(head, ...counts.map((count) => make("td", count.toLocaleString("en"))), make("td"));
      return line;
    });
    $("choice-table").tBodies[0].replaceChildren(...rows);
  }

  // Detections that reach the threshold, by the level that they are read from.
  count(passes) {
    if (!this.selection) return;
    const found = this.detections.filter((each) => passes({ ...each, place: each.label }));
    [...$("choice-table").tBodies[0].rows].forEach((row, number) => {
      row.lastElementChild.textContent = found.filter((each) => each.level === this.selection.levels[number]).length;
    });
  }

  get when() {
    return document.querySelector("input[name=when]:checked").value;
  }

  update() {
    if (!this.selection) return;
    const ranked = this.selection[this.when];
    $("count").max = Math.max(ranked.boxes.length, 1);
    const count = Math.min(Number($("count").value), ranked.boxes.length);
    $("count-value").textContent = count;
    const dropped = ranked.kept.slice(0, count).filter((each) => !each).length;
    const parts = [`${this.selection.rule}.`, `Drawn: the surest ${count} of ${ranked.count.toLocaleString("en")}, in the colour of the level that made them.`];
    if (dropped) parts.push(`${dropped} of these are dropped (dashed).`);
    if (count) parts.push(`Scores ${shown(ranked.scores[0])} to ${shown(ranked.scores[count - 1])}.`);
    parts.push(this.selection.what === "proposals" ? "Found: above the threshold, by the level that they are read from." : "Found: above the threshold.");
    $("choice-facts").textContent = parts.join(" ");
    this.changed();
  }

  marks() {
    if (!this.selection) return null;
    const { boxes, levels, labels, kept, scores } = this.selection[this.when];
    const count = Math.min(Number($("count").value), boxes.length);
    return boxes.slice(0, count).map((box, number) => ({
      box,
      colour: colourOf(levels[number]),
      dashed: !kept[number],
      text: number < 12 && kept[number] ? [labels ? this.classes[labels[number]]?.name : "", shown(scores[number])].join(" ").trim() : "",
    }));
  }
}
