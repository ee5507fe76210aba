// Reads the table, shows what the address asks for, and listens.

function aboutText() {
  const features = `${D === 1 ? "feature" : "features"} ${META.features.join(", ")}`;
  const weighted = META.weights === null ? "" : `, weighted by ${META.weights}`;
  const ks = META.k.length > 1 ? `K from ${META.k[0]} to ${META.k.at(-1)}` : `K = ${META.k[0]}`;
  const chosenBy = IS_TEST ? "a likelihood-ratio test" : CRITERION;
  const families = META.families.join(", ").replace(/, ([^,]*)$/, " and $1");
  const chosen = META.criterion ? ` ${ks}, ${families}, chosen by ${chosenBy}.` : "";
  const grouped = `${plural(META.rows, "sample")} grouped by ${META.by.join(", ")}`;
  return `${grouped}; ${features}${weighted}.${chosen} jaxgmm ${META.version}.`;
}

function sizeFields() {
  const field = (id, placeholder, ariaLabel) => el("input", { id, type: "number", min: 0, placeholder, ariaLabel });
  const [from, to] = [field("size-min", "from", "At least"), field("size-max", "any", "At most")];
  const fields = el("div", { className: "size" }, from, "to", to);
  return el("div", { className: "facet sizes" }, el("span", {}, "Samples"), fields);
}

function fillPairs() {
  for (const id of ["pair-x", "pair-y"]) {
    META.features.forEach((name, j) => $(id).append(el("option", { value: j }, name)));
    $(id).parentNode.hidden = false;
    $(id).onchange = () => {
      setPair(Number($("pair-x").value), Number($("pair-y").value));
      if (state.open >= 0) openGroup(state.open);
    };
  }
}

function showAddress() {
  fromAddress();
  drawHead();
  tellView();
  const { open } = state;
  refresh();
  if (open >= 0) openGroup(open);
  else if (!$("detail").hidden) closeGroup();
}

let searching = 0;

function searchNow() {
  clearTimeout(searching);
  if (state.q === $("search").value) return;
  state.q = $("search").value;
  refresh();
}

function listenToControls() {
  $("search").addEventListener("input", () => {
    clearTimeout(searching);
    searching = setTimeout(searchNow, 80);
  });
  for (const id of ["size-min", "size-max"]) {
    $(id).addEventListener("input", () => {
      [state.min, state.max] = [Number($("size-min").value) || 0, Number($("size-max").value) || Infinity];
      refresh(true);
    });
  }
  for (const name of ["table", "pictures", "plates"]) $("as-" + name).onclick = () => setView(name);
  $("print").onclick = () => prefetch(0).then(() => print());
  $("export").onclick = exportCsv;
  $("help").onclick = () => $("keys").showModal();
  $("shared").onchange = () => {
    state.shared = $("shared").checked;
    redraw();
    toAddress();
  };
}

function listenToWindow() {
  let resized = 0;
  $("scroller").addEventListener("scroll", show, { passive: true });
  $("scroller").addEventListener("click", (event) => {
    const node = event.target.closest(".row, .tile");
    if (!node) return;
    cursor = rank[Number(node.id.slice(1))];
    openGroup(order[cursor], narrow());
  });
  addEventListener("keydown", onKey);
  addEventListener("hashchange", showAddress);
  addEventListener("resize", () => {
    cancelAnimationFrame(resized);
    resized = requestAnimationFrame(() => printing || redraw());
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("beforeprint", () => forPaper(true));
  addEventListener("afterprint", () => forPaper(false));
}

async function begin() {
  setTheme(false);
  document.querySelector("h1").textContent = META.title;
  $("about").textContent = aboutText();
  $("facet-row").append(sizeFields());
  if (narrow()) $("facets").open = false;
  core = await unpack($("core").textContent);
  keyTexts = Array.from(core.n, (_, b) => key(b).join(" ").toLowerCase());
  makeColumns();
  plates = findPlates();
  $("as-plates").hidden = !plates;
  if (D > 2) fillPairs();
  showAddress();
  performance.mark("usable");
  listenToControls();
  listenToWindow();
}

begin();
