// Elements of the page, what is shown, and names of groups. Texts become text nodes: keys may hold anything.

const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif';
const NULL = "(null)";
const CRITERION = META.criterionTitle || "";
// Only p-values have a level.
const IS_TEST = typeof META.level === "number";

const $ = (id) => document.getElementById(id);
const narrow = () => innerWidth <= 760;

let core = null; // columns of the table
let order = []; // numbers of the groups that pass the filters
let rank = null; // the place of each group in `order`, or -1
let cursor = 0; // the place of the group that arrow keys move from
let printing = false;
const marks = new Set();
const state = {
  q: "",
  status: new Set(),
  k: new Set(),
  flag: new Set(),
  family: new Set(),
  min: 0,
  max: Infinity,
  sort: "",
  down: false,
  view: "table", // or "pictures", or "plates"
  colour: "p", // of plates
  shared: false,
  density: false,
  pair: [0, Math.min(1, D - 1)],
  open: -1,
};

function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function svg(tag, props = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(props)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const keyPart = (b, j) => META.keys[j][core["key" + j][b]] ?? NULL;
const key = (b) => META.by.map((_, j) => keyPart(b, j));
const titled = (b) => key(b).join(", ");
const named = (b) => titled(b) + (marks.has(b) ? " \u2605" : "");
const statusOf = (b) => META.status[core.status[b]][0];
const isMisfit = (b) => core.p[b] < META.limits.misfit;
const hasFlag = (b, name) => Boolean(core.flags[b] & (1 << META.flags.findIndex(([own]) => own === name)));
const flagsOf = (b) => META.flags.filter((_, bit) => core.flags[b] & (1 << bit));
const brief = (b) => (core.k[b] ? `K ${core.k[b]}, p ${probability(core.p[b])}` : statusOf(b));
