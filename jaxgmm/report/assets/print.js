// On paper: the opened group, or the first pictures of the list, in light colours. And the list as CSV.

const ON_SHEET = 40; // pictures
let prefetched = new Map();
let fetching = 0;

// Printing cannot wait, so what it needs is decoded beforehand, in breaks.
async function prefetch(pause) {
  const wanted = order.slice(0, ON_SHEET);
  const found = new Map();
  for (const b of wanted) {
    found.set(b, prefetched.get(b) || (await groupLater(b)));
    if (pause) await new Promise((done) => setTimeout(done, pause));
    if (wanted[0] !== order[0]) return;
  }
  prefetched = found;
}

function prefetchSoon() {
  clearTimeout(fetching);
  fetching = setTimeout(prefetch, 250, 4);
}

function redraw() {
  setTheme(printing);
  layOut();
  if (state.open >= 0) openGroup(state.open);
}

function forPaper(on) {
  printing = on;
  setTheme(on);
  $("print-pictures").replaceChildren();
  if (!on) redraw();
  else if (state.open >= 0 && $("big")) printGroup();
  else printPictures();
}

function printGroup() {
  const g = groupNow(state.open);
  if (!g) return;
  fillDetail(state.open, g); // in the colours of paper
  const big = $("big");
  [big.style.width, big.style.height] = ["560px", "370px"];
  drawGroup(big, g, 560, 370, { ...state, small: false });
}

function printPictures() {
  for (const b of order.slice(0, ON_SHEET)) {
    const g = prefetched.get(b) || groupNow(b);
    if (!g) continue;
    const canvas = el("canvas");
    const under = el("p", {}, el("b", {}, named(b)), el("span", {}, brief(b)));
    $("print-pictures").append(el("div", { className: "tile" }, canvas, under));
    drawGroup(canvas, g, 150, 108, { ...state, small: true, density: false });
  }
}

function quoted(value) {
  const text = Number.isNaN(value) ? "" : String(value ?? "");
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function listAsCsv() {
  const chosen = META.criterion ? [[META.criterion, (b) => core.value[b]]] : [];
  if (chosen.length && !IS_TEST) chosen.push(["lead", (b) => core.lead[b]]);
  const parts = [
    ...META.by.map((name, j) => [name, (b) => META.keys[j][core["key" + j][b]]]),
    ["n_samples", (b) => core.n[b]],
    ["n_components", (b) => core.k[b] || ""],
    ...(META.families.length ? [["covariance_type", (b) => (core.k[b] ? META.families[core.family[b]] : "")]] : []),
    ["status", statusOf],
    ...chosen,
    ["p_value", (b) => core.p[b]],
    ["overlap", (b) => core.overlap[b]],
    ["flags", (b) => flagsOf(b).map(([name]) => name).join("; ")],
    ["marked", (b) => Number(marks.has(b))],
  ];
  const lines = order.map((b) => parts.map(([, of]) => quoted(of(b))).join(","));
  return [parts.map(([name]) => quoted(name)).join(","), ...lines].join("\r\n") + "\r\n";
}

function exportCsv() {
  const href = URL.createObjectURL(new Blob([listAsCsv()], { type: "text/csv" }));
  el("a", { href, download: "groups.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000);
}
