// The attempts over time or by number, and the samples' steps on one clock.

const X_CHOICES = { t: "over t", log: "over log t", n: "by attempt" };

function timeX(i) {
  return state.xaxis === "n" ? C.number[i] : C.t[i] + C.dt[i] / 2;
}

function drawTimeline() {
  const i = state.i, own = rowsOf.get(state.sample), logx = state.xaxis === "log";
  const xs = own.map(timeX), shown = logx ? xs.filter((x) => x > 0) : xs;
  const x = rangeOf(shown, logx, 0.02) || [0, 1];
  const ratios = own.filter((k) => Number.isFinite(C.error_ratio[k]) && C.error_ratio[k] > 0);
  const place = byId("p-time");
  place.innerHTML = '<div id="p-dt"></div>' + (ratios.length ? '<div id="p-ratio"></div>' : "");
  const xlabel = state.xaxis === "n" ? "attempt" : "t (middle of the attempt)";
  const sizes = own.map((k) => Math.abs(C.dt[k]));
  const accepted = own.filter((k) => C.accepted[k]), refused = own.filter((k) => !C.accepted[k] && !C.newton[k]);
  const unsolved = own.filter((k) => C.newton[k]);
  const high = place.clientWidth > 700 ? [190, 160] : [160, 150];
  const top = new Frame(byId("p-dt"), {
    high: high[0], left: 64, x, y: rangeOf(sizes, true) || [0.1, 1], logx, logy: true, xlabel: ratios.length ? "" : xlabel, ylabel: "|dt|",
    label: `Step sizes of ${own.length} attempts, ${accepted.length} accepted, from ${fmt(Math.min(...sizes))} to ${fmt(Math.max(...sizes))}`,
  });
  const at = (value) => (k) => [timeX(k), value(k)];
  const size = (k) => Math.abs(C.dt[k]);
  top.upright(timeX(i));
  top.line(accepted.map(at(size)), "a thin faint");
  top.dots(accepted.map(at(size)), "a", accepted.length > 400 ? 1.2 : 2);
  top.crosses(refused.map(at(size)), "b");
  top.crosses(unsolved.map(at(size)), "d");
  top.ring(timeX(i), size(i));
  top.mount((px, py) => go(nearest(top, own, at(size), px, py)));
  const keys = [swatch("a", "accepted")];
  if (refused.length) keys.push(swatch("b", "rejected (×)"));
  if (unsolved.length) keys.push(swatch("d", "Newton’s iteration failed (×)"));
  byId("k-time").innerHTML = `${keys.join(" ")} <span>Click an attempt to go there.</span>`;
  if (!ratios.length) return;
  const value = (k) => C.error_ratio[k];
  const low = new Frame(byId("p-ratio"), {
    high: high[1], left: 64, x, y: rangeOf([...ratios.map(value).map((v) => Math.max(v, 1e-6)), 1.5], true), logx, logy: true, xlabel, ylabel: "error ratio",
    label: "Error ratios; an attempt is accepted where it is at most 1",
  });
  low.upright(timeX(i));
  low.level(1, "here dash");
  low.dots(accepted.map(at(value)), "a", accepted.length > 400 ? 1.2 : 2);
  low.crosses(refused.map(at(value)), "b");
  low.crosses(unsolved.map(at(value)), "d");
  low.ring(timeX(i), value(i));
  low.mount((px, py) => go(nearest(low, own, at(value), px, py)));
}

function nearest(frame, rows, at, px, py) {
  let best = rows[0], least = Infinity;
  for (const k of rows) {
    const [x, y] = at(k), a = frame.px(x) - px, b = Number.isFinite(y) ? frame.py(y) - py : 200, d = a * a + 0.15 * b * b;
    if (d < least) { least = d; best = k; }
  }
  return best;
}

function drawSamples() {
  byId("s-samples").hidden = !isMany;
  if (!isMany) return;
  const place = byId("p-samples"), n = samples.length;
  const ends = C.t.map((t, i) => t + C.dt[i]);
  const count = samples.map((b) => [rowsOf.get(b).filter((i) => C.accepted[i]).length, rowsOf.get(b).filter((i) => !C.accepted[i]).length]);
  const frame = new Frame(place, {
    high: 60 + Math.max(12, Math.min(24, 480 / n)) * n, left: 64,
    x: rangeOf([...C.t, ...ends], false, 0.01), y: [n - 0.5, -0.5], xlabel: "t",
    label: "Steps of each sample: " + samples.map((b, k) => `sample ${b}: ${count[k][0]} accepted, ${count[k][1]} rejected`).join("; "),
  });
  frame.parts = frame.parts.filter((p) => !p.includes('text-anchor="end"'));
  const label = [];
  samples.forEach((b, row) => {
    const bars = [[], []], lost = [], y = frame.py(row), tall = Math.min(14, (frame.height / n) * 0.6);
    let k = 0;
    for (const i of rowsOf.get(b)) {
      if (!C.accepted[i]) { lost.push([C.t[i] + C.dt[i], row]); continue; }
      const a = frame.px(C.t[i]), e = frame.px(ends[i]);
      bars[k++ % 2].push(`M${Math.min(a, e).toFixed(1)} ${(y - tall / 2).toFixed(1)}h${Math.abs(e - a).toFixed(1)}v${tall.toFixed(1)}h${(-Math.abs(e - a)).toFixed(1)}z`);
    }
    const look = b === state.sample ? "fa" : "fm";
    frame.parts.push(`<path class="${look}" opacity=".85" d="${bars[0].join("")}"/><path class="${look}" opacity=".45" d="${bars[1].join("")}"/>`);
    frame.crosses(lost, "b", 2.5);
    label.push(`<text class="${b === state.sample ? "fink" : ""}" x="${frame.left - 6}" y="${(y + 4).toFixed(1)}" text-anchor="end">${b}</text>`);
  });
  const i = state.i, row = samples.indexOf(state.sample), a = frame.px(C.t[i]), e = frame.px(ends[i]);
  frame.parts.push(`<rect class="here" x="${Math.min(a, e) - 1}" y="${frame.py(row) - 10}" width="${Math.max(3, Math.abs(e - a)) + 2}" height="20"/>`);
  frame.upright(C.t[i], "m dash thin");
  frame.label += ".";
  frame.parts.push("</g><g>", ...label);
  frame.mount((px, py) => {
    const which = Math.max(0, Math.min(n - 1, Math.round((py - frame.top) / (frame.height / n) - 0.5)));
    const t = frame.back(px), own = rowsOf.get(samples[which]);
    go(own.reduce((best, k) => (Math.abs(C.t[k] + C.dt[k] / 2 - t) < Math.abs(C.t[best] + C.dt[best] / 2 - t) ? k : best)));
  });
}
