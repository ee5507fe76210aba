// What is shown is in the address of the page, after #, so that it can be kept, sent and gone back to.

function toAddress() {
  const parts = [];
  const encoded = (value) => encodeURIComponent(value).replace(/%2F/g, "/").replace(/%2C/g, ",");
  const add = (name, value) => parts.push(`${name}=${encoded(value)}`);
  if (state.open >= 0) parts.push("g=" + key(state.open).map(encodeKey).join("/"));
  if (state.q) add("q", state.q);
  for (const name of FACETS) if (state[name].size) add(name, [...state[name]].join(","));
  if (state.min > 0) add("min", state.min);
  if (state.max < Infinity) add("max", state.max);
  if (state.sort) add("sort", (state.down ? "-" : "") + state.sort);
  if (state.view === "plates") add("view", "plates:" + state.colour);
  else if (state.view === "pictures") add("view", "pictures");
  if (state.shared) add("axes", "same");
  if (D > 2 && state.pair.join() !== "0,1") add("pair", state.pair.join(","));
  if (state.density) add("as", "density");
  const wanted = "#" + parts.join("&");
  if (wanted !== (location.hash || "#")) history.replaceState(null, "", wanted);
}

// Half a pair of surrogates, which a key may hold, cannot be encoded.
function encodeKey(text) {
  try {
    return encodeURIComponent(text);
  } catch {
    return encodeURIComponent(text.replace(/[\ud800-\udfff]/g, "\ufffd"));
  }
}

function decodedOr(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function fromAddress() {
  const read = {};
  for (const part of location.hash.slice(1).split("&").filter(Boolean)) {
    const at = part.indexOf("=");
    if (at > 0) read[part.slice(0, at)] = part.slice(at + 1);
  }
  const text = (name) => decodedOr(read[name] || "");
  state.q = text("q");
  for (const name of FACETS) state[name] = new Set(text(name).split(",").filter(Boolean).map(Number));
  state.min = Number(text("min")) || 0;
  state.max = Number(text("max")) || Infinity;
  state.down = text("sort").startsWith("-");
  state.sort = text("sort").replace(/^-/, "");
  const [view, colour] = text("view").split(":");
  state.view = view === "pictures" || (view === "plates" && plates) ? view : "table";
  state.colour = colour in SCALES ? colour : "p";
  state.shared = text("axes") === "same";
  state.density = D > 1 && text("as") === "density";
  const pair = text("pair").split(",").map(Number);
  const valid = pair.length === 2 && pair.every((j) => Number.isInteger(j) && j >= 0 && j < D);
  state.pair = valid ? pair : [0, Math.min(1, D - 1)];
  state.open = read.g === undefined ? -1 : groupAt(read.g);
  fillControls();
}

// The group that an address names, or -1.
function groupAt(address) {
  const same = (b) => key(b).map(encodeKey).join("/") === address;
  for (let b = 0; b < core.n.length; b++) if (same(b)) return b;
  // It may have been written by hand.
  const wanted = address.split("/").map(decodedOr).join("\0");
  for (let b = 0; b < core.n.length; b++) if (key(b).join("\0") === wanted) return b;
  return -1;
}

function fillControls() {
  $("search").value = state.q;
  $("shared").checked = state.shared;
  $("size-min").value = state.min || "";
  $("size-max").value = Number.isFinite(state.max) ? state.max : "";
  if (D > 2) [$("pair-x").value, $("pair-y").value] = state.pair;
}
