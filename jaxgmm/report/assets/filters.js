// Which groups are listed, in which order; and the filters, each of which counts the groups that pass all others.

const FACETS = ["status", "k", "family", "flag"];

function refresh(keepPlace) {
  const at = order[cursor];
  const { kept, counts } = passing();
  sortGroups(kept);
  order = kept;
  rank = new Int32Array(core.n.length).fill(-1);
  order.forEach((b, i) => (rank[b] = i));
  const wanted = state.open >= 0 && rank[state.open] >= 0 ? state.open : keepPlace ? at : -1;
  cursor = wanted >= 0 ? Math.max(0, rank[wanted]) : 0;
  drawFacets(counts);
  tellCounts();
  layOut();
  scrollToPlace(cursor);
  toAddress();
  prefetchSoon();
}

function passing() {
  const matches = matcher();
  const mask = [...state.flag].reduce((found, bit) => found | (1 << bit), 0);
  const counts = Object.fromEntries(FACETS.map((name) => [name, new Map()]));
  const count = (name, value) => counts[name].set(value, (counts[name].get(value) || 0) + 1);
  const kept = [];
  for (let b = 0; b < core.n.length; b++) {
    if (core.n[b] < state.min || core.n[b] > state.max || !matches(b)) continue;
    const s = !state.status.size || state.status.has(core.status[b]);
    const k = !state.k.size || state.k.has(core.k[b]);
    const f = (core.flags[b] & mask) === mask;
    const y = !state.family.size || (core.k[b] > 0 && state.family.has(core.family[b]));
    if (k && f && y) count("status", core.status[b]);
    if (s && f && y) count("k", core.k[b]);
    if (s && k && f && core.family && core.k[b]) count("family", core.family[b]);
    if (!(s && k && f && y)) continue;
    kept.push(b);
    META.flags.forEach((_, bit) => core.flags[b] & (1 << bit) && count("flag", bit));
  }
  return { kept, counts };
}

// Missing values come last in either direction.
function sortGroups(kept) {
  const column = columns.find((c) => c.id === state.sort);
  if (!column) return;
  const value = Float64Array.from({ length: core.n.length }, (_, b) => column.value(b));
  const sign = state.down ? -1 : 1;
  kept.sort((a, b) => {
    const [u, v] = [value[a], value[b]];
    if (u === v) return a - b;
    if (Number.isNaN(u)) return Number.isNaN(v) ? a - b : 1;
    return Number.isNaN(v) ? -1 : sign * (u - v);
  });
}

function facet(label, name, items, counts) {
  const most = Math.max(1, ...counts.values());
  const buttons = items.map(([value, text, title]) => {
    const n = counts.get(value) || 0;
    const bar = el("i");
    bar.style.width = (100 * n) / most + "%";
    const props = { className: "chip" + (n ? "" : " none"), title: title || "", onclick: () => toggle(name, value) };
    const button = el("button", props, text, el("b", {}, counted(n)), bar);
    button.setAttribute("aria-pressed", state[name].has(value));
    button.dataset.facet = name + value;
    return button;
  });
  const props = { className: "facet", role: "group", ariaLabel: label };
  return el("div", props, el("span", {}, label), el("div", {}, ...buttons));
}

function toggle(name, value) {
  if (!state[name].delete(value)) state[name].add(value);
  refresh(true);
}

let present = null; // the statuses, K and flags that groups have

function drawFacets(counts) {
  const focused = document.activeElement?.dataset?.facet;
  present ||= { status: new Set(core.status), k: new Set(core.k), flag: core.flags.reduce((all, f) => all | f, 0) };
  const values = (name) => [...new Set([...present[name], ...state[name]])].sort((a, b) => a - b);
  const statuses = values("status").map((s) => [s, ...META.status[s]]);
  const ks = values("k").map((k) => [k, k ? String(k) : "none"]);
  const families = META.families.map((name, f) => [f, name]);
  const flags = META.flags.map(([name, why], bit) => [bit, name, why]).filter(([bit]) => present.flag & (1 << bit));
  const row = $("facet-row");
  row.querySelectorAll(".facet:not(.sizes)").forEach((node) => node.remove());
  row.prepend(facet("Status", "status", statuses, counts.status), facet("Components K", "k", ks, counts.k));
  const sizes = row.querySelector(".sizes");
  if (families.length > 1) sizes.before(facet("Family", "family", families, counts.family));
  if (flags.length) sizes.after(facet("Flags (all of these)", "flag", flags, counts.flag));
  if (focused) row.querySelector(`[data-facet="${focused}"]`)?.focus();
}

// One line says how many groups are listed, and how many of them do not look like their mixture.
function tellCounts() {
  const whole = core.n.length;
  const filtered = order.length < whole;
  const answered = order.filter((b) => core.p[b] >= 0).length;
  const misfits = order.filter(isMisfit).length;
  const limit = META.limits.misfit;
  let text = filtered ? `${counted(order.length)} of ${plural(whole, "group")}.` : `${plural(whole, "group")}.`;
  if (answered && !misfits) text += ` In none of them p < ${limit}.`;
  if (misfits) text += ` In ${counted(misfits)} of them p < ${limit}: their samples do not look like the mixture.`;
  const byChance = Math.round(answered * limit);
  if (misfits && !filtered && byChance) text += ` Chance alone would account for up to ${counted(byChance)}.`;
  if (marks.size) text += ` ${plural(marks.size, "mark")}.`;
  $("status-line").replaceChildren(text);
  if (filtered) $("status-line").append(el("button", { onclick: clearFilters }, "Clear filters"));
}

function clearFilters() {
  for (const name of FACETS) state[name].clear();
  Object.assign(state, { q: "", min: 0, max: Infinity });
  $("search").value = $("size-min").value = $("size-max").value = "";
  refresh(true);
}
