// One step: its stages in the phase plane, its components over time, its numbers.

const COARSE = 12;

// The accepted steps of the sample as one curve of its dense output, as far as it came.
const curves = new Map();
function wholeCurve(b) {
  if (!curves.has(b)) {
    const points = [];
    for (const i of rowsOf.get(b)) {
      if (!C.accepted[i]) continue;
      for (let k = points.length ? 1 : 0; k <= COARSE; k++) points.push([i, k / COARSE]);
    }
    curves.set(b, points);
  }
  return curves.get(b);
}
const yAt = ([i, theta], c) => (theta === 0 ? y0(i, c) : theta === 1 ? y1(i, c) : dense(i, theta, c));

// By how much the distance of the embedded solution is enlarged, a power of ten, to be seen in a picture.
function enlarged(i, cs, ranges) {
  let share = 0;
  cs.forEach((c, k) => { share = Math.max(share, Math.abs(error(i, 0, c)) / (ranges[k][1] - ranges[k][0])); });
  return share > 0 && Number.isFinite(share) ? Math.max(1, 10 ** Math.floor(Math.log10(0.14 / share))) : 1;
}
const timesText = (m) => (m === 1 ? "" : ` (its distance × ${m >= 1e4 ? `10${superscript(Math.round(Math.log10(m)))}` : m})`);

function drawPlane() {
  const i = state.i, [a, b] = state.plane, close = state.zoom === "step";
  byId("s-plane").hidden = W < 2;
  if (W < 2) return;
  const n = stageCount(i), points = [];
  for (let s = 0; s < n; s++) points.push([stagePoint(i, s, a), stagePoint(i, s, b)]);
  const curve = wholeCurve(state.sample);
  const near = [[y0(i, a), y0(i, b)], [y1(i, a), y1(i, b)], ...points];
  const seen = close ? near : [...curve.map((p) => [yAt(p, a), yAt(p, b)]), ...near];
  const x = rangeOf(seen.map((p) => p[0]), false, close ? 0.25 : 0.05) || [-1, 1];
  const y = rangeOf(seen.map((p) => p[1]), false, close ? 0.25 : 0.05) || [-1, 1];
  const frame = new Frame(byId("p-plane"), {
    x, y, xlabel: D.labels[a], ylabel: D.labels[b],
    label: `Phase plane of attempt ${C.number[i]}: from (${fmt(y0(i, a))}, ${fmt(y0(i, b))}) to (${fmt(y1(i, a))}, ${fmt(y1(i, b))}), ${n} stages`,
  });
  frame.line(curve.map((p) => [yAt(p, a), yAt(p, b)]), "m thin faint");
  const step = [];
  for (let k = 0; k <= 40; k++) step.push([yAt([i, k / 40], a), yAt([i, k / 40], b)]);
  frame.line(step, "c thick");
  const h = C.dt[i] * 0.3, shown = new Map();
  points.forEach(([u, v], s) => {
    frame.arrow(u, v, h * slope(i, s, a), h * slope(i, s, b), "a", "fa");
    frame.dot(u, v, "fa", 2.6);
    const key = `${Math.round(frame.px(u) / 9)},${Math.round(frame.py(v) / 9)}`;
    shown.set(key, [...(shown.get(key) || []), s]);
  });
  if (close) for (const at of shown.values()) frame.text(...points[at[0]], at.map((s) => s + 1).join(","), { dx: 5, dy: 14, look: "fa" });
  frame.dot(y0(i, a), y0(i, b), "fink", 4.5);
  if (close) frame.text(y0(i, a), y0(i, b), "y₀", { look: "fink" });
  const ends = [y1(i, a), y1(i, b)];
  let m = 1;
  if (V.errors && Number.isFinite(error(i, 0, a))) {
    m = close ? enlarged(i, [a, b], [frame.x, frame.y]) : 1;
    const to = [ends[0] - m * error(i, 0, a), ends[1] - m * error(i, 0, b)];
    frame.line([ends, to], "b dash");
    frame.dot(...to, "fb", 4);
    if (close) frame.text(...to, "ŷ₁", { look: "fb" });
  }
  frame.dot(...ends, "fc", 4.5);
  if (close) frame.text(...ends, "y₁", { look: "fc", dx: -8, dy: -6, anchor: "end" });
  frame.mount();
  byId("k-plane").innerHTML = [swatch("a", "stages Yᵢ, arrows 0.3 dt·kᵢ"), swatch("c", "y₁ and the dense output"),
    V.errors ? swatch("b", `embedded ŷ₁${timesText(m)}`) : "", swatch("m", "the solution")].join(" ");
}

function drawInside() {
  const i = state.i, c = state.c, theta = state.theta, n = stageCount(i), t = (s) => C.t[i] + s * C.dt[i];
  const close = state.zoom === "step";
  const curve = [];
  for (let k = 0; k <= 60; k++) curve.push([t(k / 60), yAt([i, k / 60], c)]);
  const points = [];
  for (let s = 0; s < n; s++) points.push([stageTime(i, s), stagePoint(i, s, c), slope(i, s, c)]);
  const span = [C.t[i], C.t[i] + C.dt[i]].sort((p, q) => p - q), room = 0.12 * (span[1] - span[0]);
  const whole = close ? [] : wholeCurve(state.sample).map((p) => [C.t[p[0]] + p[1] * C.dt[p[0]], yAt(p, c)]);
  const logx = !close && state.xaxis === "log";
  const x = close ? [span[0] - room, span[1] + room] : rangeOf([...whole, ...points].map((p) => p[0]), logx, 0.02);
  const frame = new Frame(byId("p-inside"), {
    x, logx, y: rangeOf([...curve, ...points, ...whole].map((p) => p[1]), false, close ? 0.2 : 0.06) || [-1, 1],
    xlabel: "t", ylabel: D.labels[c], label: `${D.labels[c]} inside the step, from ${fmt(y0(i, c))} to ${fmt(y1(i, c))}`,
  });
  frame.line(whole, "m thin");
  frame.line(curve, `c thick${hasDense(i) ? "" : " dash"}`);
  const w = 0.045 * C.dt[i];
  for (const [x, y, k] of points) {
    frame.line([[x - w, y - w * k], [x + w, y + w * k]], "a thick");
    frame.dot(x, y, "fa", 3);
  }
  frame.dot(C.t[i], y0(i, c), "fink", 4.5);
  let m = 1;
  if (V.errors && Number.isFinite(error(i, 0, c))) {
    m = close ? enlarged(i, [c], [frame.y]) : 1;
    const to = y1(i, c) - m * error(i, 0, c), x = t(1);
    frame.line([[x, y1(i, c)], [x, to]], "b dash");
    frame.dot(x, to, "fb", 4);
    frame.text(x, to, "ŷ₁", { look: "fb", dx: 7, dy: 4 });
  }
  frame.dot(t(1), y1(i, c), "fc", 4.5);
  frame.upright(t(theta), "m dash thin");
  frame.dot(t(theta), yAt([i, theta], c), "fc", 5);
  frame.mount();
  const order = method(i).dense_order;
  const values = D.labels.slice(0, 6).map((name, k) => `${esc(name)} = ${fmt(yAt([i, theta], k), 7)}`).join(", ");
  byId("t-inside").innerHTML = `θ = ${fmt(theta, 3)}, t = ${fmt(t(theta), 8)}: ${values}${W > 6 ? " …" : ""}`;
  byId("k-inside").innerHTML = [swatch("c", hasDense(i) ? `dense output, order ${order}` : "Hermite’s cubic (the method’s own dense output needs stages that are not known here)"),
    swatch("a", "stages with their slopes"), V.errors ? swatch("b", `ŷ₁${timesText(m)}`) : ""].join(" ");
}

function drawStages() {
  const i = state.i, m = method(i), shown = D.labels.slice(0, 4), rows = [];
  const total = Math.min(V.stages, m.c.length);
  for (let s = 0; s < total; s++) {
    if (!Number.isFinite(slope(i, s, 0)) && s >= m.n_stages) continue;
    rows.push([s + 1, fmt(m.c[s], 4), fmt(stageTime(i, s), 7),
      ...shown.flatMap((_, c) => [fmt(stagePoint(i, s, c), 7), fmt(slope(i, s, c), 6)])]);
  }
  table(byId("k-table"), ["i", "c<sub>i</sub>", "t<sub>i</sub>", ...shown.flatMap((name) => [`Y<sub>i</sub> ${esc(name)}`, `k<sub>i</sub> ${esc(name)}`])], rows);
}
