// One group, opened beside the list.

const [LARGE_WIDTH, LARGE_HEIGHT] = [0.72, 470]; // height of the picture: a share of its width, and at most
let latest = 0; // counts what was opened, as a block may be decoded late

async function openGroup(b, focus) {
  state.open = b;
  const mine = ++latest;
  const g = await groupLater(b);
  if (mine !== latest) return;
  const detail = $("detail");
  const wasClosed = detail.hidden;
  const scrolled = detail.dataset.group === String(b) ? detail.scrollTop : 0;
  detail.hidden = false;
  detail.dataset.group = b;
  document.body.classList.add("split", "opened");
  fillDetail(b, g);
  if (wasClosed) layOut();
  else if (state.view === "plates") drawPlates();
  if (rank[b] >= 0) {
    cursor = rank[b];
    scrollToPlace(cursor);
  }
  if (focus) detail.focus();
  detail.scrollTop = scrolled;
  document.title = `${titled(b)} ${NOTHING} ${META.title}`;
  toAddress();
}

function fillDetail(b, g) {
  const matrix = D > 2 ? matrixOf(b, g) : null;
  const pictures = [...pictureOf(b, g), ...(matrix ? matrix.nodes : [])];
  $("detail").replaceChildren(titleBar(b), saidOf(b, g), ...pictures, ...rest(b, g));
  drawLarge(g);
  matrix?.draw();
}

function closeGroup() {
  state.open = -1;
  latest++;
  $("detail").hidden = true;
  document.body.classList.remove("split", "opened");
  document.title = META.title;
  layOut();
  scrollToPlace(cursor);
  toAddress();
  $("scroller").focus();
}

function titleBar(b) {
  const button = (text, name, hint, onclick) => {
    return el("button", { ariaLabel: name, title: `${name} (${hint})`, onclick }, text);
  };
  return el("div", { className: "bar" },
    el("h2", {}, named(b)),
    el("span", { className: core.status[b] ? "bad" : "dim" }, statusOf(b)),
    button("\u2191", "Previous", "\u2191", () => move(-1)),
    button("\u2193", "Next", "\u2193", () => move(1)),
    button("\u00d7", "Close", "Esc", closeGroup));
}

const saidOf = (b, g) => el("ul", { className: "said" }, ...sentences(b, g).map((text) => el("li", {}, text)));

function pictureOf(b, g) {
  const big = el("canvas", { id: "big", role: "img", ariaLabel: `Samples and components of ${titled(b)}` });
  const under = el("p", { className: "under" });
  const usable = core.n[b] - g.lost - g.zero;
  if (g.n < usable) under.append(`${g.n} of ${plural(usable, "sample")} drawn: extremes, and others at random. `);
  if (g.w) under.append("Samples of small weight are small. ");
  if (D === 1) under.append("Dashed: the mixture.");
  else {
    const text = "Regions hold 50, 80 and 95% of the mixture. ";
    under.append(state.density ? text : "Ellipses: one and two standard deviations. ");
    const other = state.density ? "Show ellipses" : "Show density";
    under.append(el("button", { className: "screen", onclick: toggleDensity }, other));
  }
  return [big, under];
}

function toggleDensity() {
  if (D === 1) return;
  state.density = !state.density;
  if (state.open >= 0) openGroup(state.open);
  toAddress();
}

function drawLarge(g) {
  const big = $("big");
  const width = big.clientWidth;
  const height = Math.round(Math.min(width * LARGE_WIDTH, LARGE_HEIGHT));
  big.style.height = height + "px";
  drawGroup(big, g, width, height, { ...state, small: false });
}

function rest(b, g) {
  const nodes = [];
  const heading = (text) => el("h3", {}, text);
  if (g.components.length) {
    const two = el("div", { className: "two" });
    if (g.models.length) two.append(el("section", {}, heading(CRITERION_TITLE), ...criterionPlot(g)));
    if (g.n) two.append(el("section", {}, heading("Residuals"), ...residualPlot(g)));
    nodes.push(two, heading("Components"), componentsTable(g), heading("p-values of residuals"), pTable(g));
  }
  const where = `Row ${b} of the table of fits, counted from 0.`;
  return [...nodes, el("p", { className: "under last" }, where)];
}

// Small pictures of all pairs of features; a click draws one large.
function matrixOf(b, g) {
  const node = el("div", { className: "matrix" });
  const todo = [];
  node.style.gridTemplateColumns = `auto repeat(${D - 1}, 1fr)`;
  for (let j = 1; j < D; j++) {
    node.append(el("span", { className: "up" }, META.features[j]));
    for (let i = 0; i < D - 1; i++) {
      if (i >= j) node.append(el("span"));
      else {
        const canvas = el("canvas");
        todo.push([canvas, i, j]);
        node.append(pairButton(canvas, b, i, j));
      }
    }
  }
  const draw = () => todo.forEach(([canvas, i, j]) => drawPair(canvas, g, i, j));
  return { nodes: [el("h3", {}, "All pairs of features"), node], draw };
}

function pairButton(canvas, b, i, j) {
  const title = `${META.features[j]} against ${META.features[i]}`;
  const onclick = () => {
    setPair(i, j);
    openGroup(b);
  };
  const button = el("button", { title, ariaLabel: title, onclick }, canvas, j === D - 1 ? META.features[i] : "");
  button.setAttribute("aria-pressed", state.pair[0] === i && state.pair[1] === j);
  return button;
}

function drawPair(canvas, g, i, j) {
  const width = canvas.clientWidth;
  const height = Math.round(width * 0.8);
  canvas.style.height = height + "px";
  drawGroup(canvas, g, width, height, { small: true, density: false, pair: [i, j], shared: state.shared });
}
