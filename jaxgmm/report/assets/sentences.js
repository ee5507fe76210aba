// What is said about one group: sentences, and tables of components and of p-values.

const isAre = (n) => (n === 1 ? "is" : "are");
const FEW = 5 * (D + 1); // effective samples, below which a component's shape is a guess

function sentences(b, g) {
  const lines = [];
  const total = core.total ? ` whose weights sum to ${TOTAL_COLUMN.text(b)}` : "";
  if (core.status[b]) lines.push(META.status[core.status[b]][1]);
  const of = `of ${plural(core.n[b], "sample")}`;
  if (g.lost) lines.push(`${counted(g.lost)} ${of} ${g.lost === 1 ? "holds" : "hold"} NaN or infinity.`);
  if (g.zero) lines.push(`${counted(g.zero)} ${of} ${g.zero === 1 ? "has" : "have"} weight 0.`);
  const k = core.k[b];
  if (!k) return lines;
  const first = `${plural(k, "component")} describe${k === 1 ? "s" : ""} ${plural(core.n[b], "sample")}${total}.`;
  lines.push([first, choiceSentence(b, g)].filter(Boolean).join(" "));
  if (hasFlag(b, "at_largest_k")) lines.push("No larger K was tried; try more.");
  lines.push(...componentSentences(b, g));
  lines.push(residualSentence(core.p[b]));
  if (hasFlag(b, "few_agreeing")) lines.push("Only one start led here; more starts may find a better optimum.");
  const isPassedOver = hasFlag(b, "passed_over") || hasFlag(b, "start_passed_over");
  if (isPassedOver) lines.push("Something likelier was not taken, since it is degenerate or spurious.");
  return lines;
}

function choiceSentence(b, g) {
  const chosen = g.models.find((m) => m.chosen);
  if (!chosen) return "";
  if (IS_TEST) return testSentence(g, chosen);
  const others = g.models.filter((m) => m.k !== chosen.k && !m.hollow && Number.isFinite(m.above));
  if (!others.length) return "";
  const next = others.reduce((best, m) => (m.above < best.above ? m : best)).k;
  const lead = core.lead[b];
  if (lead < 0) return `${CRITERION} is lower by ${number(-lead)} with K = ${next}.`;
  const behind = `K = ${next} is only ${number(lead)} behind in ${CRITERION}`;
  if (lead < META.limits.close) return `It is a close call: ${behind}.`;
  return `${CRITERION} is lower by ${number(lead)} than with K = ${next}, the next best.`;
}

function testSentence(g, chosen) {
  const before = g.models.find((m) => m.k === chosen.k - 1);
  const parts = [];
  if (before?.above >= 0) parts.push(`K = ${before.k} was rejected (p ${probability(before.above)})`);
  if (chosen.above > META.level) parts.push(`K = ${chosen.k + 1} is not needed (p ${probability(chosen.above)})`);
  return parts.length ? parts.join("; ") + "." : "";
}

function componentSentences(b, g) {
  const lines = [];
  const { overlap } = META.limits;
  const [spurious, wide] = [core.spurious[b], core.ridge[b]];
  const some = (n) => `${plural(n, "component")} ${isAre(n)}`;
  if (spurious) lines.push(`${some(spurious)} spurious: on a few samples, or on equal values.`);
  if (wide) lines.push(`${some(wide)} as wide as the ridge in some direction.`);
  const weak = g.components.filter((c) => c.effective < FEW).map((c) => c.name);
  const rests = weak.length === 1 ? `Component ${weak[0]} rests` : `Components ${weak.join(", ")} rest`;
  if (weak.length) lines.push(`${rests} on fewer than ${FEW} effective samples.`);
  const close = g.components.filter((c) => c.overlap > overlap);
  const pairs = new Set(close.map((c) => [c.name, c.nearest].sort((u, v) => u - v).join(" and ")));
  const one = "overlap much; they may be one cluster that is not Gaussian";
  for (const pair of pairs) lines.push(`Components ${pair} ${one}.`);
  return lines;
}

function residualSentence(p) {
  const said = p < 0.001 ? "p < 0.001" : `p = ${probability(p)}`;
  if (!(p >= 0)) return "There are no residuals.";
  const far = `The residuals are far from uniform (${said})`;
  if (p < META.limits.misfit) return `${far}: these samples do not look like such a mixture.`;
  return `Nothing in the residuals speaks against the mixture (${said}, adjusted for ${plural(2 * D, "test")}).`;
}

const SWATCHES = [
  () => svg("circle", { cx: 6, cy: 6, r: 5 }),
  () => svg("rect", { x: 1.5, y: 1.5, width: 9, height: 9 }),
  () => svg("path", { d: "M6 0L12 11H0Z" }),
  () => svg("path", { d: "M6 0L12 6L6 12L0 6Z" }),
  () => svg("path", { d: "M6 12L12 1H0Z" }),
  () => svg("path", { d: "M4 0H8V4H12V8H8V12H4V8H0V4H4Z" }),
];

function swatch(name) {
  const shape = SWATCHES[name % SWATCHES.length]();
  shape.setAttribute("fill", colour(name));
  return svg("svg", { width: 12, height: 12, "aria-hidden": "true" }, shape);
}

function tableOf(heads, rows) {
  const head = el("thead", {}, el("tr", {}, ...heads.map((text) => el("th", { scope: "col" }, text))));
  return el("div", { className: "wide" }, el("table", {}, head, el("tbody", {}, ...rows)));
}

function componentsTable(g) {
  const several = g.components.length > 1;
  const heads = ["component", "weight", "eff. samples", ...META.features.flatMap((f) => [`mean ${f}`, `sd ${f}`])];
  if (D === 2) heads.push("correlation");
  if (several) heads.push("overlap");
  const rows = g.components.map((c) => {
    const cells = [number(100 * c.weight, c.weight < 0.1 ? 1 : 0) + "%", number(c.effective, 0), ...meansOf(c, g)];
    if (D === 2) cells.push(number(c.cov[1] / Math.sqrt(c.cov[0] * c.cov[2]), 2));
    if (several) cells.push(`${number(c.overlap, 2)} with ${c.nearest}`);
    return el("tr", {}, el("td", {}, swatch(c.name), String(c.name)), ...cells.map((text) => el("td", {}, text)));
  });
  return tableOf(heads, rows);
}

// Mean and standard deviation by feature, in units of the data.
function meansOf(c, g) {
  return META.features.flatMap((_, j) => {
    const sd = Math.sqrt(c.cov[tri(j, j)]) * g.span[j];
    return [beside(g.low[j] + c.mean[j] * g.span[j], sd), beside(sd, sd)];
  });
}

function pTable(g) {
  const rows = META.features.map((name, d) => [name, d ? g.p[d] : NaN, g.p[D + d]]);
  rows.push(["radius", NaN, g.p[2 * D]]);
  const cell = (p) => {
    return el("td", { className: p < META.limits.misfit ? "bad" : "" }, Number.isNaN(p) ? "" : probability(p));
  };
  // Nothing stands before the only feature.
  const own = D > 1 ? (p, q) => [cell(p), cell(q)] : (_, q) => [cell(q)];
  const heads = ["residual of", ...(D > 1 ? ["given the features before it"] : []), "by itself"];
  return tableOf(heads, rows.map(([name, p, q]) => el("tr", {}, el("td", {}, name), ...own(p, q))));
}
