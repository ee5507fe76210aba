// Plates: where the last key reads as a well (A01 to AF48), one map for each value of the keys before it.

const WELL = /^([A-Za-z]{1,2})0*(\d{1,2})$/;
const MOST_ROWS = 32;
const MOST_ACROSS = 48;
const [LEFT, TOP] = [18, 14]; // pixels for the names of rows and columns
// What colours wells, from pale to strong: a number, the ends of its scale, and their texts.
const SCALES = {
  p: {
    label: "p, adjusted", of: (b) => -Math.log10(Math.max(core.p[b], 1e-4)), ends: [0, 4], text: ["1", "\u22640.0001"],
  },
  k: { label: "K", of: (b) => core.k[b] || NaN },
  n: { label: "samples", of: (b) => Math.log(core.n[b]), plain: Math.exp },
  overlap: { label: "overlap", of: (b) => core.overlap[b], ends: [0, 1], text: ["0", "1"] },
  lead: {
    label: "lead", of: (b) => (core.lead[b] >= 0 ? Math.sqrt(Math.min(core.lead[b], 100)) : NaN), ends: [0, 10],
    text: ["0", "\u2265100"],
  },
};
let plates = null;

function findPlates() {
  const last = META.by.length - 1;
  const wells = META.keys[last].map((text) => (text || "").match(WELL));
  if (wells.some((well) => !well)) return null;
  const at = wells.map(([, row, column]) => [rowNumber(row), Number(column) - 1]);
  const rows = 1 + Math.max(...at.map(([row]) => row));
  const across = 1 + Math.max(...at.map(([, column]) => column));
  if (rows > MOST_ROWS || across > MOST_ACROSS || at.some(([, column]) => column < 0)) return null;
  const maps = new Map();
  for (let b = 0; b < core.n.length; b++) {
    const name = key(b).slice(0, -1).join(", ");
    if (!maps.has(name)) maps.set(name, []);
    maps.get(name).push(b);
  }
  return { maps, rows, across, place: (b) => at[core["key" + last][b]] };
}

// A is 0, Z is 25, AA is 26.
const rowNumber = (text) => [...text.toUpperCase()].reduce((sum, c) => sum * 26 + c.charCodeAt(0) - 64, 0) - 1;
const rowName = (row) => (row < 26 ? String.fromCharCode(65 + row) : "A" + String.fromCharCode(39 + row));

function drawPlates() {
  const scale = SCALES[state.colour];
  const ends = scale.ends || endsOf(scale);
  const size = Math.max(6, Math.min(16, Math.floor(300 / plates.across)));
  const mixed = (share) => `color-mix(in oklab, ${theme.colours[0]} ${Math.round(8 + 92 * share)}%, ${theme.paper})`;
  const fills = Array.from({ length: 33 }, (_, step) => mixed(step / 32));
  const fillOf = (v) => fills[Math.round(32 * Math.max(0, Math.min(1, (v - ends[0]) / (ends[1] - ends[0] || 1))))];
  const maps = [...plates.maps].map(([name, groups]) => {
    const canvas = el("canvas", { role: "img", ariaLabel: `Map of ${name}` });
    drawPlate(canvas, groups, size, scale, fillOf);
    answerMouse(canvas, groups, size);
    return el("figure", {}, el("figcaption", {}, name), canvas);
  });
  const top = $("plates").scrollTop;
  $("plates").replaceChildren(legend(scale, ends, mixed), el("div", { className: "maps" }, ...maps));
  $("plates").scrollTop = top;
}

function endsOf(scale) {
  let [low, high] = [Infinity, -Infinity];
  for (let b = 0; b < core.n.length; b++) {
    const v = scale.of(b);
    if (v < low) low = v;
    if (v > high) high = v;
  }
  return [low, high];
}

function legend(scale, ends, mixed) {
  const known = Object.entries(SCALES).filter(([id]) => id !== "lead" || (META.criterion && !IS_TEST));
  const options = known.map(([id, { label }]) => el("option", { value: id, selected: id === state.colour }, label));
  const pick = el("select", { id: "colour", ariaLabel: "Colour of wells" }, ...options);
  pick.onchange = () => {
    state.colour = pick.value;
    drawPlates();
    toAddress();
    $("colour").focus();
  };
  const ramp = el("span", { className: "ramp" });
  ramp.style.background = `linear-gradient(90deg, ${mixed(0)}, ${mixed(1)})`;
  const [low, high] = scale.text || ends.map((v) => number((scale.plain || ((u) => u))(v), 0));
  const said = el("span", { className: "dim" }, "Crossed: no answer. Small: not among those filtered.");
  return el("div", { className: "legend" }, "Colour: ", pick, low, ramp, high, said);
}

function drawPlate(canvas, groups, size, scale, fillOf) {
  const [w, h] = [plates.across * size + LEFT, plates.rows * size + TOP + 2];
  [canvas.style.width, canvas.style.height] = [w + "px", h + "px"];
  const ctx = fitted(canvas, w, h);
  ctx.font = "8px " + FONT;
  [ctx.fillStyle, ctx.textAlign, ctx.textBaseline] = [theme.grey, "center", "middle"];
  for (let c = 0; c < plates.across; c += plates.across > 12 ? 3 : 1) ctx.fillText(c + 1, LEFT + (c + 0.5) * size, 7);
  for (let r = 0; r < plates.rows; r += plates.rows > 16 ? 2 : 1) ctx.fillText(rowName(r), 8, TOP + (r + 0.5) * size);
  for (const b of groups) {
    const [r, c] = plates.place(b);
    drawWell(ctx, b, LEFT + c * size, TOP + r * size, size, scale.of(b), fillOf);
  }
}

function drawWell(ctx, b, x, y, size, v, fillOf) {
  if (!core.k[b]) {
    [ctx.strokeStyle, ctx.lineWidth] = [theme.grey, 1];
    ctx.beginPath();
    ctx.moveTo(x + 2, y + 2);
    ctx.lineTo(x + size - 2, y + size - 2);
    ctx.moveTo(x + size - 2, y + 2);
    ctx.lineTo(x + 2, y + size - 2);
    ctx.stroke();
  } else {
    const inset = rank[b] < 0 ? size * 0.34 : 0.5;
    ctx.fillStyle = Number.isNaN(v) ? theme.faint : fillOf(v);
    ctx.fillRect(x + inset, y + inset, size - 2 * inset, size - 2 * inset);
  }
  if (b !== state.open) return;
  [ctx.strokeStyle, ctx.lineWidth] = [theme.colours[4], 2];
  ctx.strokeRect(x, y, size, size);
}

function answerMouse(canvas, groups, size) {
  const at = new Map(groups.map((b) => [plates.place(b).join(), b]));
  const under = ({ offsetX, offsetY }) => {
    return at.get([Math.floor((offsetY - TOP) / size), Math.floor((offsetX - LEFT) / size)].join());
  };
  canvas.onmousemove = (event) => {
    const b = under(event);
    const note = b === undefined ? "" : `${titled(b)}: ${brief(b)}, ${plural(core.n[b], "sample")}`;
    if (canvas.title !== note) canvas.title = note;
  };
  canvas.onclick = (event) => {
    const b = under(event);
    if (b === undefined) return;
    if (rank[b] >= 0) cursor = rank[b];
    openGroup(b, narrow());
  };
}
