// Keys, and what buttons share with them.

function move(by) {
  if (!order.length) return;
  cursor = Math.max(0, Math.min(order.length - 1, cursor + by));
  scrollToPlace(cursor);
  if (state.open >= 0) openGroup(order[cursor]);
}

const MOVES = {
  ArrowDown: () => move(across),
  ArrowUp: () => move(-across),
  ArrowRight: () => state.view === "pictures" && move(1),
  ArrowLeft: () => state.view === "pictures" && move(-1),
  j: () => move(1),
  k: () => move(-1),
  PageDown: () => move(pageful()),
  PageUp: () => move(-pageful()),
  Home: () => move(-Infinity),
  End: () => move(Infinity),
};
const DEEDS = {
  "/": () => $("search").focus(),
  t: () => setView("table"),
  g: () => setView("pictures"),
  p: () => plates && setView("plates"),
  a: () => $("shared").click(),
  d: toggleDensity,
  m: mark,
  "?": () => $("keys").showModal(),
};
const pageful = () => Math.max(1, Math.floor($("scroller").clientHeight / rowHeight) - 1) * across;

function onKey(event) {
  const { key: pressed, target } = event;
  if ($("keys").open) return;
  const typing = target.matches("input[type=search], input[type=number], select");
  if (pressed === "Escape") {
    if (typing) $("scroller").focus();
    else if (state.open >= 0) closeGroup();
    return;
  }
  if (target.id === "search" && ["Enter", "ArrowDown"].includes(pressed)) {
    searchNow();
    $("scroller").focus();
    event.preventDefault();
    return;
  }
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const opens = pressed === "Enter" && !target.matches("button, summary, input");
  const action = opens ? () => order.length && openGroup(order[cursor], narrow()) : MOVES[pressed] || DEEDS[pressed];
  if (!action) return;
  action();
  event.preventDefault();
}

function mark() {
  const b = state.open >= 0 ? state.open : order[cursor];
  if (b === undefined) return;
  if (!marks.delete(b)) marks.add(b);
  tellCounts();
  layOut();
  if (state.open >= 0) openGroup(b);
}

function setView(name) {
  state.view = name;
  tellView();
  layOut();
  scrollToPlace(cursor);
  toAddress();
}

function tellView() {
  for (const name of ["table", "pictures", "plates"]) $("as-" + name).setAttribute("aria-pressed", state.view === name);
}

function setPair(i, j) {
  state.pair = [i, j];
  [$("pair-x").value, $("pair-y").value] = [i, j];
  layOut();
  toAddress();
}
