// Axes, lines, points and arrows as SVG text.

function niceStep(span, n) {
  const raw = span / n, power = 10 ** Math.floor(Math.log10(raw)), m = raw / power;
  return power * (m < 1.5 ? 1 : m < 3.5 ? 2 : m < 7.5 ? 5 : 10);
}

function ticksOf(low, high, n) {
  if (!(high > low)) return [low];
  const step = niceStep(high - low, n), found = [];
  for (let k = Math.ceil(low / step - 1e-9); k <= high / step + 1e-9 && found.length < 40; k++) found.push(k * step);
  return found;
}

function logTicks(low, high) {
  if (high / low < 200) {
    const near = [];
    for (let k = Math.floor(Math.log10(low)); k <= Math.log10(high); k++) for (const m of [1, 2, 5]) near.push(m * 10 ** k);
    const own = near.filter((t) => t >= low && t <= high);
    return own.length > 1 ? own : ticksOf(low, high, 4).filter((t) => t > 0);
  }
  const a = Math.ceil(Math.log10(low) - 1e-9), b = Math.floor(Math.log10(high) + 1e-9), found = [];
  const every = Math.max(1, Math.ceil((b - a) / 6));
  for (let k = a; k <= b; k += every) found.push(10 ** k);
  return found;
}

const superscript = (n) => [...String(n)].map((c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]).join("");
function tickText(value, log, step) {
  if (log) {
    const e = Math.log10(value);
    if (Math.abs(e - Math.round(e)) < 1e-9) return Math.abs(Math.round(e)) <= 2 ? fmt(value) : `10${superscript(Math.round(e))}`;
    return fmt(value, 2);
  }
  if (Math.abs(value) < step * 1e-6) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return fmt(value, Math.min(9, Math.max(2, Math.ceil(Math.log10(size / step)) + 1)));
  return value.toFixed(Math.max(0, Math.min(12, -Math.floor(Math.log10(step) + 1e-9)))).replace("-", "−");
}

// The least and the largest finite value (log: positive), with room around; null where there is none.
function rangeOf(values, log, room = 0.06) {
  let low = Infinity, high = -Infinity;
  for (const v of values) if (Number.isFinite(v) && !(log && v <= 0)) { if (v < low) low = v; if (v > high) high = v; }
  if (low > high) return null;
  if (log) {
    const grow = Math.max((high / low) ** room, 1.15);
    return [low / grow, high * grow];
  }
  const grow = high > low ? room * (high - low) : Math.abs(high) * 0.1 || 1;
  return [low - grow, high + grow];
}

class Frame {
  // place: the element; x, y: [low, high]; label: for who cannot see it.
  constructor(place, { x, y, logx = false, logy = false, xlabel = "", ylabel = "", label = "", high = 0, left = 0, whole = false, equal = false }) {
    this.place = place;
    this.w = Math.max(260, place.clientWidth || 600);
    this.h = high || Math.round(Math.min(this.w * (Number(place.dataset.tall) || 0.6), 460));
    Object.assign(this, { x, y, logx, logy, label, whole });
    this.right = 12; this.top = 12; this.bottom = xlabel ? 36 : 22; this.left = 40;
    if (equal) this.squared();
    const longest = left ? 0 : Math.max(...this.yticks().map(([, words]) => words.length));
    this.left = left || (ylabel ? 24 : 10) + Math.round(7.8 * longest);
    if (equal) this.squared();
    this.parts = [];
    this.axes(xlabel, ylabel);
  }
  get width() { return this.w - this.left - this.right; }
  get height() { return this.h - this.top - this.bottom; }
  squared() {
    const ux = (this.x[1] - this.x[0]) / this.width, uy = (this.y[1] - this.y[0]) / this.height, u = Math.max(ux, uy);
    const fit = ([a, b], n) => { const m = (a + b) / 2, r = (u * n) / 2; return [m - r, m + r]; };
    this.x = fit(this.x, this.width); this.y = fit(this.y, this.height);
  }
  at(v, [a, b], log) { return log ? Math.log(v / a) / Math.log(b / a) : (v - a) / (b - a); }
  px(v) { return this.left + this.at(v, this.x, this.logx) * this.width; }
  py(v) { return this.h - this.bottom - this.at(v, this.y, this.logy) * this.height; }
  back(px) {
    const s = (px - this.left) / this.width, [a, b] = this.x;
    return this.logx ? a * (b / a) ** s : a + s * (b - a);
  }
  yticks() {
    const ys = this.logy ? logTicks(...this.y) : ticksOf(...this.y, Math.max(3, this.height / 48));
    const step = ys.length > 1 ? ys[1] - ys[0] : Math.abs(ys[0]) || 1;
    return ys.map((t) => [t, tickText(t, this.logy, step)]);
  }
  axes(xlabel, ylabel) {
    const { left, top, w, h, right, bottom } = this, P = this.parts;
    let xs = this.logx ? logTicks(...this.x) : ticksOf(...this.x, Math.max(3, this.width / 90));
    if (this.whole) xs = xs.filter((t) => Number.isInteger(t));
    const stepOf = (t) => (t.length > 1 ? t[1] - t[0] : Math.abs(t[0]) || 1);
    for (const [t, words] of this.yticks()) {
      const y = this.py(t).toFixed(1);
      P.push(`<line class="gridline" x1="${left}" x2="${w - right}" y1="${y}" y2="${y}"/>`);
      P.push(`<text x="${left - 6}" y="${+y + 4}" text-anchor="end">${words}</text>`);
    }
    for (const t of xs) {
      const x = this.px(t).toFixed(1);
      P.push(`<line class="gridline" y1="${top}" y2="${h - bottom}" x1="${x}" x2="${x}"/>`);
      P.push(`<text x="${x}" y="${h - bottom + 15}" text-anchor="middle">${tickText(t, this.logx, stepOf(xs))}</text>`);
    }
    P.push(`<rect class="axis" x="${left}" y="${top}" width="${this.width}" height="${this.height}"/>`);
    P.push(`<text class="ink" x="${left + this.width / 2}" y="${h - 4}" text-anchor="middle">${esc(xlabel)}</text>`);
    P.push(`<text class="ink" transform="translate(12 ${top + this.height / 2}) rotate(-90)" text-anchor="middle">${esc(ylabel)}</text>`);
    const id = (this.clip = `clip-${this.place.id}`);
    P.push(`<clipPath id="${id}"><rect x="${left}" y="${top}" width="${this.width}" height="${this.height}"/></clipPath>`);
    P.push(`<g clip-path="url(#${id})">`);
  }
  far(v) { return Math.max(-2e4, Math.min(2e4, v)); }
  line(points, look, closed = false) {
    let text = "", up = true;
    for (const [x, y] of points) {
      const a = this.far(this.px(x)), b = this.far(this.py(y));
      if (!Number.isFinite(a) || !Number.isFinite(b)) { up = true; continue; }
      text += `${up ? "M" : "L"}${a.toFixed(1)} ${b.toFixed(1)}`;
      up = false;
    }
    if (text) this.parts.push(`<path class="line ${look}" d="${text}${closed ? "Z" : ""}"/>`);
  }
  inside(x, y) {
    const a = this.px(x), b = this.py(y);
    return Number.isFinite(a) && Number.isFinite(b) && Math.abs(a) < 2e4 && Math.abs(b) < 2e4;
  }
  dot(x, y, look, r = 3) {
    if (this.inside(x, y)) this.parts.push(`<circle class="${look}" cx="${this.px(x).toFixed(1)}" cy="${this.py(y).toFixed(1)}" r="${r}"/>`);
  }
  dots(points, look, r = 2) {
    const d = points.filter(([x, y]) => this.inside(x, y)).map(([x, y]) => `M${this.px(x).toFixed(1)} ${this.py(y).toFixed(1)}h0`).join("");
    if (d) this.parts.push(`<path class="${look}" style="stroke-width:${2 * r};stroke-linecap:round;fill:none" d="${d}"/>`);
  }
  crosses(points, look, r = 3.5) {
    const d = points.filter(([x, y]) => this.inside(x, y)).map(([x, y]) => {
      const a = this.px(x), b = this.py(y);
      return `M${(a - r).toFixed(1)} ${(b - r).toFixed(1)}l${2 * r} ${2 * r}m0 ${-2 * r}l${-2 * r} ${2 * r}`;
    }).join("");
    if (d) this.parts.push(`<path class="${look}" style="stroke-width:1.8;fill:none" d="${d}"/>`);
  }
  ring(x, y, r = 7) { if (this.inside(x, y)) this.parts.push(`<circle class="here" cx="${this.px(x).toFixed(1)}" cy="${this.py(y).toFixed(1)}" r="${r}"/>`); }
  upright(x, look = "here dash") { this.parts.push(`<line class="${look}" x1="${this.px(x).toFixed(1)}" x2="${this.px(x).toFixed(1)}" y1="${this.top}" y2="${this.h - this.bottom}"/>`); }
  level(y, look) { this.parts.push(`<line class="${look}" y1="${this.py(y).toFixed(1)}" y2="${this.py(y).toFixed(1)}" x1="${this.left}" x2="${this.w - this.right}"/>`); }
  arrow(x, y, dx, dy, look, fill) {
    const a = this.px(x), b = this.py(y), u = this.px(x + dx) - a, v = this.py(y + dy) - b, n = Math.hypot(u, v);
    if (!(n > 0.5) || !this.inside(x, y) || n > 2e4) return;
    const s = Math.min(8, n * 0.6), p = u / n, q = v / n, ex = a + u, ey = b + v;
    const f = (z) => z.toFixed(1);
    this.parts.push(`<path class="line ${look}" d="M${f(a)} ${f(b)}L${f(ex - p * s * 0.6)} ${f(ey - q * s * 0.6)}"/>`);
    this.parts.push(`<path class="${fill}" d="M${f(ex)} ${f(ey)}L${f(ex - s * p - s * 0.45 * q)} ${f(ey - s * q + s * 0.45 * p)}L${f(ex - s * p + s * 0.45 * q)} ${f(ey - s * q - s * 0.45 * p)}Z"/>`);
  }
  text(x, y, words, { dx = 6, dy = -6, anchor = "start", look = "ink" } = {}) {
    if (this.inside(x, y)) this.parts.push(`<text class="${look}" x="${(this.px(x) + dx).toFixed(1)}" y="${(this.py(y) + dy).toFixed(1)}" text-anchor="${anchor}">${esc(words)}</text>`);
  }
  mount(pick) {
    const svg = `<svg viewBox="0 0 ${this.w} ${this.h}" role="img" aria-label="${esc(this.label)}">${this.parts.join("")}</g>` +
      (pick ? `<rect class="hit" x="${this.left}" y="${this.top}" width="${this.width}" height="${this.height}"/>` : "") + "</svg>";
    this.place.innerHTML = svg;
    if (pick) {
      this.place.querySelector(".hit").addEventListener("click", (event) => {
        const box = this.place.firstChild.getBoundingClientRect(), s = this.w / box.width;
        pick((event.clientX - box.left) * s, (event.clientY - box.top) * s);
      });
    }
  }
}

function table(place, header, rows, here = () => false) {
  const cell = (tag) => (text) => `<${tag}>${text}</${tag}>`;
  place.innerHTML = `<thead><tr>${header.map((h) => `<th scope="col">${h}</th>`).join("")}</tr></thead><tbody>` +
    rows.map((row, i) => `<tr${here(i) ? ' class="here"' : ""}>${row.map(cell("td")).join("")}</tr>`).join("") + "</tbody>";
}
const swatch = (look, words) => `<span class="sw"><i class="sw${look}"></i>${words}</span>`;
