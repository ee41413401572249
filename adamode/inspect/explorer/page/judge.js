// What was decided on the step: the error, the controller, stability, Newton's iteration.

function drawError() {
  const i = state.i, place = byId("p-error"), said = byId("t-error"), ratio = C.error_ratio[i];
  const some = V.errors > 0 && Number.isFinite(error(i, 0, 0));
  place.hidden = !some;
  byId("e-table").innerHTML = "";
  if (!some) {
    said.innerHTML = V.errors ? "The error estimate is no number: a stage was not finite." : "This method has no embedded solution: fixed steps, no error estimate, nothing is rejected.";
    return;
  }
  const parts = D.labels.map((_, c) => Math.abs(error(i, 0, c)) / scale(i, c));
  const order = [...parts.keys()].sort((p, q) => parts[q] - parts[p]);
  const top = order.slice(0, 12), most = Math.max(...parts.filter(Number.isFinite), ratio || 0, 1e-300);
  const low = Math.min(1e-3, most / 100), high = Math.max(2, most * 1.5);
  const longest = Math.max(...top.map((c) => D.labels[c].length));
  const frame = new Frame(place, {
    high: 60 + Math.max(16, Math.min(24, 240 / top.length)) * top.length, left: 16 + Math.round(7.5 * longest), x: [low, high], y: [top.length - 0.4, -0.6], logx: true, xlabel: "|y₁ − ŷ₁| ÷ (atol + rtol·max(|y₀|, |y₁|))",
    label: "Error ratios by component: " + top.map((c) => `${D.labels[c]} ${fmt(parts[c])}`).join(", "),
  });
  frame.parts = frame.parts.filter((p) => !p.includes('text-anchor="end"'));
  const outside = [];
  top.forEach((c, row) => {
    const a = frame.px(low), b = frame.px(Math.max(parts[c], low)), y = frame.py(row);
    const tall = Math.min(13, (frame.height / top.length) * 0.65);
    frame.parts.push(`<rect class="${parts[c] > 1 ? "fb" : "fa"}" x="${a}" y="${y - tall / 2}" width="${Math.max(0, b - a)}" height="${tall}"/>`);
    outside.push(`<text class="ink" x="${frame.left - 6}" y="${y + 4}" text-anchor="end">${esc(D.labels[c])}</text>`);
  });
  frame.upright(1, "here dash");
  if (ratio > low) frame.upright(ratio, "d thick");
  frame.parts.push("</g><g>", ...outside);
  frame.mount();
  const own = ownRatio(i), two = V.errors > 1 && Number.isFinite(error(i, 1, 0));
  const norm = two ? "two estimates, e₅²/√(e₅² + 0.01 e₃²) of their RMS" : D.norm === "rms" ? `RMS over ${D.entries} ${D.entries === 1 ? "entry" : "entries"}` : esc(D.norm);
  const sign = ratio <= 1 ? "≤ 1: accepted" : "> 1: rejected";
  const but = !C.accepted[i] && ratio <= 1 ? "≤ 1, and yet rejected: a stage was not finite, or Newton’s iteration failed" : C.accepted[i] && ratio > 1 ? "> 1, and accepted as it is: dt_min is forced" : sign;
  said.innerHTML = `<b class="${C.accepted[i] ? "yes" : "no"}">error ratio = ${fmt(ratio, 6)}</b> ${but}<br>${norm}${own === null ? "" : `; from the numbers below: ${fmt(own, 6)}`}` +
    (W < D.entries ? `<br>${W} of ${D.entries} entries are in this page.` : "") +
    (method(i).coupled ? "<br>The estimate was filtered by (I − dt·γ₀·J)⁻¹, which keeps it bounded where dt·J is large." : "");
  table(byId("e-table"), ["", "ratio", "y₁ − ŷ₁", "tolerance", "y₀", "y₁"],
    order.slice(0, 40).map((c) => [esc(D.labels[c]), fmt(parts[c]), fmt(error(i, 0, c)), fmt(scale(i, c)), fmt(y0(i, c), 7), fmt(y1(i, c), 7)]));
}

const power = (base, exponent) => `${fmt(base)}<sup>${fmt(exponent, 3)}</sup>`;

function controllerLines(i) {
  const d = D.decisions[i], P = D.controller, k = d.order, dt = Math.abs(C.dt[i]), next = C.factor[i] * dt;
  if (d.kind === "fixed") return ["<p>Fixed steps: no controller. Each step has the length that was given.</p>"];
  const lines = [], e0 = C.error_ratio[i];
  const b1 = (P.pcoeff + P.icoeff + P.dcoeff) / k, b2 = (P.pcoeff + 2 * P.dcoeff) / k, b3 = P.dcoeff / k;
  const formula = (names, numbers) => lines.push(`<div class="formula"><div>${names}</div><div>${numbers}</div></div>`);
  if (d.kind === "accepted" && d.remembers && (P.pcoeff || P.dcoeff)) {
    const near = Math.max(d.e1, 1e-4), far = d.e2 === null ? 1 : Math.max(d.e2, 1e-4);
    formula(`factor = safety · e₀<sup>−β₁</sup> · e₁<sup>β₂</sup>${b3 ? " · e₂<sup>−β₃</sup>" : ""}`,
      `= ${fmt(P.safety, 3)} · ${power(e0, -b1)} · ${power(near, b2)}${b3 ? ` · ${power(far, -b3)}` : ""} = <b>${fmt(d.raw, 6)}</b>`);
    lines.push(`<p class="key">e₀: this error ratio; e₁${b3 ? ", e₂" : ""}: ${b3 ? "those" : "that"} of the step${b3 ? "s" : ""} accepted before (at least 1e−4). β₁ = (p+i+d)/k, β₂ = (p+2d)/k${b3 ? ", β₃ = d/k" : ""} with p = ${fmt(P.pcoeff)}, i = ${fmt(P.icoeff)}, d = ${fmt(P.dcoeff)}, k = ${k}.</p>`);
  } else if (d.kind === "accepted" || d.kind === "rejected") {
    const i1 = d.kind === "accepted" && d.remembers ? P.icoeff / k : 1 / k;
    formula("factor = safety · e₀<sup>−1/k</sup>", `= ${fmt(P.safety, 3)} · ${power(e0, -i1)} = <b>${fmt(d.raw, 6)}</b>`);
    lines.push(`<p class="key">k = ${k}. ${d.kind === "rejected" ? "After a rejection the classical controller, whatever the one for accepted steps." : d.remembers ? "The classical (integral) controller." : "The classical controller, while two accepted steps to remember are lacking: at the start, after a jump, or after a change of method."}</p>`);
  } else if (d.kind === "newton") {
    lines.push(`<p>Newton’s iteration did not converge: factor = <b>${fmt(d.raw)}</b>.</p>`);
  } else lines.push(`<p>A stage was no finite number: factor = factor_min = <b>${fmt(P.factor_min)}</b>.</p>`);
  if (d.raw !== null && d.kind !== "newton") {
    const held = d.raw < d.low ? `raised to ${fmt(d.low)}` : d.raw > d.high ? `lowered to ${fmt(d.high)}` : "inside";
    const why = d.high === 1 && d.kind === "accepted" ? " (1 at most, since the attempt before was rejected)" : "";
    lines.push(`<p>Limits ${fmt(d.low)} … ${fmt(d.high)}${why}: ${held}.</p>`);
  }
  if (d.kind === "accepted" && d.cut) lines.push(`<p>This step was shorter than the ${fmt(d.wanted, 6)} that was wanted, to end on a stop or halfway there: its small error says little, so the longer of both stands, and nothing is remembered.</p>`);
  lines.push(`<p class="big">next |dt| = ${d.cut && d.kind === "accepted" ? "" : `${fmt(dt, 6)} · ${fmt(C.factor[i], 6)} = `}<b>${fmt(next, 6)}</b></p>`);
  if (P.dt_max !== null && next >= P.dt_max) lines.push(`<p>dt_max = ${fmt(P.dt_max)} holds it.</p>`);
  if (!d.agrees) lines.push(`<p class="key">The formula alone gives ${fmt(d.proposed, 6)}: something else decided too (a group’s other samples, a jump, a reset, or a limit).</p>`);
  const own = rowsOf.get(state.sample), after = own[own.indexOf(i) + 1];
  if (after !== undefined && C.number[after] === C.number[i] + 1) {
    const r = Math.abs(C.dt[after]) / next;
    if (r < 0.999) lines.push(`<p class="key">The next attempt has ${fmt(Math.abs(C.dt[after]), 6)}: shortened, to end on a stop or halfway there.</p>`);
    else if (r > 1.001) lines.push(`<p class="key">The next attempt has ${fmt(Math.abs(C.dt[after]), 6)}: stretched, to end on a stop.</p>`);
  }
  return lines;
}

function drawControl() { byId("t-control").innerHTML = controllerLines(state.i).join(""); }

const lambdas = (i) => (D.spectra.of[i] === null ? [] : D.spectra.values[D.spectra.of[i]]);
const zs = (i) => lambdas(i).map(([re, im]) => [re * C.dt[i], im * C.dt[i]]);

function drawStability() {
  const i = state.i, m = method(i), [low, high, top] = m.window, own = zs(i);
  const frame = new Frame(byId("p-stable"), {
    x: [low, high], y: [-top, top], xlabel: "Re z", ylabel: "Im z", equal: true,
    label: `Stability region of ${m.name}; z = dt·λ: ${own.map(([a, b]) => `${fmt(a)} + ${fmt(b)} i`).join("; ")}`,
  });
  const path = m.region.map((flat) => {
    let d = "";
    for (let k = 0; k < flat.length; k += 2) d += `${k ? "L" : "M"}${frame.px(flat[k]).toFixed(1)} ${frame.py(flat[k + 1]).toFixed(1)}`;
    return d;
  });
  // |R| ≤ 1 lies inside the lines of an explicit method, and outside those of an implicit one.
  const all = `M${frame.left} ${frame.top}h${frame.width}v${frame.height}h${-frame.width}Z`;
  frame.parts.push(`<path class="region" fill-rule="evenodd" d="${m.implicit ? all : ""}${path.map((d) => `${d}Z`).join("")}"/>`);
  for (const flat of m.embedded) {
    const points = [];
    for (let k = 0; k < flat.length; k += 2) points.push([flat[k], flat[k + 1]]);
    frame.line(points, "b thin dash");
  }
  frame.line([[frame.x[0], 0], [frame.x[1], 0]], "m thin");
  frame.line([[0, frame.y[0]], [0, frame.y[1]]], "m thin");
  const held = ([a, b]) => [Math.max(frame.x[0], Math.min(frame.x[1], a)), Math.max(frame.y[0], Math.min(frame.y[1], b))];
  if (state.every) frame.dots(rowsOf.get(state.sample).flatMap(zs).map(held), "m faint", 1.6);
  let outside = 0;
  for (const z of own) {
    const at = held(z), far = at[0] !== z[0] || at[1] !== z[1];
    outside += far;
    if (far) frame.crosses([at], "d", 5);
    else frame.dot(...at, "fd", 5);
  }
  frame.mount();
  byId("k-stable").innerHTML = [swatch("a", m.R ? "|R(z)| ≤ 1" : "the pair is stable"), m.embedded.length ? swatch("b", "its embedded method") : "",
    swatch("d", "z = dt·λ"), outside ? `<span>× at the border: ${outside} outside the picture</span>` : "", esc(D.spectra.said)].join(" ");
  const rows = own.slice(0, 12).map((z, k) => {
    const size = growth(m, z), lam = lambdas(i)[k];
    const complex = ([a, b]) => (b === 0 ? fmt(a) : `${fmt(a)} ${b < 0 ? "−" : "+"} ${fmt(Math.abs(b))} i`);
    return [complex(lam), complex(z), size === null ? "–" : fmt(size)];
  });
  if (rows.length) table(byId("z-table"), ["λ at (t, y₀)", "z = dt·λ", "|R(z)|"], rows);
  else byId("z-table").innerHTML = "";
}

function drawNewton() {
  const n = D.newton, section = byId("s-newton");
  section.hidden = !n;
  if (!n) return;
  const i = state.i, systems = n.systems[i], place = byId("p-newton"), m = method(i);
  place.hidden = !systems.some((s) => s.length);
  const renewed = n.renewed[i] === null ? "An explicit step: nothing is solved." : n.renewed[i] ? "∂f/∂y was evaluated for this attempt." : "∂f/∂y was that of an earlier attempt.";
  if (place.hidden) {
    byId("t-newton").innerHTML = `${renewed}${m.rosenbrock ? " A Rosenbrock step solves linear systems: there is no iteration." : ""}`;
    return;
  }
  const values = systems.flat(), longest = Math.max(2, ...systems.map((s) => s.length));
  const frame = new Frame(place, {
    x: [0.5, longest + 0.5], y: rangeOf([...values, n.kappa], true, 0.08), logy: true, whole: true, xlabel: "correction", ylabel: "size, in tolerances",
    label: "Newton’s corrections: " + systems.map((s, k) => `system ${k + 1}: ${s.map((v) => fmt(v, 3)).join(", ")}`).join("; "),
  });
  frame.level(n.kappa, "here dash");
  const looks = ["a", "b", "c", "d", "m"];
  systems.forEach((s, k) => {
    const points = s.map((v, j) => [j + 1, v]);
    frame.line(points, looks[k % 5]);
    points.forEach((p) => frame.dot(...p, `f${looks[k % 5]}`, 3.5));
  });
  frame.mount();
  const counts = systems.map((s) => s.length).join(" + ");
  byId("t-newton").innerHTML = `${renewed} ${m.coupled ? "All stages at once" : "A system for each stage"}: <b>${counts} correction${values.length === 1 ? "" : "s"}</b>, ${C.newton[i] ? '<b class="no">not converged</b>' : "converged"}. ` +
    `It ends where θ/(1 − θ) times the last correction is at most κ = ${fmt(n.kappa)} tolerances (dashed), θ the rate of the corrections.` +
    (systems.length > 1 ? `<br>${systems.map((_, k) => swatch(looks[k % 5], `stage ${k + 2}`)).join(" ")}` : "");
}
