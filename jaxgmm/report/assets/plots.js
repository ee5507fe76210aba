// Line plots of one group: a criterion against K, and residuals.

const [WIDE, HIGH] = [340, 200];
const MARGIN = { left: 48, right: 14, top: 8, bottom: 36 };
const DASHES = ["", "6 3", "2 3", "8 3 2 3"];
const BAND = 1.358; // the Kolmogorov-Smirnov distance that 1 of 20 samples exceeds, times the root of their size

// An empty plot, and functions from numbers to its pixels.
function plotFrame([x0, x1], [y0, y1], xTicks, yTicks, xLabel) {
  const { left, right, top, bottom } = MARGIN;
  const px = (x) => left + ((x - x0) / (x1 - x0)) * (WIDE - left - right);
  const py = (y) => HIGH - bottom - ((y - y0) / (y1 - y0)) * (HIGH - top - bottom);
  const node = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": xLabel });
  for (const v of yTicks.at) {
    node.append(svg("line", { x1: left, x2: WIDE - right, y1: py(v), y2: py(v), stroke: "var(--line)" }));
    node.append(label(left - 6, py(v) + 4, minus(v.toFixed(yTicks.digits)), "end"));
  }
  for (const v of xTicks.at) node.append(label(px(v), HIGH - bottom + 15, minus(v.toFixed(xTicks.digits)), "middle"));
  node.append(label((left + WIDE - right) / 2, HIGH - 4, xLabel, "middle", "var(--ink)"));
  return { node, px, py };
}

function label(x, y, text, anchor, fill = "var(--grey)") {
  return svg("text", { x, y, "text-anchor": anchor, fill, "font-size": 11 }, text);
}

function lineOf(points, k) {
  const d = points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  return svg("path", { d, fill: "none", stroke: colour(k), "stroke-width": 1.8, "stroke-dasharray": DASHES[k % 4] });
}

// The names of lines, beside pieces of them.
function lineNames(names) {
  const items = names.map((name, k) => {
    const piece = svg("svg", { width: 24, height: 8, "aria-hidden": "true" }, lineOf([[0, 4], [24, 4]], k));
    return el("span", {}, piece, name);
  });
  return el("p", { className: "names" }, ...items);
}

const CRITERION_TITLE = IS_TEST ? "p-value of K against K + 1" : `${CRITERION} against K`;

function criterionPlot(g) {
  const known = g.models.filter((m) => Number.isFinite(m.above));
  const sound = known.filter((m) => !m.hollow);
  const [low, top] = IS_TEST ? [0, 1] : spanOf(known, sound);
  const ks = META.k;
  const every = Math.ceil(ks.length / 14);
  const xTicks = { at: ks.filter((_, i) => i % every === 0), digits: 0 };
  const unit = IS_TEST ? "" : `; ${CRITERION} above the lowest`;
  const ends = [low - 0.06 * (top - low), top + 0.06 * (top - low)];
  const f = plotFrame([ks[0] - 0.3, ks.at(-1) + 0.3], ends, xTicks, ticks(low, top, 4), "components K" + unit);
  if (IS_TEST) f.node.append(levelLine(f));
  META.families.forEach((_, family) => {
    const line = known.filter((m) => m.family === family).sort((a, b) => a.k - b.k);
    f.node.append(lineOf(line.map((m) => [f.px(m.k), f.py(m.above)]), family));
    for (const m of line) f.node.append(...dotsOf(m, f));
  });
  return [lineNames(META.families), f.node];
}

// Unsound models may be far off, and out of the picture.
function spanOf(known, sound) {
  const top = Math.max(10, ...(sound.length ? sound : known).map((m) => m.above));
  return [Math.min(0, ...known.map((m) => m.above)), top];
}

function levelLine(f) {
  const y = f.py(META.level);
  const ends = { x1: MARGIN.left, x2: WIDE - MARGIN.right, y1: y, y2: y };
  const line = svg("line", { ...ends, stroke: "var(--grey)", "stroke-dasharray": "2 3" });
  line.append(svg("title", {}, `level ${META.level}`));
  return line;
}

function dotsOf(m, f) {
  const [cx, cy] = [f.px(m.k), f.py(m.above)];
  const fill = m.hollow ? "var(--panel)" : colour(m.family);
  const dot = svg("circle", { cx, cy, r: 4, fill, stroke: colour(m.family), "stroke-width": 1.5 });
  const value = IS_TEST ? `p ${probability(m.above)}` : `${number(m.above)} above the lowest`;
  const note = m.hollow ? ", degenerate or spurious" : "";
  dot.append(svg("title", {}, `K = ${m.k}, ${META.families[m.family]}: ${value}, ${META.status[m.status][0]}${note}`));
  const ring = { cx, cy, r: 9, fill: "none", stroke: "var(--warn)", "stroke-width": 2, class: "ring" };
  return m.chosen ? [dot, svg("circle", ring)] : [dot];
}

// The three kinds of residuals that are farthest from uniform: how much of the samples is below u, less u.
function residualPlot(g) {
  const worst = residualKinds(g).sort((a, b) => a.p - b.p).slice(0, 3);
  const band = BAND / Math.sqrt(effective(g));
  const lines = worst.map(({ u }) => differences(u, g.w));
  const half = 1.05 * Math.max(1.2 * band, ...lines.flatMap((line) => line.map(([, y]) => Math.abs(y))));
  const xTicks = { at: [0, 0.5, 1], digits: 1 };
  const f = plotFrame([0, 1], [-half, half], xTicks, ticks(-half, half, 4), "residual u; share below u, less u");
  const height = f.py(-band) - f.py(band);
  const props = { x: f.px(0), width: f.px(1) - f.px(0), y: f.py(band), height, fill: "var(--soft)" };
  f.node.prepend(svg("rect", props, svg("title", {}, "19 of 20 samples of the mixture would stay within")));
  lines.forEach((line, k) => f.node.append(lineOf(line.map(([x, y]) => [f.px(x), f.py(y)]), k)));
  return [lineNames(worst.map(({ name }) => name)), f.node];
}

function residualKinds(g) {
  const all = residuals(g);
  const alone = META.features.map((name, d) => ({ name, u: all[D + d], p: g.p[D + d] }));
  const given = META.features.map((name) => `${name}, given the features before it`);
  const after = given.map((name, d) => ({ name, u: all[d], p: g.p[d] }));
  return [...alone, ...after.slice(1)];
}

// Kish's effective number of samples.
function effective(g) {
  if (!g.w) return g.n;
  return g.w.reduce((sum, w) => sum + w, 0) ** 2 / g.w.reduce((sum, w) => sum + w * w, 0);
}

function differences(u, w) {
  const rows = Uint32Array.from(u, (_, i) => i).sort((a, b) => u[a] - u[b]);
  const total = w ? w.reduce((sum, v) => sum + v, 0) : u.length;
  const points = [[0, 0]];
  let below = 0;
  for (const i of rows) {
    points.push([u[i], below - u[i]]);
    below += (w ? w[i] : 1) / total;
    points.push([u[i], below - u[i]]);
  }
  return [...points, [1, 0]];
}
