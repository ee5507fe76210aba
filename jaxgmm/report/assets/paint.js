// Canvases, colours and axes. Colours of Okabe and Ito, as in jaxgmm.plot; components differ in colour and in marker.

const LIGHT = ["#0072B2", "#E69F00", "#009E73", "#56B4E9", "#D55E00", "#CC79A7", "#000000"];
const DARK = ["#3D9BE0", "#E69F00", "#10B98A", "#8CCBF0", "#F07830", "#DE93BC", "#F2F2F2"];
const ON_PAPER = { colours: LIGHT, ink: "#1a1a1a", grey: "#6b6b6b", faint: "#dcdcdc", paper: "#ffffff", dark: false };
let theme = ON_PAPER;

function setTheme(onPaper) {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  const names = { ink: "--ink", grey: "--grey", faint: "--line", paper: "--panel" };
  const own = Object.fromEntries(Object.entries(names).map(([part, name]) => [part, of(name)]));
  theme = onPaper ? ON_PAPER : { ...own, colours: dark ? DARK : LIGHT, dark };
}
const colour = (k) => theme.colours[k % theme.colours.length];

// The context of a canvas that is `width` by `height` pixels of the page, and empty.
function fitted(canvas, width, height) {
  const ratio = printing ? 3 : Math.min(devicePixelRatio || 1, 3);
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const ctx = canvas.getContext("2d");
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  ctx.clearRect(0, 0, width, height);
  return ctx;
}

const MARKERS = [
  (ctx, x, y, r) => { ctx.moveTo(x + r, y); ctx.arc(x, y, r, 0, 7); },
  (ctx, x, y, r) => ctx.rect(x - 0.9 * r, y - 0.9 * r, 1.8 * r, 1.8 * r),
  (ctx, x, y, r) => polygon(ctx, [[x, y - 1.2 * r], [x + 1.1 * r, y + 0.8 * r], [x - 1.1 * r, y + 0.8 * r]]),
  (ctx, x, y, r) => polygon(ctx, [[x, y - 1.3 * r], [x + 1.3 * r, y], [x, y + 1.3 * r], [x - 1.3 * r, y]]),
  (ctx, x, y, r) => polygon(ctx, [[x, y + 1.2 * r], [x + 1.1 * r, y - 0.8 * r], [x - 1.1 * r, y - 0.8 * r]]),
  (ctx, x, y, r) => {
    ctx.rect(x - 1.2 * r, y - 0.45 * r, 2.4 * r, 0.9 * r);
    ctx.rect(x - 0.45 * r, y - 1.2 * r, 0.9 * r, 2.4 * r);
  },
];
const markerPath = (ctx, k, x, y, r) => MARKERS[k % MARKERS.length](ctx, x, y, r);

function polygon(ctx, points) {
  points.forEach(([x, y], i) => (i ? ctx.lineTo(x, y) : ctx.moveTo(x, y)));
  ctx.closePath();
}

// What part of the group's box is drawn: [low, high] by feature, in its units.
function view(g, features, shared, deviations) {
  return features.map((j) => {
    if (shared) return sharedView(g, j);
    let [low, high] = g.n ? [0, 1] : [Infinity, -Infinity];
    // Ellipses are seen, unless they would leave the samples small.
    for (const c of g.components) {
      const s = deviations * Math.sqrt(c.cov[tri(j, j)]);
      low = Math.max(-0.5, Math.min(low, c.mean[j] - s));
      high = Math.min(1.5, Math.max(high, c.mean[j] + s));
    }
    const margin = 0.04 * (high - low);
    return high > low ? [low - margin, high + margin] : [-0.5, 1.5];
  });
}

function sharedView(g, j) {
  const [low, high] = META.shared[j];
  const margin = 0.03 * (high - low);
  return [low - margin, high + margin].map((value) => (value - g.low[j]) / g.span[j]);
}

// Options: small, shared, density, pair.
function drawGroup(canvas, g, width, height, options) {
  const ctx = fitted(canvas, width, height);
  const box = options.small ? [1, 1, width - 2, height - 2] : [50, 8, width - 58, height - 46];
  if (D === 1) drawHistogram(ctx, g, box, options);
  else drawPlane(ctx, g, box, options);
  if (!g.components.length) hatch(ctx, box);
}

function within(ctx, [x, y, w, h], draw) {
  ctx.save();
  ctx.beginPath();
  ctx.rect(x, y, w, h);
  ctx.clip();
  draw();
  ctx.restore();
}

function hatch(ctx, box) {
  const [x, y, w, h] = box;
  within(ctx, box, () => {
    ctx.strokeStyle = theme.grey;
    ctx.globalAlpha = 0.35;
    ctx.lineWidth = 1;
    ctx.beginPath();
    for (let s = -h; s < w; s += 9) {
      ctx.moveTo(x + s, y + h);
      ctx.lineTo(x + s + h, y);
    }
    ctx.stroke();
  });
}

function drawAxes(ctx, box, g, ranges, features) {
  const [x, y, w, h] = box;
  ctx.font = "11px " + FONT;
  ctx.strokeStyle = theme.faint;
  ctx.lineWidth = 1;
  ctx.strokeRect(x + 0.5, y + 0.5, w - 1, h - 1);
  features.forEach((j, axis) => {
    const ends = ranges[axis].map((u) => g.low[j] + u * g.span[j]);
    const marked = scaled(...ends, axis ? h / 45 : w / 75);
    const shares = marked.at.map(([value, text]) => [(value - ends[0]) / (ends[1] - ends[0]), text]);
    ctx.fillStyle = theme.grey;
    ctx.beginPath();
    (axis ? leftTicks : lowerTicks)(ctx, box, shares);
    ctx.stroke();
    ctx.fillStyle = theme.ink;
    axisName(ctx, box, shortened(META.features[j], 40) + marked.unit, axis);
  });
}

function leftTicks(ctx, [x, y, , h], shares) {
  [ctx.textAlign, ctx.textBaseline] = ["right", "middle"];
  for (const [share, text] of shares) {
    ctx.moveTo(x - 4, y + h - share * h);
    ctx.lineTo(x, y + h - share * h);
    ctx.fillText(text, x - 6, y + h - share * h);
  }
}

function lowerTicks(ctx, [x, y, w, h], shares) {
  [ctx.textAlign, ctx.textBaseline] = ["center", "top"];
  for (const [share, text] of shares) {
    ctx.moveTo(x + share * w, y + h);
    ctx.lineTo(x + share * w, y + h + 4);
    ctx.fillText(text, x + share * w, y + h + 6);
  }
}

function axisName(ctx, [x, y, w, h], name, axis) {
  [ctx.textAlign, ctx.textBaseline] = ["center", axis ? "middle" : "top"];
  if (!axis) {
    ctx.fillText(name, x + w / 2, y + h + 22);
    return;
  }
  ctx.save();
  ctx.translate(8, y + h / 2);
  ctx.rotate(-Math.PI / 2);
  ctx.fillText(name, 0, 0);
  ctx.restore();
}

const shortened = (text, most) => (text.length > most ? text.slice(0, most - 1) + "\u2026" : text);
