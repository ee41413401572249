// What is shown, and the keys.

const byId = (id) => document.getElementById(id);
const state = {
  i: 0, sample: samples[0], xaxis: D.words.log_time ? "log" : "t", zoom: "step", theta: 0.5, c: 0, every: false, way: 0, row: 0,
  plane: [Math.min(D.words.plane[0], W - 1), Math.min(D.words.plane[1], W - 1)],
};
if (state.plane[0] === state.plane[1] && W > 1) state.plane = [0, 1];

function go(i) {
  state.i = Math.max(0, Math.min(N - 1, i));
  if (isMany) state.sample = C.sample[state.i];
  draw();
  say();
}
function move(by) {
  const own = rowsOf.get(state.sample), at = own.indexOf(state.i);
  go(own[Math.max(0, Math.min(own.length - 1, at + by))]);
}
function nextRejected() {
  const own = rowsOf.get(state.sample), at = own.indexOf(state.i);
  const order = [...own.slice(at + 1), ...own.slice(0, at + 1)];
  const found = order.find((i) => !C.accepted[i]);
  if (found === undefined) byId("live").textContent = "No attempt was rejected.";
  else go(found);
}
function goSample(b) {
  const own = rowsOf.get(b), t = C.t[state.i];
  go(own.reduce((best, k) => (Math.abs(C.t[k] - t) < Math.abs(C.t[best] - t) ? k : best)));
}
function goBack(row) {
  state.row = Math.max(0, Math.min(way().t.length - 1, row));
  drawBack();
  byId("back-live").textContent = byId("back-headline").textContent;
}

// One sentence on the attempt: above the slider, and for who listens.
function sentence(i) {
  const whose = isMany ? `sample ${C.sample[i]}, ` : "";
  const ratio = C.error_ratio[i] === null ? "" : `, error ratio ${fmt(C.error_ratio[i])}`;
  return `Attempt ${C.number[i]} of ${D.all}, ${whose}${word(i)}: t = ${fmt(C.t[i], 7)}, dt = ${fmt(C.dt[i], 5)}${ratio}, then |dt| × ${fmt(C.factor[i])}.`;
}
let timer = 0;
function say() {
  clearTimeout(timer);
  timer = setTimeout(() => { byId("live").textContent = sentence(state.i); }, 150);
  try { history.replaceState(null, "", `#attempt=${C.number[state.i]}`); } catch { /* a page in a frame has no address */ }
}

function drawHead() {
  const i = state.i, own = rowsOf.get(state.sample), slider = byId("slider");
  slider.max = own.length - 1;
  slider.value = own.indexOf(i);
  slider.setAttribute("aria-valuetext", sentence(i));
  const good = C.accepted[i] ? "yes" : "no";
  byId("headline").innerHTML = `Attempt <b>${C.number[i]}</b> of ${D.all}, ${isMany ? `sample <b>${C.sample[i]}</b>, ` : ""}<b class="${good}">${word(i)}</b>` +
    `${names.length > 1 ? ` by <b>${esc(method(i).name)}</b>` : ""}: t = <b>${fmt(C.t[i], 7)}</b>, dt = <b>${fmt(C.dt[i], 5)}</b>` +
    `${C.error_ratio[i] === null ? "" : `, error ratio <b class="${good}">${fmt(C.error_ratio[i])}</b>`}, nfe ${C.nfe[i]}`;
  if (isMany) byId("sample").value = String(state.sample);
}

function drawChoices() {
  const choice = (place, items, now, set) => {
    byId(place).innerHTML = Object.entries(items).map(([key, words]) => `<button type="button" data-key="${key}" aria-pressed="${key === now}">${words}</button>`).join("");
    byId(place).onclick = (event) => {
      const key = event.target.dataset.key;
      if (!key) return;
      set(key);
      draw();
      byId(place).querySelector(`[data-key="${key}"]`).focus();
    };
  };
  const items = { ...X_CHOICES };
  if (!C.t.some((t) => t > 0)) delete items.log;
  choice("x-choice", items, state.xaxis, (key) => { state.xaxis = key; });
  for (const place of ["zoom-choice", "span-choice"]) {
    choice(place, { step: "this step", whole: "all of it" }, state.zoom, (key) => { state.zoom = key; });
  }
}

function draw() {
  drawHead(); drawChoices(); drawTimeline(); drawSamples(); drawPlane(); drawInside(); drawError(); drawControl();
  drawStability(); drawNewton(); drawStages(); drawBack();
}

function options(id, items, now, set) {
  byId(id).innerHTML = items.map(([value, words]) => `<option value="${value}"${value === now ? " selected" : ""}>${esc(words)}</option>`).join("");
  byId(id).addEventListener("change", (event) => { set(Number(event.target.value)); draw(); });
}

function begin() {
  byId("title").textContent = D.words.title;
  byId("equation").textContent = [D.words.equation, D.words.source].filter(Boolean).join(" — ");
  const left = D.all - N;
  byId("facts").innerHTML = `<b>${esc(D.method)}</b>, rtol ${esc(D.rtol)}, atol ${esc(D.atol)}${isMany ? `, ${samples.length} samples with steps of their own` : ""}: ` +
    `${esc(D.status)}${D.counts ? `, ${esc(D.counts)}` : ""}.${left > 0 ? ` ${N} of the ${D.all} attempts are in this page.` : ""}`;
  byId("failure").hidden = D.failure === null;
  byId("failure").textContent = D.failure || "";
  byId("made").textContent = "Made by adamode. All numbers are those of the solve; nothing is fetched.";
  const components = D.labels.map((name, c) => [c, name]);
  options("plane-x", components, state.plane[0], (c) => { state.plane[0] = c; });
  options("plane-y", components, state.plane[1], (c) => { state.plane[1] = c; });
  options("inside-c", components, state.c, (c) => { state.c = c; });
  options("way", WAYS.map((w, k) => [k, w.gradient]), 0, (k) => { state.way = k; state.row = 0; });
  byId("sample-label").hidden = !isMany;
  if (isMany) {
    byId("sample").innerHTML = samples.map((b) => `<option value="${b}">${b}</option>`).join("");
    byId("sample").addEventListener("change", (event) => goSample(Number(event.target.value)));
  }
  byId("slider").addEventListener("input", (event) => go(rowsOf.get(state.sample)[Number(event.target.value)]));
  byId("back-slider").addEventListener("input", (event) => goBack(Number(event.target.value)));
  byId("theta").addEventListener("input", (event) => { state.theta = Number(event.target.value) / 100; drawInside(); });
  byId("every-z").addEventListener("change", (event) => { state.every = event.target.checked; drawStability(); });
  const ways = { first: () => move(-N), back: () => move(-1), on: () => move(1), last: () => move(N), rejected: nextRejected };
  document.querySelectorAll("[data-go]").forEach((b) => b.addEventListener("click", () => ways[b.dataset.go]()));
  document.querySelectorAll("[data-back]").forEach((b) => b.addEventListener("click", () => goBack(state.row + Number(b.dataset.back))));
  byId("theme").addEventListener("click", turnTheme);
  document.addEventListener("keydown", onKey);
  let wait = 0, width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; clearTimeout(wait); wait = setTimeout(draw, 120); } });
  const asked = /attempt=(\d+)/.exec(location.hash), i = asked ? C.number.indexOf(Number(asked[1])) : -1;
  if (D.failure !== null) { state.i = N - 1; state.sample = isMany ? C.sample[N - 1] : null; }  // where it stopped
  if (i >= 0) { state.i = i; if (isMany) state.sample = C.sample[i]; }
  draw();
}

function turnTheme() {
  const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = root.dataset.theme || (dark ? "dark" : "light"), next = now === "dark" ? "light" : "dark";
  root.dataset.theme = next;
  byId("live").textContent = `${next} theme`;
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  if (event.target.closest(".scroll") && event.key.startsWith("Arrow")) return;
  const by = event.shiftKey ? 10 : 1, turn = (k) => isMany && goSample(samples[Math.max(0, Math.min(samples.length - 1, samples.indexOf(state.sample) + k))]);
  const keys = {
    ArrowRight: () => move(by), ArrowLeft: () => move(-by), Home: () => move(-N), End: () => move(N), r: nextRejected, R: nextRejected,
    t: turnTheme, T: turnTheme, z: zoomed, Z: zoomed, ",": () => WAYS.length && goBack(state.row - 1), ".": () => WAYS.length && goBack(state.row + 1),
    ...(isMany ? { ArrowDown: () => turn(1), ArrowUp: () => turn(-1) } : {}),
  };
  if (!keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
}
function zoomed() {
  state.zoom = state.zoom === "step" ? "whole" : "step";
  draw();
}

window.explorer = { data: D, state, go, goBack, y0, y1, error, scale, slope, dense, stagePoint, growth, ownRatio, sentence, vjpsOf };
begin();
