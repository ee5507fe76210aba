// Two features of a group: samples, and ellipses or regions of the density.

const REGIONS = [0.5, 0.8, 0.95]; // shares of the mixture, as plot.mixture(contours=True) draws them
const OPACITY = [0, 40, 85, 140]; // of 255, by how many regions hold a pixel

function drawPlane(ctx, g, box, { small, shared, density, pair: [i, j] }) {
  const [x, y, w, h] = box;
  const ranges = view(g, [i, j], shared, density ? 2.5 : 2);
  const [[x0, x1], [y0, y1]] = ranges;
  const [sx, sy] = [w / (x1 - x0), h / (y1 - y0)];
  const px = (u) => x + (u - x0) * sx;
  const py = (v) => y + h - (v - y0) * sy;
  within(ctx, box, () => {
    if (density && g.components.length) drawDensity(ctx, g, box, ranges, i, j);
    drawSamples(ctx, g, px, py, i, j, small, density);
    for (const c of g.components) {
      if (!density) drawEllipses(ctx, px(c.mean[i]), py(c.mean[j]), ellipse(c, i, j, sx, sy), c, small);
    }
    if (small) return;
    for (const c of g.components) drawName(ctx, c.name, px(c.mean[i]), py(c.mean[j]));
  });
  if (!small) drawAxes(ctx, box, g, ranges, [i, j]);
}

// Samples have the colour and marker of their component; those of small weight are small.
function drawSamples(ctx, g, px, py, i, j, small, density) {
  const label = assigned(g);
  const r = small ? 0.8 : 2.4;
  ctx.globalAlpha = Math.max(theme.dark ? 0.5 : 0.3, Math.min(0.85, (small ? 7 : 9) / Math.sqrt(g.n)));
  for (let k = -1; k < g.components.length; k++) {
    ctx.fillStyle = k < 0 || density ? theme.grey : colour(g.components[k].name);
    ctx.beginPath();
    for (let n = 0; n < g.n; n++) {
      if (label[n] !== k) continue;
      const [a, b] = [px(g.x[i][n]), py(g.x[j][n])];
      const size = g.w ? r * Math.max(0.5, Math.sqrt(g.w[n])) : r;
      if (small) ctx.rect(a - size, b - size, 2 * size, 2 * size);
      else markerPath(ctx, k < 0 ? 0 : g.components[k].name, a, b, size);
    }
    ctx.fill();
  }
  ctx.globalAlpha = 1;
}

// Ellipses of one and two standard deviations; in small pictures, of two.
function drawEllipses(ctx, x, y, [a, b, angle], c, small) {
  const thick = small ? 1 + c.weight : 1.5 + 2 * c.weight;
  for (const s of small ? [2] : [1, 2]) {
    ctx.setLineDash(!small && s === 2 ? [5, 3] : []);
    ctx.beginPath();
    ctx.ellipse(x, y, s * a, s * b, -angle, 0, 7);
    [ctx.strokeStyle, ctx.globalAlpha, ctx.lineWidth] = [theme.paper, 0.75, thick + 2];
    ctx.stroke();
    [ctx.strokeStyle, ctx.globalAlpha, ctx.lineWidth] = [colour(c.name), 1, thick];
    ctx.stroke();
  }
  ctx.setLineDash([]);
}

function drawName(ctx, text, x, y) {
  ctx.font = "bold 13px " + FONT;
  [ctx.textAlign, ctx.textBaseline, ctx.lineJoin] = ["center", "middle", "round"];
  [ctx.strokeStyle, ctx.lineWidth] = [theme.paper, 4];
  ctx.strokeText(text, x, y);
  ctx.fillStyle = theme.ink;
  ctx.fillText(text, x, y);
}

// The smallest regions that hold some shares of the mixture.
function drawDensity(ctx, g, [x, y, w, h], [[x0, x1], [y0, y1]], i, j) {
  const [nx, ny] = [Math.ceil(w), Math.ceil(h)];
  const values = new Float32Array(nx * ny);
  const parts = g.components.map((c) => planeDensity(c, i, j));
  for (let b = 0, at = 0; b < ny; b++) {
    const v = y1 - ((b + 0.5) / ny) * (y1 - y0);
    for (let a = 0; a < nx; a++, at++) {
      const u = x0 + ((a + 0.5) / nx) * (x1 - x0);
      for (const part of parts) values[at] += part(u, v);
    }
  }
  const levels = levelsOf(values, ((x1 - x0) / nx) * ((y1 - y0) / ny));
  const image = new ImageData(nx, ny);
  const rgb = colour(0).match(/\w\w/g).map((hex) => parseInt(hex, 16));
  values.forEach((value, at) => image.data.set([...rgb, OPACITY[levels.filter((l) => value >= l).length]], 4 * at));
  const off = el("canvas", { width: nx, height: ny });
  off.getContext("2d").putImageData(image, 0, 0);
  ctx.drawImage(off, x, y, w, h);
}

// Densities at the edges of the regions.
function levelsOf(values, cell) {
  const sorted = Float32Array.from(values).sort().reverse();
  const levels = [];
  let mass = 0;
  for (let at = 0; at < sorted.length && levels.length < REGIONS.length; at++) {
    mass += sorted[at] * cell;
    if (mass >= REGIONS[levels.length]) levels.push(sorted[at]);
  }
  return levels;
}
