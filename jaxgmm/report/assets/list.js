// The list: a table or pictures. Only what is seen exists, and is drawn within some milliseconds of each frame.

const ROW = 58; // pixels
const ROOMY = 1000; // pixels, from which all columns are shown
const TALLEST = 8e6; // Firefox draws nothing in elements above 17.9 million pixels, Chromium above 33.5
const BUDGET = 8; // milliseconds of drawing in a frame
const pool = [];
const waiting = new Set();
let across = 1;
let rowHeight = ROW;
let tileWidth = 0;
let frame = 0;

function layOut() {
  const pictures = state.view === "pictures";
  const asPlates = state.view === "plates";
  $("plates").hidden = !asPlates;
  $("scroller").style.display = asPlates ? "none" : "";
  $("head").style.display = pictures || asPlates ? "none" : "";
  if (asPlates) {
    drawPlates();
    return;
  }
  const width = $("scroller").clientWidth;
  $("head").style.paddingRight = 16 + $("scroller").offsetWidth - width + "px";
  const few = width < ROOMY;
  $("list").classList.toggle("few", few);
  const shown = columns.filter((c) => !few || !c.kind.includes("late"));
  $("list").style.setProperty("--columns", ["78px", ...shown.map((c) => c.width)].join(" "));
  [across, rowHeight] = [1, ROW];
  if (pictures) {
    across = Math.max(2, Math.floor(width / 190));
    tileWidth = Math.floor((width - 8) / across);
    rowHeight = Math.round(tileWidth * 0.72) + 34;
  }
  $("whole").style.height = Math.min(TALLEST, wholeHeight()) + "px";
  for (const item of pool.splice(0)) item.node.remove();
  $("scroller").querySelector(".empty")?.remove();
  if (!order.length) $("scroller").append(el("p", { className: "empty" }, "No group passes these filters."));
  show();
}

// All rows may be higher than an element can be. Then the list moves faster than its scroll bar.
const wholeHeight = () => Math.ceil(order.length / across) * rowHeight;

function stretch() {
  const whole = wholeHeight();
  const seen = $("scroller").clientHeight;
  return whole > TALLEST ? (whole - seen) / (TALLEST - seen) : 1;
}

function show() {
  if (state.view === "plates") return;
  const box = $("scroller");
  const ratio = stretch();
  const top = box.scrollTop * ratio;
  const first = Math.max(0, Math.floor(top / rowHeight) - 2) * across;
  const last = Math.min(order.length, (Math.ceil((top + box.clientHeight) / rowHeight) + 2) * across);
  const stays = (item) => item.place >= first && item.place < last && order[item.place] === item.b;
  const held = new Set(pool.filter(stays).map((item) => item.place));
  const free = pool.filter((item) => !stays(item));
  for (let place = first; place < last; place++) {
    if (!held.has(place)) fill(free.pop() || made(), place);
  }
  for (const item of free) {
    Object.assign(item, { place: -1, b: -1 });
    item.node.style.display = "none";
    waiting.delete(item);
  }
  for (const item of pool) {
    item.node.classList.toggle("chosen", item.place === cursor && item.place >= 0);
    if (item.place >= 0) put(item, box.scrollTop - top);
  }
  box.setAttribute("aria-rowcount", Math.ceil(order.length / across));
  box.setAttribute("aria-activedescendant", "g" + order[cursor]);
}

function put(item, shift) {
  const x = state.view === "pictures" ? 4 + (item.place % across) * tileWidth : 0;
  const y = Math.floor(item.place / across) * rowHeight + shift;
  const moved = `translate(${x}px, ${y}px)`;
  if (item.node.style.transform !== moved) item.node.style.transform = moved;
}

function made() {
  const item = state.view === "pictures" ? makeTile() : makeRow();
  pool.push(item);
  $("whole").append(item.node);
  return item;
}

function makeRow() {
  const picture = el("canvas");
  const cells = columns.map((c) => el("div", { className: c.kind, role: "gridcell" }));
  const brief = el("div", { className: "brief", role: "gridcell" });
  const first = el("div", { className: "picture", role: "gridcell" }, picture);
  const node = el("div", { className: "row", role: "row" }, first, ...cells, brief);
  return { node, picture, cells, brief, place: -1, b: -1 };
}

function makeTile() {
  const [picture, name, note] = [el("canvas"), el("b"), el("span")];
  const cell = el("div", { role: "gridcell" }, picture, el("p", {}, name, note));
  return { node: el("div", { className: "tile", role: "row" }, cell), picture, name, note, place: -1, b: -1 };
}

function fill(item, place) {
  const b = order[place];
  Object.assign(item, { place, b });
  item.node.style.display = "";
  item.node.id = "g" + b;
  item.node.setAttribute("aria-rowindex", Math.floor(place / across) + 1);
  (state.view === "pictures" ? fillTile : fillRow)(item, b);
  fitted(item.picture, ...pictureSize());
  waiting.add(item);
  drawSoon();
}

function fillTile(item, b) {
  item.node.style.width = tileWidth + "px";
  item.picture.style.height = rowHeight - 34 + "px";
  item.name.textContent = named(b);
  item.note.textContent = brief(b);
  item.note.className = flagsOf(b).some(([, , isStrong]) => isStrong) ? "bad" : "";
}

function fillRow(item, b) {
  columns.forEach((column, j) => {
    const cell = item.cells[j];
    if (column.kind === "flags") cell.replaceChildren(tags(b));
    else cell.textContent = column.text(b) + (j === 0 && marks.has(b) ? " \u2605" : "");
    if (column.kind === "key") cell.title = column.text(b);
    if (column.kind === "status") cell.className = "status" + (core.status[b] ? " bad" : " dim");
    if (column.id === "p") cell.className = "num p" + (isMisfit(b) ? " bad" : "");
  });
  const note = (core.k[b] ? `K ${core.k[b]}, p ${probability(core.p[b])}, ` : "") + plural(core.n[b], "sample");
  const status = core.status[b] ? el("span", { className: "bad" }, statusOf(b)) : "";
  const above = el("div", {}, el("b", {}, named(b)), status, tags(b));
  item.brief.replaceChildren(above, el("div", { className: "dim" }, note));
}

function tags(b) {
  const shown = flagsOf(b).map(([name, title, isStrong]) => {
    return el("span", { className: "tag" + (isStrong ? " strong" : ""), title }, name);
  });
  return el("div", { className: "tags" }, ...shown);
}

const pictureSize = () => (state.view === "pictures" ? [tileWidth - 14, rowHeight - 36] : [78, 52]);

function drawSoon() {
  if (!frame) frame = requestAnimationFrame(drawWaiting);
}

function drawWaiting() {
  frame = 0;
  const until = performance.now() + BUDGET;
  for (const item of waiting) {
    if (performance.now() > until) break;
    waiting.delete(item);
    if (item.b >= 0) drawItem(item);
  }
  if (waiting.size) drawSoon();
}

function drawItem(item) {
  const { b } = item;
  const g = groupNow(b);
  if (g) {
    drawGroup(item.picture, g, ...pictureSize(), { ...state, small: true, density: false });
    return;
  }
  groupLater(b).then(() => {
    if (item.b !== b) return;
    waiting.add(item);
    drawSoon();
  });
}

// From afar to the middle; otherwise no farther than needed.
function scrollToPlace(place) {
  if (state.view === "plates") return;
  const box = $("scroller");
  const ratio = stretch();
  const [y, top, seen] = [Math.floor(place / across) * rowHeight, box.scrollTop * ratio, box.clientHeight];
  const [above, below] = [top - y, y + rowHeight - top - seen];
  let wanted = top;
  if (Math.max(above, below) > 2 * rowHeight) wanted = y - (seen - rowHeight) / 2;
  else if (above > 0) wanted = y;
  else if (below > 0) wanted = top + below;
  if (wanted !== top) box.scrollTop = wanted / ratio;
  show();
}

function drawHead() {
  $("head").replaceChildren(el("div"), ...columns.map((c) => {
    const on = state.sort === c.id;
    const arrow = on ? (state.down ? " \u2193" : " \u2191") : "";
    const props = { title: c.title || `Sort by ${c.label}`, onclick: () => sortBy(c.id) };
    const cell = el("div", { className: c.kind, role: "columnheader" }, el("button", props, c.label + arrow));
    if (on) cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
    return cell;
  }));
}

// Once up, once down, then in the order of the keys again.
function sortBy(id) {
  if (state.sort !== id) Object.assign(state, { sort: id, down: false });
  else if (!state.down) state.down = true;
  else Object.assign(state, { sort: "", down: false });
  drawHead();
  refresh();
}
