// The way back: the adjoint by block, the rebuilt state, both solves' steps, the VJPs of one step.

const WAYS = D.ways, LOOKS = ["a", "b", "c", "d", "m"];
const way = () => WAYS[state.way];

// The VJPs between two rows of the way back: those that the attempts in between have spent.
function vjpsOf(w, row) {
  const found = [], from = row === 0 ? null : w.t[row - 1], to = w.t[row], s = w.steps;
  if (from === null) return found;
  for (let j = 0; j < s.t.length; j++) {
    const sign = Math.sign(s.dt[j]), first = (s.t[j] - from) * sign >= 0, before = (to - s.t[j]) * sign > 0;
    if (!first || !before) continue;
    // The discrete adjoint's very last one is that of the start's stage, after its last step.
    const begin = j ? s.nfe[j - 1] : w.begun, end = j === s.t.length - 1 && w.failure === null ? Infinity : s.nfe[j];
    for (let k = begin; k < end && k < w.vjps.t.length; k++) found.push([j, k]);
  }
  return found;
}

for (const w of WAYS) {
  // A walk that was given up spent VJPs before the one that holds began.
  const lost = w.given_up ? w.given_up.steps.nfe : [];
  w.begun = lost.length ? lost[lost.length - 1] : 0;
}

function drawBack() {
  byId("back").hidden = !WAYS.length;
  if (!WAYS.length) return;
  const w = way(), row = state.row, logx = state.xaxis === "log" && w.t.some((t) => t > 0);
  const x = rangeOf(logx ? w.t.filter((t) => t > 0) : w.t, logx, 0.02) || [0, 1];
  byId("back-facts").innerHTML = `${esc(w.gradient)}: ${esc(w.status)}; ${esc(w.loss)}; ${w.vjps.t.length + w.vjps.left_out} VJPs` +
    (w.difference === null || w.gradient === "discrete" ? "" : `; ‖dL/dz(t₀)‖ is off the discrete adjoint’s by ${fmt(w.difference, 3)} of it`) + ".";
  byId("back-failure").hidden = w.failure === null;
  byId("back-failure").textContent = w.failure || "";
  byId("way-label").hidden = WAYS.length < 2;
  const blocks = w.blocks.map((b) => (b ? `a_${b}` : "a"));
  const here = blocks.map((name) => `‖${name}‖ = ${fmt(w.norms[name][row], 5)}`).join(", ");
  byId("back-headline").innerHTML = `t = <b>${fmt(w.t[row], 7)}</b>, row ${row + 1} of ${w.t.length}: ${here}`;
  const slider = byId("back-slider");
  slider.max = w.t.length - 1;
  slider.value = row;
  slider.setAttribute("aria-valuetext", `t = ${fmt(w.t[row], 6)}, ${here}`);
  drawNorms(w, row, x, logx, blocks);
  drawOff(w, row, x, logx);
  drawBackSteps(w, row, x, logx);
  drawVjps(w, row);
}

function pick(frame, w) {
  return (px) => {
    const t = frame.back(px);
    goBack(w.t.reduce((best, own, k) => (Math.abs(own - t) < Math.abs(w.t[best] - t) ? k : best), 0));
  };
}

function drawNorms(w, row, x, logx, blocks) {
  const place = byId("p-a");
  const frame = new Frame(place, {
    x, y: rangeOf(blocks.flatMap((name) => w.norms[name]), true) || [0.1, 1], logx, logy: true, xlabel: "t", ylabel: "RMS",
    label: "The adjoint by block: " + blocks.map((name) => `${name} from ${fmt(w.norms[name][0])} at the end to ${fmt(w.norms[name].at(-1))} at the start`).join("; "),
  });
  frame.upright(w.t[row]);
  const ticks = w.vjps.t.map((t) => `M${frame.px(t).toFixed(1)} ${frame.h - frame.bottom}v-6`).join("");
  frame.parts.push(`<path class="m thin" fill="none" d="${ticks}"/>`);
  blocks.forEach((name, k) => {
    const points = w.t.map((t, j) => [t, w.norms[name][j]]).map(([t, v]) => [t, v > 0 ? v : NaN]);
    frame.line(points, LOOKS[k % 5]);
    if (points.length < 200) frame.dots(points.filter((p) => p[1] > 0), LOOKS[k % 5], 1.8);
    frame.ring(...points[row], 6);
  });
  frame.mount(pick(frame, w));
  byId("k-a").innerHTML = `${blocks.map((name, k) => swatch(LOOKS[k % 5], `‖${name}‖`)).join(" ")} <span>ticks below: every VJP; the walk runs from the right to the left.</span>`;
}

function drawOff(w, row, x, logx) {
  const names = Object.keys(w.norms).filter((name) => name.startsWith("off"));
  byId("s-off").hidden = !names.length;
  if (!names.length) return;
  const lost = w.given_up, values = names.flatMap((name) => [...w.norms[name], ...(lost ? lost.norms[name] : [])]);
  const most = w.allowed ? Math.max(...w.allowed) * 1e6 : Infinity;
  const frame = new Frame(byId("p-off"), {
    x, y: rangeOf([...values.filter((v) => v < most), ...(w.allowed || [])], true) || [1e-9, 1], logx, logy: true, xlabel: "t", ylabel: "RMS",
    label: "Distance of the rebuilt state from the forward one: " + names.map((name) => `${name} ${fmt(w.norms[name].at(-1))} at the start`).join("; "),
  });
  frame.upright(w.t[row]);
  if (w.allowed) frame.line(w.t.map((t, j) => [t, w.allowed[j]]), "here dash");
  names.forEach((name, k) => {
    const at = (own) => own.t.map((t, j) => [t, own.norms[name][j] > 0 ? own.norms[name][j] : NaN]);
    if (lost) frame.line(at(lost), `${LOOKS[k % 5]} thin faint`);
    frame.line(at(w), LOOKS[k % 5]);
    frame.ring(...at(w)[row], 6);
  });
  frame.mount(pick(frame, w));
  byId("k-off").innerHTML = `${names.map((name, k) => swatch(LOOKS[k % 5], name.slice(4) ? `block ${esc(name.slice(4))}` : "difference")).join(" ")} <span>dashed: atol + rtol·‖z‖.</span>${lost ? " <span>faint: the walk that was given up.</span>" : ""}`;
}

function drawBackSteps(w, row, x, logx) {
  const s = w.steps, forward = rowsOf.get(samples[0]), at = (t, dt) => [t + dt / 2, Math.abs(dt)];
  const sizes = [...forward.map((i) => Math.abs(C.dt[i])), ...s.dt.map(Math.abs)];
  const frame = new Frame(byId("p-bsteps"), { x, y: rangeOf(sizes, true) || [0.1, 1], logx, logy: true, xlabel: "t", ylabel: "|dt|", label: `Steps forward ${forward.length}, back ${s.t.length}` });
  frame.upright(w.t[row]);
  const own = forward.filter((i) => C.accepted[i]).map((i) => at(C.t[i], C.dt[i]));
  frame.line(own, "m thin");
  const taken = [], lost = [];
  s.t.forEach((t, j) => (s.accepted[j] ? taken : lost).push(at(t, s.dt[j])));
  frame.line(taken, "a");
  if (taken.length < 300) frame.dots(taken, "a", 1.8);
  frame.crosses(lost, "b");
  frame.mount(pick(frame, w));
  byId("k-bsteps").innerHTML = [swatch("m", "forward"), swatch("a", "back"), lost.length ? swatch("b", `rejected (${lost.length})`) : ""].join(" ");
}

function drawVjps(w, row) {
  const own = vjpsOf(w, row), names = w.blocks.map((b) => (b ? `a<sub>${esc(b)}</sub>` : "a"));
  const place = byId("v-table");
  if (!own.length) place.innerHTML = `<caption>${row === 0 ? "The end: the cotangent of the loss, no VJP yet." : "No VJP was kept for this step."}</caption>`;
  else {
    table(place, ["VJP", "t", ...names.map((n) => `‖${n}‖`), ...names.map((n) => `‖(∂f/∂z)ᵀa‖, ${n.replace("a", "")}`.replace(/, $/, ""))],
      own.map(([, k]) => [k + 1, fmt(w.vjps.t[k], 6), ...w.vjps.cotangent[k].map((v) => fmt(v)), ...w.vjps.product[k].map((v) => fmt(v))]));
  }
  const cells = w.labels.flatMap((labels, k) => labels.map((name, j) => [esc(name), fmt(w.a[row][k][j], 7)]));
  table(byId("a-table"), [`entry${w.entries > w.labels[0].length ? ` (${w.labels[0].length} of ${w.entries} a block)` : ""}`, `dL/dz at t = ${fmt(w.t[row], 6)}`], cells);
}
