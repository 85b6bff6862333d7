// What is drawn over the image: boxes with labels, masks, skeletons, and maps in colour.

// Okabe and Ito's colours, told apart by colour-blind people too; the same as in the images that `fpn predict` draws.
const PALETTE = [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [204, 121, 167], [213, 94, 0], [0, 114, 178]];
const SHADES = [[0, 0], [0, 0.4], [255, 0.5]];
// From violet to yellow, rising evenly in lightness (the stops of viridis).
const STOPS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
// Pixels of the screen; on a phone, where boxes lie closer, the second.
const FONTS = [13, 10];
const NARROW = 400;
// A label that would lie on others by more than this part of its area is left out.
const MOST_COVERED = 0.25;
// Found keypoints that score less are not drawn: a head says some place for each, also where there is none.
const LEAST_KEYPOINT = 0.05;
// Pixels of the canvas that masks are drawn on.
const MASK_PIXELS = 1 << 22;
const SVG = "http://www.w3.org/2000/svg";

export function colourOf(label) {
  const [towards, share] = SHADES[Math.floor(label / PALETTE.length) % SHADES.length];
  return PALETTE[label % PALETTE.length].map((value) => Math.round(value + (towards - value) * share));
}

// Cut, not rounded: 0.996 is not certain.
export const shown = (score) => (Math.floor(score * 100 + 1e-6) / 100).toFixed(2);

export const css = (colour) => `rgb(${colour.join(" ")})`;

function inkOn(colour) {
  // WCAG's relative luminance: black or white, whichever stands out more.
  const [red, green, blue] = colour.map((value) => value / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  const luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  return 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 ? "#ffffff" : "#000000";
}

function element(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent.append(made);
  return made;
}

// --- boxes ---

// Draws marks over an image of `size` pixels, the first on top. A mark is a box (xyxy) with a colour and perhaps a text,
// points, and whether it is chosen, dashed or faint.
export function drawMarks(svg, size, marks, edges = []) {
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
  const unit = size.width / Math.max(svg.clientWidth, 1);
  const font = FONTS[Number(svg.clientWidth < NARROW)];
  const ordered = [...marks].sort((one, other) => Number(Boolean(other.chosen)) - Number(Boolean(one.chosen)));
  for (const mark of [...ordered].reverse()) drawMark(svg, mark, edges, unit);
  const placed = [];
  const labels = ordered.filter((mark) => mark.text && !mark.faint).map((mark) => [mark, placeLabel(mark, size, unit, font, placed)]);
  for (const [mark, spot] of labels.reverse()) if (spot) drawLabel(svg, mark, spot, unit, font);
}

function drawMark(svg, mark, edges, unit) {
  const kind = ["mark", mark.chosen ? "chosen" : "", mark.faint ? "faint" : ""].join(" ");
  const group = element("g", { class: kind }, svg);
  const [x1, y1, x2, y2] = mark.box;
  const corners = { x: x1, y: y1, width: Math.max(x2 - x1, 0), height: Math.max(y2 - y1, 0) };
  const dashed = mark.dashed ? " dashed" : "";
  element("rect", { ...corners, class: `case${dashed}` }, group);
  element("rect", { ...corners, class: `box${dashed}`, stroke: css(mark.colour) }, group);
  if (mark.dot) element("circle", { cx: (x1 + x2) / 2, cy: (y1 + y2) / 2, r: 5 * unit, fill: css(mark.colour), stroke: "#000000", "stroke-width": unit }, group);
  if (mark.points) drawSkeleton(group, mark, edges, unit);
}

function drawSkeleton(group, mark, edges, unit) {
  const seen = mark.points.map((point) => point[2] > LEAST_KEYPOINT);
  for (const [stroke, width] of [["#000000", 4.5], [css(mark.colour), 2.2]]) {
    for (const [one, other] of edges) {
      if (!seen[one] || !seen[other]) continue;
      const [[ax, ay], [bx, by]] = [mark.points[one], mark.points[other]];
      element("line", { x1: ax, y1: ay, x2: bx, y2: by, stroke, "stroke-width": width * unit }, group);
    }
  }
  mark.points.forEach(([x, y], number) => {
    if (seen[number]) element("circle", { cx: x, cy: y, r: 3 * unit, fill: "#fafaf8", stroke: css(mark.colour), "stroke-width": 1.8 * unit }, group);
  });
}

const ruler = document.createElement("canvas").getContext("2d");

function placeLabel(mark, size, unit, font, placed) {
  ruler.font = `600 ${font}px system-ui, sans-serif`;
  const width = (ruler.measureText(mark.text).width + 8) * unit;
  const height = (font + 5) * unit;
  const [x1, y1, x2, y2] = mark.box;
  const line = 1.5 * unit;
  const corners = [[x1 - line, y1 - line - height], [x1 - line, y2 + line], [x1, y1], [x2 + line - width, y1 - line - height]];
  let [best, least] = [null, Infinity];
  for (const [x, y] of corners) {
    const left = Math.max(0, Math.min(x, size.width - width));
    const top = Math.max(0, Math.min(y, size.height - height));
    const spot = [left, top, left + width, top + height];
    const covered = placed.reduce((sum, other) => sum + overlap(spot, other), 0);
    if (covered < least) [best, least] = [spot, covered];
  }
  if (!mark.chosen && least > MOST_COVERED * width * height) return null;
  placed.push(best);
  return best;
}

function overlap(one, other) {
  const wide = Math.min(one[2], other[2]) - Math.max(one[0], other[0]);
  const high = Math.min(one[3], other[3]) - Math.max(one[1], other[1]);
  return Math.max(wide, 0) * Math.max(high, 0);
}

function drawLabel(svg, mark, [x1, y1, x2, y2], unit, font) {
  const group = element("g", { class: "label" }, svg);
  element("rect", { x: x1, y: y1, width: x2 - x1, height: y2 - y1, rx: 3 * unit, fill: css(mark.colour) }, group);
  const text = element("text", { x: x1 + 4 * unit, y: y2 - 0.37 * font * unit, "font-size": font * unit, fill: inkOn(mark.colour) }, group);
  text.textContent = mark.text;
}

// --- masks ---

// Lengths of the runs of a COCO mask, whose text has five bits a letter; from the third on they are differences.
function runsOf(text) {
  const runs = [];
  for (let at = 0; at < text.length; ) {
    let value = 0;
    for (let shift = 0, more = true; more; shift += 5) {
      const bits = text.charCodeAt(at++) - 48;
      value |= (bits & 31) << shift;
      more = Boolean(bits & 32);
      if (!more && bits & 16) value |= -1 << (shift + 5);
    }
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
}

// Lays a veil of its colour on each object, the first on top.
export function drawMasks(canvas, size, marks) {
  const masked = marks.filter((mark) => mark.mask);
  canvas.hidden = masked.length === 0;
  if (canvas.hidden) return;
  const step = Math.ceil(Math.sqrt((size.width * size.height) / MASK_PIXELS));
  canvas.width = Math.ceil(size.width / step);
  canvas.height = Math.ceil(size.height / step);
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(image.data.buffer);
  for (const mark of masked.reverse()) {
    const [red, green, blue] = mark.colour;
    // Little-endian: alpha, blue, green, red. A fainter veil where it is not the one that was chosen.
    const value = (((mark.chosen ? 190 : 115) << 24) | (blue << 16) | (green << 8) | red) >>> 0;
    fillRuns(pixels, canvas.width, step, mark.mask, value);
  }
  context.putImageData(image, 0, 0);
}

function fillRuns(pixels, width, step, mask, value) {
  const height = mask.size[0];
  let start = 0;
  runsOf(mask.counts).forEach((length, number) => {
    if (number % 2) {
      for (let place = start; place < start + length; place++) {
        const y = place % height;
        const x = (place - y) / height;
        if (x % step === 0 && y % step === 0) pixels[(y / step) * width + x / step] = value;
      }
    }
    start += length;
  });
}

// --- maps ---

function colourAt(share) {
  const place = Math.min(Math.max(share, 0), 1) * (STOPS.length - 1);
  const below = Math.min(Math.floor(place), STOPS.length - 2);
  return STOPS[below].map((value, channel) => Math.round(value + (STOPS[below + 1][channel] - value) * (place - below)));
}

export async function readMap(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const { data, width, height } = context.getImageData(0, 0, canvas.width, canvas.height);
  return { width, height, values: Uint8Array.from({ length: width * height }, (_, number) => data[4 * number]) };
}

// The map in colour; `factor` makes it darker, so that levels can be compared.
export function paintMap(canvas, map, factor) {
  canvas.width = map.width;
  canvas.height = map.height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(map.width, map.height);
  const table = Array.from({ length: 256 }, (_, value) => colourAt((value / 255) * factor));
  map.values.forEach((value, number) => image.data.set([...table[value], 255], 4 * number));
  context.putImageData(image, 0, 0);
}

export function paintLegend(canvas) {
  const context = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x++) {
    context.fillStyle = css(colourAt(x / (canvas.width - 1)));
    context.fillRect(x, 0, 1, 1);
  }
}
