// The page of `fpn serve`: an image goes to the server once; thresholds, levels and proposals are looked at here.

import { colourOf, drawMarks, drawMasks, shown } from "./drawing.js";
import { Choice, Pyramid } from "./pyramid.js";

const $ = (id) => document.getElementById(id);
const TABS = ["found", "pyramid", "choice"];

// `size` of the image, `found` by the model, `inside` once a tab has asked for it, and the number of the `chosen` row.
const state = { models: [], token: "", file: null, size: null, found: [], inside: null, asking: null, chosen: null, tab: "found", turn: 0, looking: false };
const pyramid = new Pyramid(draw);
const choice = new Choice(draw);

const model = () => state.models.find((each) => each.name === $("model").value) ?? state.models[0];

// --- the server ---

async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(state.token ? { Authorization: `Bearer ${state.token}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  const said = await response.json().catch(() => ({}));
  if (response.ok) return said;
  if (response.status === 401) {
    $("token-form").hidden = false;
    $("token").focus();
  }
  throw new Error([said.error ?? `The server answers ${response.status} ${response.statusText}`, said.remedy].filter(Boolean).map((part) => part.replace(/\.?$/, ".")).join(" "));
}

function complain(error) {
  $("problem").textContent = error.message;
  $("problem").hidden = false;
}

async function begin() {
  $("server").textContent = location.host;
  try {
    state.models = (await ask("inside")).models;
  } catch (error) {
    complain(error);
    return;
  }
  $("problem").hidden = $("token-form").hidden = true;
  $("model").replaceChildren(...state.models.map((each) => new Option(each.name, each.name)));
  $("model-field").hidden = state.models.length < 2;
  useModel();
  if (state.file) await look(state.file);
}

function useModel() {
  const { name, kind, classes, thresholds } = model();
  const many = classes.length === 1 ? "1 class" : `${classes.length} classes`;
  $("about").textContent = `${name}: ${kind.replaceAll("_", " ")}, ${many}. Drop an image, see what it finds, look into its pyramid.`;
  $("calibrated-field").hidden = !thresholds;
  $("calibrated").checked = Boolean(thresholds);
  if (thresholds) $("calibrated-label").textContent = `Each class from its own threshold, calibrated for ${thresholds.goal}`;
  setThreshold();
}

// --- an image ---

async function look(file) {
  if (!state.models.length) {
    state.file = file;
    return;
  }
  const turn = ++state.turn;
  Object.assign(state, { file, found: [], inside: null, asking: null, chosen: null, looking: true });
  pyramid.show(null);
  choice.show(null);
  fillTable();
  draw();
  $("problem").hidden = true;
  $("status").textContent = "Looking…";
  try {
    const said = await ask(`predict?score=0&model=${encodeURIComponent(model().name)}`, post(file));
    if (turn !== state.turn) return;
    const [image] = said.images;
    state.size = { width: image.width, height: image.height };
    state.found = image.detections.map(readDetection);
    await showPhoto(file, image.warnings ?? []);
  } catch (error) {
    if (turn !== state.turn) return;
    state.looking = false;
    $("status").textContent = "";
    complain(error);
    return;
  }
  if (turn !== state.turn) return;
  state.looking = false;
  $("result").hidden = false;
  $("intro").hidden = true;
  $("drop").classList.add("small");
  $("drop-hint").textContent = `${file.name || "The image"} is shown. Another one may be dropped or pasted anywhere.`;
  fillTable();
  update();
  if (state.tab !== "found") await lookInside();
}

const post = (file) => ({ method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });

function readDetection({ label, category_id, score, box, mask, keypoints }, number) {
  const place = model().classes.findIndex((each) => each.id === category_id);
  const free = model().class_free;
  return { number, place, score, box, mask, points: keypoints, name: label, text: free ? shown(score) : `${label} ${shown(score)}`, colour: colourOf(free ? number : place) };
}

// Waits until the browser has the image; of a format that it does not know, the boxes are drawn on an empty sheet.
async function showPhoto(file, warnings) {
  const photo = $("photo");
  const { width, height } = state.size;
  $("result").style.setProperty("--ratio", width / height);
  const earlier = photo.src;
  photo.src = URL.createObjectURL(file);
  photo.alt = `${file.name || "The image"}, ${width} × ${height} pixels`;
  const known = await photo.decode().then(() => true, () => false);
  URL.revokeObjectURL(earlier); // not before: it may have been on its way still
  photo.classList.toggle("blank", !known);
  const unknown = known ? [] : ["this browser does not show its format, so boxes are drawn on an empty sheet"];
  $("caption").textContent = [`${width} × ${height} pixels`, ...unknown, ...warnings].join("; ");
}

// --- what is shown ---

function passes({ place, score }) {
  const { thresholds } = model();
  return score >= ($("calibrated").checked && thresholds ? thresholds.scores[place] : Number($("threshold").value));
}

function setThreshold() {
  $("threshold").disabled = $("calibrated").checked;
  $("threshold-value").textContent = Number($("threshold").value).toFixed(2);
}

function fillTable() {
  const rows = state.found.map((each) => {
    const [x1, y1, x2, y2] = each.box;
    const row = document.createElement("tr");
    const name = document.createElement("th");
    name.scope = "row";
    const button = document.createElement("button");
    button.className = "pick";
    button.setAttribute("aria-pressed", "false");
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.backgroundColor = `rgb(${each.colour.join(" ")})`;
    button.append(swatch, each.name);
    button.addEventListener("click", () => choose(each.number));
    name.append(button);
    const cells = [shown(each.score), `${Math.round(x2 - x1)} × ${Math.round(y2 - y1)}`].map((text) => {
      const cell = document.createElement("td");
      cell.textContent = text;
      return cell;
    });
    row.append(name, ...cells);
    return row;
  });
  $("table").tBodies[0].replaceChildren(...rows);
}

function choose(number) {
  state.chosen = state.chosen === number ? null : number;
  update();
}

function update() {
  if (!state.file) return;
  const here = state.found.filter(passes);
  const less = state.found.length - here.length;
  const count = here.length === 1 ? "1 object found" : `${here.length} objects found`;
  if (!state.looking) $("status").textContent = less ? `${count}; ${less} more below the threshold.` : `${count}.`;
  [...$("table").tBodies[0].rows].forEach((row, number) => {
    row.hidden = !passes(state.found[number]);
    row.classList.toggle("chosen", number === state.chosen);
    row.querySelector("button").setAttribute("aria-pressed", String(number === state.chosen));
  });
  pyramid.count();
  choice.count(passes);
  draw();
}

function draw() {
  if (!state.size) return;
  const here = state.found.filter(passes).map((each) => ({ ...each, chosen: each.number === state.chosen }));
  // Where nothing of the inside is known the detections stay.
  const by = { found: () => here, pyramid: () => pyramid.marks() ?? here, choice: () => choice.marks() ?? here };
  const marks = by[state.tab]();
  drawMarks($("boxes"), state.size, marks, model().skeleton?.edges ?? []);
  drawMasks($("masks"), state.size, marks);
  pyramid.drawMap($("map"), state.size, state.tab === "pyramid");
  $("stage").classList.toggle("picking", state.tab === "pyramid" && pyramid.canPick);
  $("boxes").setAttribute("aria-label", state.tab === "found" ? `${here.length} detections on the image; they are listed in the table` : `${marks.length} boxes on the image`);
}

// --- tabs ---

async function openTab(tab, focus = false) {
  state.tab = tab;
  for (const each of TABS) {
    const button = $(`tab-${each}`);
    button.setAttribute("aria-selected", String(each === tab));
    button.tabIndex = each === tab ? 0 : -1;
    $(each).hidden = each !== tab;
  }
  if (focus) $(`tab-${tab}`).focus();
  draw();
  if (tab !== "found") await lookInside();
}

// Asks once an image. What is shown of the inside is of the same image alone, so its scores may differ in a last digit.
async function lookInside() {
  if (!state.file || !state.size || state.asking) return;
  const turn = state.turn;
  $("status").textContent = "Looking into the pyramid…";
  state.asking = ask(`inside?model=${encodeURIComponent(model().name)}`, post(state.file));
  try {
    const inside = await state.asking;
    if (turn !== state.turn) return;
    state.inside = inside;
    await pyramid.show(inside, model().classes);
    choice.show(inside, model().classes);
    $("problem").hidden = true;
  } catch (error) {
    if (turn !== state.turn) return;
    state.asking = null;
    complain(error);
  }
  update();
}

// --- events ---

$("file").addEventListener("change", () => {
  if ($("file").files.length) look($("file").files[0]);
  $("file").value = "";
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const [file] = event.dataTransfer.files;
  if (file) look(file);
  else complain(new Error("That was no file. Drop an image file, or save the image first."));
});
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) look(file);
});
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  state.token = $("token").value;
  $("token").value = "";
  begin();
});
$("model").addEventListener("change", () => {
  useModel();
  if (state.file) look(state.file);
});
$("threshold").addEventListener("input", () => {
  setThreshold();
  update();
});
$("calibrated").addEventListener("change", () => {
  setThreshold();
  update();
});
for (const tab of TABS) $(`tab-${tab}`).addEventListener("click", () => openTab(tab));
$("tabs").addEventListener("keydown", (event) => {
  const steps = { ArrowRight: 1, ArrowLeft: -1 };
  const ends = { Home: 0, End: TABS.length - 1 };
  const to = event.key in ends ? ends[event.key] : (TABS.indexOf(state.tab) + steps[event.key] + TABS.length) % TABS.length;
  if (Number.isNaN(to)) return;
  event.preventDefault();
  openTab(TABS[to], true);
});
$("stage").addEventListener("click", (event) => {
  if (!state.size) return;
  const shape = $("stage").getBoundingClientRect();
  const x = ((event.clientX - shape.left) / shape.width) * state.size.width;
  const y = ((event.clientY - shape.top) / shape.height) * state.size.height;
  if (state.tab === "pyramid") pyramid.pick(x, y);
  if (state.tab === "found") {
    const under = state.found.filter(passes).filter(({ box: [x1, y1, x2, y2] }) => x1 <= x && x <= x2 && y1 <= y && y <= y2);
    const area = ({ box: [x1, y1, x2, y2] }) => (x2 - x1) * (y2 - y1);
    if (under.length) choose(under.reduce((one, other) => (area(other) < area(one) ? other : one)).number);
  }
});
new ResizeObserver(() => draw()).observe($("stage"));
pyramid.passes = passes;

begin();
