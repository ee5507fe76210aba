// Numbers as texts, and round numbers along axes.

const MINUS = "\u2212";
const NOTHING = "\u2013";

const counted = (n) => n.toLocaleString("en");
const minus = (text) => text.replaceAll("-", MINUS);
const plural = (n, one) => `${counted(n)} ${one}${n === 1 ? "" : "s"}`;
const number = (v, digits = 1) => (Number.isFinite(v) ? minus(v.toFixed(digits)) : NOTHING);

function probability(p) {
  if (!(p >= 0)) return NOTHING;
  return p >= 0.01 ? p.toFixed(2) : p >= 0.001 ? p.toFixed(3) : "<0.001";
}

// A number with as many digits as a deviation of `sd` lets one see.
function beside(v, sd) {
  if (sd < 1e-5 || Math.abs(v) >= 1e12) return minus(v.toExponential(2));
  return number(v, Math.max(0, Math.min(8, 1 - Math.floor(Math.log10(sd || 1)))));
}

// Round numbers from low to high, at most about `most` of them, and how many decimals they need.
function ticks(low, high, most) {
  const raw = (high - low) / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((s) => s * power).find((s) => s >= raw) || raw;
  const at = [];
  for (let t = Math.ceil(low / step); t * step <= high + 1e-9 * step && at.length < 100; t++) at.push(t * step);
  return { at, digits: Math.max(0, Math.min(10, -Math.floor(Math.log10(step) + 1e-9))), step };
}

// Ticks with short texts, and what the axis's name needs for that: "less 1e9", or "/ 10^6".
function scaled(low, high, most) {
  const { at, digits, step } = ticks(low, high, most);
  const offset = at.length && Math.abs(at[0]) / step > 1e5 ? at[0] : 0;
  const largest = Math.max(0, ...at.map((v) => Math.abs(v - offset)));
  const power = largest >= 1e5 || (largest > 0 && digits > 4) ? Math.floor(Math.log10(largest) + 1e-9) : 0;
  const decimals = Math.min(6, Math.max(0, -Math.floor(Math.log10(step) + 1e-9) + power));
  const texts = at.map((v) => [v, minus(((v - offset) / 10 ** power).toFixed(decimals))]);
  const less = offset ? ` ${MINUS} ${offset}` : "";
  const unit = power ? `${less ? "," : ""} / 10${raised(power)}` : "";
  return { at: texts, unit: less + unit };
}

const DIGITS = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079";
const raised = (power) => String(power).replace(/./g, (c) => (c === "-" ? "\u207b" : DIGITS[c]));
