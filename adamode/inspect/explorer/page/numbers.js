// The page's data, and what follows from them: states, stages, dense output, R(z).

const D = JSON.parse(document.getElementById("data").textContent);
const C = D.columns, N = C.t.length, W = D.labels.length, V = D.vectors;

function decoded(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer), found = new Float64Array(bytes.length / 8);
  for (let i = 0; i < found.length; i++) found[i] = view.getFloat64(8 * i, true);
  return found;
}
const Y0 = decoded(V.y0), Y1 = decoded(V.y1), E = decoded(V.error), S = decoded(V.scale), K = decoded(V.k);
const y0 = (i, c) => Y0[i * W + c];
const y1 = (i, c) => Y1[i * W + c];
const scale = (i, c) => S[i * W + c];
const error = (i, e, c) => E[(i * V.errors + e) * W + c];
const slope = (i, s, c) => K[(i * V.stages + s) * W + c];
const names = Object.keys(D.methods);
const method = (i) => D.methods[names[D.row_methods[i]]];
const sampleOf = (i) => C.sample[i];
const isMany = D.stepping !== "shared";
const samples = isMany ? [...new Set(C.sample)].sort((a, b) => a - b) : [null];
const rowsOf = new Map(samples.map((b) => [b, []]));
for (let i = 0; i < N; i++) rowsOf.get(isMany ? C.sample[i] : null).push(i);

// A number for people: so many significant digits, no more than it has.
function fmt(x, digits = 4) {
  if (x === null || x === undefined || Number.isNaN(x)) return "–";
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  if (x === 0) return "0";
  const size = Math.abs(x);
  let text = size >= 1e5 || size < 1e-3 ? x.toExponential(digits - 1) : x.toPrecision(digits);
  if (text.includes("e")) {
    const [m, e] = text.split("e");
    text = `${m.includes(".") ? m.replace(/\.?0+$/, "") : m}e${e.replace("+", "")}`;
  } else if (text.includes(".")) text = text.replace(/\.?0+$/, "");
  return text.replaceAll("-", "−");
}
const esc = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

const stageCount = (i) => method(i).n_stages;
const stageTime = (i, s) => (method(i).c[s] === 1 ? C.t[i] + C.dt[i] : C.t[i] + method(i).c[s] * C.dt[i]);

// Y_s: the state that stage s was evaluated at.
function stagePoint(i, s, c) {
  const m = method(i), row = m.a[s] || [];
  if (s === m.n_stages - 1) return y1(i, c);
  let total = 0;
  for (let j = 0; j < row.length; j++) if (row[j] !== 0) total += row[j] * slope(i, j, c);
  return y0(i, c) + C.dt[i] * total;
}

const hasDense = (i) => {
  const m = method(i);
  for (let s = 0; s < m.dense.length; s++) {
    if (m.dense[s].some((w) => w !== 0) && !(s < V.stages && Number.isFinite(slope(i, s, 0)))) return false;
  }
  return true;
};

// y(t + θ dt): the method's own dense output, or Hermite's cubic where a stage of it is not known.
function dense(i, theta, c) {
  const m = method(i), h = C.dt[i];
  if (hasDense(i)) {
    let total = 0;
    for (let s = 0; s < m.dense.length; s++) {
      let w = 0;
      for (let p = m.dense[s].length - 1; p >= 0; p--) w = (w + m.dense[s][p]) * theta;
      if (w !== 0) total += w * slope(i, s, c);
    }
    return y0(i, c) + h * total;
  }
  const last = slope(i, m.n_stages - 1, c), d = y1(i, c) - y0(i, c), q = theta * (1 - theta);
  if (!Number.isFinite(last)) return y0(i, c) + theta * d;
  return y0(i, c) + theta * d + q * ((1 - theta) * (h * slope(i, 0, c) - d) - theta * (h * last - d));
}

const times = ([a, b], [c, d]) => [a * c - b * d, a * d + b * c];
const modulus = ([a, b]) => Math.hypot(a, b);

// |R(z)| of a method; null where it has no single R.
function growth(m, z) {
  if (!m.R) return null;
  const [above, below] = m.R.map((row) => row.reduceRight((v, w) => { const p = times(v, z); return [p[0] + w, p[1]]; }, [0, 0]));
  const size = modulus(above) / modulus(below);
  return Number.isFinite(size) ? size : m.R[0].length < m.R[1].length ? 0 : NaN;
}

// The ratio that the page's own numbers give, with the norm named in `D.norm`; null where entries are missing.
function ownRatio(i) {
  if (D.entries !== W || D.norm !== "rms" || !V.errors) return null;
  const rms = (e) => {
    let total = 0;
    for (let c = 0; c < W; c++) total += (error(i, e, c) / scale(i, c)) ** 2;
    return Math.sqrt(total / W);
  };
  const first = rms(0);
  if (V.errors < 2 || Number.isNaN(error(i, 1, 0))) return first;
  const second = rms(1);
  return first === 0 && second === 0 ? 0 : (first * first) / Math.sqrt(first * first + 0.01 * second * second);
}

function word(i) {
  if (C.accepted[i]) return "accepted";
  return C.newton[i] ? "rejected: Newton’s iteration did not converge" : "rejected";
}
