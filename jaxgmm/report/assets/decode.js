"use strict";
// Reads what `packing.py` writes: base64 of zlib of a line of JSON, [[name, type, length], ...], and byte planes.

const TYPES = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, f4: Float32Array, f8: Float64Array };
const META = JSON.parse(document.getElementById("meta").textContent);
const D = META.features.length;
const MOST_BLOCKS = 48; // that are kept decoded

async function unpack(text) {
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const end = bytes.indexOf(10);
  const arrays = {};
  let at = end + 1;
  for (const [name, type, n] of JSON.parse(new TextDecoder().decode(bytes.subarray(0, end)))) {
    const size = Number(type[1]);
    const plain = new Uint8Array(n * size);
    for (let b = 0; b < size; b++) for (let i = 0; i < n; i++) plain[i * size + b] = bytes[at++];
    arrays[name] = new TYPES[type](plain.buffer);
  }
  return arrays;
}

const blocks = new Map();
const parsed = new Promise((done) => {
  if (document.readyState !== "loading") done();
  else document.addEventListener("DOMContentLoaded", done);
});

// Blocks of groups are decoded when they are wanted; the last ones are kept.
function block(number) {
  let found = blocks.get(number);
  if (found) blocks.delete(number);
  else {
    found = { promise: null, data: null };
    found.promise = decoded(number).then((data) => (found.data = data));
  }
  blocks.set(number, found); // the newest is the last
  if (blocks.size > MOST_BLOCKS) blocks.delete(blocks.keys().next().value);
  return found;
}

async function decoded(number) {
  // The browser may not have read the block to its end.
  if (!document.getElementById("b" + (number + 1))) await parsed;
  const data = await unpack(document.getElementById("b" + number).textContent);
  data.firstSample = starts(data.n);
  data.firstComponent = starts(data.k);
  if (data.models) data.firstModel = starts(data.models);
  return data;
}

function starts(counts) {
  const sums = new Uint32Array(counts.length + 1);
  for (let i = 0; i < counts.length; i++) sums[i + 1] = sums[i] + counts[i];
  return sums;
}

// One group: samples in units of its box, mixture, models. Null where its block has not been decoded.
function groupNow(b) {
  const { data } = block(Math.floor(b / META.block));
  return data && sliced(data, b % META.block);
}

async function groupLater(b) {
  return sliced(await block(Math.floor(b / META.block)).promise, b % META.block);
}

function sliced(data, i) {
  const [s, t] = [data.firstSample[i], data.firstSample[i + 1]];
  return {
    n: t - s,
    lost: data.lost[i],
    zero: data.zero[i],
    x: META.features.map((_, j) => samplesOf(data, j, s, t)),
    w: data.w ? Float32Array.from(data.w.subarray(s, t), (level) => level / META.weightLevels) : null,
    low: data.low.subarray(i * D, (i + 1) * D),
    span: data.span.subarray(i * D, (i + 1) * D),
    p: data.p.subarray(i * (2 * D + 1), (i + 1) * (2 * D + 1)),
    components: componentsOf(data, i),
    models: data.models ? modelsOf(data, i) : [],
  };
}

// The first feature is stored as differences, modulo 65,536.
function samplesOf(data, j, s, t) {
  const levels = data["x" + j];
  const u = new Float32Array(t - s);
  let sum = 0;
  for (let r = s; r < t; r++) u[r - s] = (j ? levels[r] : (sum = (sum + levels[r]) & 65535)) / META.levels;
  return u;
}

function componentsOf(data, i) {
  const found = [];
  const half = (D * (D + 1)) / 2;
  for (let r = data.firstComponent[i]; r < data.firstComponent[i + 1]; r++) {
    found.push(prepared({
      name: data.name[r],
      weight: data.weight[r],
      mean: data.mean.subarray(r * D, (r + 1) * D),
      cov: data.cov.subarray(r * half, (r + 1) * half),
      effective: data.effective[r],
      overlap: data.overlap[r],
      nearest: data.nearest[r],
    }));
  }
  return found;
}

function modelsOf(data, i) {
  const found = [];
  for (let r = data.firstModel[i]; r < data.firstModel[i + 1]; r++) {
    found.push({
      k: data.mk[r],
      family: data.mfamily[r],
      status: data.mstatus[r],
      hollow: Boolean(data.mflag[r] & 1),
      chosen: Boolean(data.mflag[r] & 2),
      above: data.mabove[r],
    });
  }
  return found;
}
