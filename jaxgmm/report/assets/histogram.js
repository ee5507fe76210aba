// One feature of a group: a histogram, the density of each component, and of the mixture.

function drawHistogram(ctx, g, box, { small, shared }) {
  const [x, y, w, h] = box;
  const ranges = view(g, [0], shared, 2);
  const [x0, x1] = ranges[0];
  const bars = heights(g, x0, x1, small);
  const points = small ? 60 : 240;
  const along = Array.from({ length: points + 1 }, (_, p) => x0 + (p / points) * (x1 - x0));
  const curves = g.components.map((c) => along.map(lineDensity(c)));
  const whole = along.map((_, p) => curves.reduce((sum, curve) => sum + curve[p], 0));
  const tallest = Math.max(...bars);
  // A narrow component would leave the bars low.
  const top = 1.08 * Math.max(tallest, Math.min(Math.max(...whole), 3 * tallest || 1), 1e-9);
  const py = (v) => y + h - (v / top) * h;
  const draw = (curve, style, thick, dash) => {
    ctx.beginPath();
    ctx.setLineDash(dash);
    curve.forEach((v, p) => ctx.lineTo(x + (p / points) * w, py(v)));
    [ctx.strokeStyle, ctx.lineWidth] = [style, thick];
    ctx.stroke();
  };
  within(ctx, box, () => {
    ctx.fillStyle = theme.faint;
    const step = w / bars.length;
    bars.forEach((v, b) => ctx.fillRect(x + b * step + 0.5, py(v), step - 1, h));
    if (!small || curves.length > 1) {
      curves.forEach((curve, k) => draw(curve, colour(g.components[k].name), small ? 1.3 : 2, []));
    }
    if (curves.length) draw(whole, theme.ink, small ? 1 : 1.4, small ? [] : [5, 3]);
    ctx.setLineDash([]);
  });
  if (!small) drawAxes(ctx, box, g, ranges, [0]);
}

// Densities of the samples, weighted, in bins from x0 to x1.
function heights(g, x0, x1, small) {
  const n = Math.max(5, Math.min(small ? 24 : 48, Math.ceil(3.2 * Math.cbrt(g.n))));
  const found = new Array(n).fill(0);
  const total = g.w ? g.w.reduce((sum, v) => sum + v, 0) : g.n;
  g.x[0].forEach((u, s) => {
    const bin = Math.floor(((u - x0) / (x1 - x0)) * n);
    if (bin >= 0 && bin < n) found[bin] += ((g.w ? g.w[s] : 1) / total) * (n / (x1 - x0));
  });
  return found;
}
