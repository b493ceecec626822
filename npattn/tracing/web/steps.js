"use strict";

// The page is whole without this script: it shows one step at a time, draws arrays, and tells their numbers.

const sections = [...document.querySelectorAll(".example")];
const walks = sections.map((section) =>
  [...section.querySelectorAll("[data-at]")].sort((a, b) => a.dataset.at - b.dataset.at)
);
const [slider, status] = ["slider", "status"].map((id) => document.getElementById(id));
const buttons = Object.fromEntries([...document.querySelectorAll("nav button")].map((button) => [button.id, button]));
let example = 0;
let position = 0;

// Steps

function show(at) {
  const walk = walks[example];
  position = Math.max(0, Math.min(at, walk.length - 1));
  const half = walk[position];
  const parts = half.dataset.parts;
  sections.forEach((section, i) => section.classList.toggle("shown", i === example));
  for (const pair of sections[example].querySelectorAll(".pair")) pair.classList.toggle("shown", pair.contains(half));
  half.closest(".pair").querySelectorAll("canvas").forEach(open);
  for (const one of walk) {
    one.classList.toggle("current", one === half);
    if (one === half) one.setAttribute("aria-current", "step");
    else one.removeAttribute("aria-current");
  }
  showCircuits(parts);
  highlight(half, parts);
  slider.max = walk.length - 1;
  slider.value = position;
  const way = half.classList.contains("backward") ? "backward" : "forward";
  const where = parts ? `${parts} / ` : "";
  status.textContent = `${position + 1} of ${walk.length}, ${way}: ${where}${half.dataset.title} ${half.dataset.names}`.trim();
  slider.setAttribute("aria-valuetext", status.textContent);
  buttons.first.disabled = buttons.previous.disabled = position === 0;
  buttons.last.disabled = buttons.next.disabled = position === walk.length - 1;
  buttons.mirror.disabled = mirrorOf(half) === undefined;
  for (const equation of half.closest(".pair").querySelectorAll(".equation")) fit(equation);
}

// Show the circuit of the whole, and those of the parts around the step.
function showCircuits(parts) {
  const circuits = [...sections[example].querySelectorAll(".circuit")];
  const around = circuits.filter((circuit) => holds(circuit.dataset.parts, parts));
  for (const circuit of circuits) {
    circuit.classList.toggle("shown", around.includes(circuit));
    circuit.classList.toggle("shared", around.length > 1);
    circuit.classList.toggle("outer", circuit !== around.at(-1));
  }
}

// Whether a part of the system is, or holds, another; the whole holds all.
function holds(outer, inner) {
  return outer === "" || inner === outer || inner.startsWith(`${outer} / `);
}

function highlight(half, parts) {
  const returning = half.classList.contains("backward");
  const active = [];
  for (const link of sections[example].querySelectorAll(".circuit a")) {
    const {forward, backward, runs} = link.dataset;
    const inside = Boolean(runs) && runs.split("|").some((part) => holds(part, parts));
    link.classList.toggle("forward", forward === half.dataset.at);
    link.classList.toggle("backward", backward === half.dataset.at);
    link.classList.toggle("inside", inside);
    link.classList.toggle("returning", inside && returning);
    if (inside || [forward, backward].includes(half.dataset.at)) active.push(link);
  }
  centre(active.filter((link) => link.closest(".shown.circuit")));
}

// Scroll circuits, and nothing around them, to one box each.
function centre(links) {
  const frames = links.map((link) => link.closest(".scroll"));
  const [boxes, around] = [links, frames].map((elements) => elements.map((one) => one.getBoundingClientRect()));
  frames.forEach((frame, i) => {
    frame.scrollTop += boxes[i].top + boxes[i].height / 2 - around[i].top - around[i].height / 2;
  });
}

function mirrorOf(half) {
  return [...half.parentElement.querySelectorAll("[data-at]")].find((other) => other !== half);
}

function mirror() {
  const other = mirrorOf(walks[example][position]);
  if (other !== undefined) show(Number(other.dataset.at));
}

// Make an equation that is too wide smaller, as long as it can be read.
function fit(equation) {
  equation.style.fontSize = "";
  const share = equation.clientWidth / equation.scrollWidth;
  if (share < 1) equation.style.fontSize = `${Math.max(0.7, share * 0.99)}em`;
}

// Whether the arrow keys scroll what has the focus.
function isTooWide(focused) {
  return focused.matches(".equation") && focused.scrollWidth > focused.clientWidth;
}

function choose(index) {
  const {parts, title} = walks[example][position].dataset;
  example = index;
  const same = walks[index].findIndex((half) => half.dataset.parts === parts && half.dataset.title === title);
  show(same < 0 ? Math.min(position, walks[index].length - 1) : same);
}

const moves = {
  first: () => show(0),
  previous: () => show(position - 1),
  next: () => show(position + 1),
  last: () => show(Infinity),
  mirror,
};
const keys = {Home: "first", ArrowLeft: "previous", ArrowRight: "next", End: "last", m: "mirror"};

for (const [id, button] of Object.entries(buttons)) button.addEventListener("click", moves[id]);
slider.addEventListener("input", () => show(Number(slider.value)));
for (const radio of document.querySelectorAll("[name=example]")) {
  radio.addEventListener("change", () => choose(Number(radio.value)));
}
document.addEventListener("keydown", (event) => {
  const usesArrows = event.target.closest("input, canvas") || isTooWide(event.target);
  if (event.ctrlKey || event.altKey || event.metaKey || usesArrows || !(event.key in keys)) return;
  event.preventDefault();
  moves[keys[event.key]]();
});
document.addEventListener("click", (event) => {
  const link = event.target.closest(".circuit a");
  if (link === null) return;
  event.preventDefault();
  show(Number(link.dataset.forward));
});
window.addEventListener("resize", () => show(position));
window.addEventListener("beforeprint", () => document.querySelectorAll("canvas").forEach(open));

// Arrays

const COLOURS = {plus: [224, 123, 26], minus: [58, 123, 224], lost: [128, 128, 128], marked: [200, 0, 160]};
const [BARS_HEIGHT, BAR_WIDTH] = [64, 4];
const pictures = new Map();

function read(canvas) {
  const bytes = Uint8Array.from(atob(canvas.dataset.numbers), (sign) => sign.charCodeAt(0));
  const {width: columns, height: rows} = canvas;
  const numbers = new Float32Array(bytes.buffer);
  return {numbers, rows, columns, largest: Number(canvas.dataset.largest), marked: -1, at: 0};
}

function draw(canvas) {
  const picture = pictures.get(canvas);
  if (canvas.dataset.kind === "map") drawMap(canvas, picture);
  else drawBars(canvas, picture);
}

function open(canvas) {
  if (pictures.has(canvas)) return;
  pictures.set(canvas, read(canvas));
  draw(canvas);
}

function contextOf(canvas) {
  return canvas.getContext("2d", {willReadFrequently: true}); // small pictures need no graphics card
}

function drawMap(canvas, {numbers, columns, rows, largest, marked}) {
  const image = new ImageData(columns, rows);
  numbers.forEach((number, i) => image.data.set(shade(number, largest, i === marked), 4 * i));
  contextOf(canvas).putImageData(image, 0, 0);
}

function shade(number, largest, marked) {
  if (marked) return [...COLOURS.marked, 255];
  if (!Number.isFinite(number)) return [...COLOURS.lost, 255];
  return [...COLOURS[number < 0 ? "minus" : "plus"], 255 * (Math.abs(number) / largest) ** 0.8];
}

function drawBars(canvas, {numbers, columns, marked}) {
  const finite = numbers.filter(Number.isFinite);
  const [low, high] = [Math.min(0, ...finite), Math.max(0, ...finite)];
  const scale = (BARS_HEIGHT - 2) / (high - low || 1);
  [canvas.width, canvas.height] = [columns * BAR_WIDTH, BARS_HEIGHT];
  const context = contextOf(canvas);
  const from = Number(canvas.dataset.from ?? 0);
  const width = (Number(canvas.dataset.to ?? 0) - from) / columns;
  numbers.forEach((number, i) => {
    const sign = canvas.dataset.kind === "bars" ? number : from + (i + 0.5) * width;
    const colour = i === marked ? "marked" : !Number.isFinite(number) ? "lost" : sign < 0 ? "minus" : "plus";
    const [top, bottom] = Number.isFinite(number) ? [Math.max(number, 0), Math.min(number, 0)] : [high, low];
    context.fillStyle = `rgb(${COLOURS[colour].join(" ")})`;
    const height = Math.max(1, (top - bottom) * scale);
    context.fillRect(i * BAR_WIDTH, 1 + (high - top) * scale, BAR_WIDTH - 1, height);
  });
}

function tell(canvas, at) {
  const picture = pictures.get(canvas);
  picture.at = at;
  picture.marked = at;
  draw(canvas);
  const number = picture.numbers[at];
  const [row, column] = [Math.floor(at / picture.columns), at % picture.columns];
  const {label, kind, from, to} = canvas.dataset;
  let text = `${element(label, [row, column])} = ${write(number)}`;
  if (kind === "bars") text = `${element(label, [column])} = ${write(number)}`;
  if (kind === "histogram") {
    const width = (to - from) / picture.columns;
    text = `${label}: ${number} from ${write(Number(from) + at * width)} to ${write(Number(from) + (at + 1) * width)}`;
  }
  canvas.nextElementSibling.textContent = text;
}

function element(label, index) {
  return label.endsWith("]") ? `${label.slice(0, -1)}, ${index.join(", ")}]` : `${label}[${index.join(", ")}]`;
}

function write(number) {
  return Number.isFinite(number) ? String(Number(number.toPrecision(4))).replace("-", "−") : String(number);
}

function cellUnder(canvas, event) {
  const box = canvas.getBoundingClientRect();
  const {columns, rows} = pictures.get(canvas);
  const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
  const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
  const clamp = (n, count) => Math.max(0, Math.min(n, count - 1));
  return clamp(row, rows) * columns + clamp(column, columns);
}

function moveCell(canvas, event) {
  const {at, columns, rows} = pictures.get(canvas);
  const [row, column] = [Math.floor(at / columns), at % columns];
  const [down, right] = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key] ?? [];
  if (down === undefined) return;
  event.preventDefault();
  const [newRow, newColumn] = [row + down, column + right];
  const there = newRow >= 0 && newRow < rows && newColumn >= 0 && newColumn < columns;
  tell(canvas, there ? newRow * columns + newColumn : at);
}

function unmark(canvas) {
  pictures.get(canvas).marked = -1;
  draw(canvas);
}

for (const canvas of document.querySelectorAll("canvas")) {
  canvas.addEventListener("pointermove", (event) => tell(canvas, cellUnder(canvas, event)));
  canvas.addEventListener("pointerdown", (event) => tell(canvas, cellUnder(canvas, event)));
  canvas.addEventListener("pointerleave", () => unmark(canvas));
  canvas.addEventListener("focus", () => tell(canvas, pictures.get(canvas).at));
  canvas.addEventListener("blur", () => unmark(canvas));
  canvas.addEventListener("keydown", (event) => moveCell(canvas, event));
}

const asked = walks.flat().find((half) => `#${half.id}` === location.hash);
if (asked !== undefined) {
  example = sections.indexOf(asked.closest(".example"));
  document.querySelector(`[name=example][value="${example}"]`).checked = true;
  position = Number(asked.dataset.at);
}
show(position);
