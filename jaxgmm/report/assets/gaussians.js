// Gaussians of a few features, in units of the group's box. `cov` is a lower triangle, row by row.

const tri = (i, j) => (i < j ? tri(j, i) : (i * (i + 1)) / 2 + j);
const LEAST = 1e-30; // of a variance, so that a component of equal values can be drawn

// The component with its Cholesky factor, and the constant of its log-density.
function prepared(c) {
  const L = new Float64Array(c.cov.length);
  let logdet = 0;
  for (let i = 0; i < D; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = c.cov[tri(i, j)];
      for (let m = 0; m < j; m++) sum -= L[tri(i, m)] * L[tri(j, m)];
      L[tri(i, j)] = i === j ? Math.sqrt(Math.max(sum, LEAST)) : sum / L[tri(j, j)];
    }
    logdet += Math.log(L[tri(i, i)]);
  }
  c.L = L;
  c.constant = Math.log(c.weight) - logdet - (D / 2) * Math.log(2 * Math.PI);
  return c;
}

// z = L^-1 (x - mean) of sample n, into `z`.
function whitened(c, x, n, z) {
  for (let i = 0; i < D; i++) {
    let sum = x[i][n] - c.mean[i];
    for (let j = 0; j < i; j++) sum -= c.L[tri(i, j)] * z[j];
    z[i] = sum / c.L[tri(i, i)];
  }
  return z;
}

// The most probable component of every sample, by all features; -1 without components.
function assigned(g) {
  if (g.label) return g.label;
  const label = new Int16Array(g.n).fill(-1);
  const z = new Float64Array(D);
  for (let n = 0; n < g.n; n++) {
    let best = -Infinity;
    g.components.forEach((c, k) => {
      whitened(c, g.x, n, z);
      const value = z.reduce((sum, u) => sum - 0.5 * u * u, c.constant);
      if (value > best) [best, label[n]] = [value, k];
    });
  }
  return (g.label = label);
}

// The normal distribution function (Abramowitz and Stegun, 1964, 7.1.26), good to 1e-7.
function phi(z) {
  const t = 1 / (1 + 0.3275911 * Math.abs(z) * Math.SQRT1_2);
  const series = 0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)));
  const half = 0.5 * t * series * Math.exp(-0.5 * z * z);
  return z < 0 ? half : 1 - half;
}

// Residuals as in jaxgmm.diagnose: of D features given those before them, then of D features by themselves.
function residuals(g) {
  const found = Array.from({ length: 2 * D }, () => new Float64Array(g.n));
  const z = new Float64Array(D);
  for (let n = 0; n < g.n; n++) {
    const known = g.components.map((c) => {
      return { c, z: Float64Array.from(whitened(c, g.x, n, z)), log: Math.log(c.weight) };
    });
    for (let d = 0; d < D; d++) {
      const top = Math.max(...known.map((one) => one.log));
      let total = 0;
      let below = 0;
      for (const one of known) {
        const share = Math.exp(one.log - top);
        total += share;
        below += share * phi(one.z[d]);
        const sd = Math.sqrt(one.c.cov[tri(d, d)]);
        found[D + d][n] += one.c.weight * phi((g.x[d][n] - one.c.mean[d]) / sd);
        one.log -= 0.5 * one.z[d] ** 2 + Math.log(one.c.L[tri(d, d)]);
      }
      found[d][n] = below / total;
    }
  }
  return found;
}

// Half axes and angle of the ellipse of one standard deviation in features i and j, of `sx` and `sy` pixels a unit.
function ellipse(c, i, j, sx, sy) {
  const a = c.cov[tri(i, i)] * sx * sx;
  const b = c.cov[tri(i, j)] * sx * sy;
  const d = c.cov[tri(j, j)] * sy * sy;
  const mid = (a + d) / 2;
  const off = Math.hypot((a - d) / 2, b);
  return [Math.sqrt(Math.max(mid + off, 0)), Math.sqrt(Math.max(mid - off, 0)), 0.5 * Math.atan2(2 * b, a - d)];
}

// The density of a component in features i and j, times its weight.
function planeDensity(c, i, j) {
  const [a, b, d] = [c.cov[tri(i, i)], c.cov[tri(i, j)], c.cov[tri(j, j)]];
  const det = Math.max(a * d - b * b, LEAST);
  const scale = c.weight / (2 * Math.PI * Math.sqrt(det));
  return (x, y) => {
    const [u, v] = [x - c.mean[i], y - c.mean[j]];
    return scale * Math.exp((-0.5 * (d * u * u - 2 * b * u * v + a * v * v)) / det);
  };
}

// The density of a component of one feature, times its weight.
function lineDensity(c) {
  const scale = c.weight / Math.sqrt(2 * Math.PI * Math.max(c.cov[0], LEAST));
  return (x) => scale * Math.exp((-0.5 * (x - c.mean[0]) ** 2) / Math.max(c.cov[0], LEAST));
}
