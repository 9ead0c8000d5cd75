// The live token view. Text from models only ever becomes textContent; what needs every token of a long rollout again is the choice of
// a column, of a filter, or of a rollout, and nothing else.

const MARK = {correct: "✓", incorrect: "✗", unverifiable: "?", "": "·"};
const PHASE = {before: "before any error", first_error: "the first error", after: "after the first error", "": "not judged"};
const SVG = "http://www.w3.org/2000/svg";
let views = 0;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function draw(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function signed(value) {
  if (!Number.isFinite(value)) return value > 0 ? "+∞" : "−∞";
  if (value === 0) return "0";
  const digits = Math.abs(value) >= 0.005 ? value.toFixed(2) : value.toPrecision(1);
  return (value > 0 ? "+" : "") + digits.replace("-", "−");
}

const percent = (logprob) => (100 * Math.exp(logprob)).toPrecision(3).replace(/\.?0+$/, "").replace(/^.*e.*$/, (100 * Math.exp(logprob)).toExponential(1)) + " %";

function colour(value, scale, stops) {
  const ramp = value >= 0 ? stops.above : stops.below;
  const place = Math.min(Math.abs(value) / scale, 1) * (ramp.length - 1);
  const left = Math.min(Math.floor(place), ramp.length - 2);
  const channel = (hex, i) => parseInt(hex.slice(1 + 2 * i, 3 + 2 * i), 16);
  const mixed = [0, 1, 2].map((i) => Math.round(channel(ramp[left], i) + (channel(ramp[left + 1], i) - channel(ramp[left], i)) * (place - left)));
  return `rgb(${mixed.join(",")})`;
}

// A column's numbers; what JSON cannot hold comes as the text "Infinity" or "-Infinity".
const numbers = (values) => values.map(Number);

class Panel {
  constructor(view, index, name) {
    Object.assign(this, {view, index, name, at: null, pinned: null});
    this.heading = make("h3");
    this.list = make("div", {class: "tokens", role: "listbox", tabindex: "0", translate: "no", dir: "ltr"});
    this.curve = draw("svg", {class: "curve", role: "img", preserveAspectRatio: "none"});
    this.caption = make("div", {class: "caption"});
    this.element = make("div", {class: "panel"}, this.heading, this.list, this.curve, this.caption);
    this.list.addEventListener("mouseover", (event) => this.on(event, (i) => view.preview(this, i, false)));
    this.list.addEventListener("mouseleave", () => view.preview(this, this.pinned ?? this.at, false));
    this.list.addEventListener("click", (event) => this.on(event, (i) => view.pin(this, i)));
    this.list.addEventListener("keydown", (event) => this.key(event));
    this.list.addEventListener("focus", () => { if (this.at === null) view.preview(this, 0, true); });
    for (const kind of ["mousemove", "click"]) {
      this.curve.addEventListener(kind, (event) => {
        const box = this.curve.getBoundingClientRect();
        const i = Math.max(0, Math.min(this.length - 1, Math.floor(((event.clientX - box.left) / box.width) * this.length)));
        if (kind === "click") view.pin(this, i, true);
        else view.preview(this, i, true);
      });
    }
  }

  on(event, act) {
    const token = event.target.closest("[data-i]");
    if (token) act(Number(token.dataset.i));
  }

  show(data) {
    this.data = data;
    this.length = data ? data.token.length : 0;
    this.at = this.pinned = null;
    this.tokens = [];
    const {about, names} = this.view;
    const title = this.name || about.rollouts.find((r) => r.number === this.view.rollout).title;
    this.heading.replaceChildren();
    if (names.length > 1) {
      const select = make("select", {"aria-label": `table of panel ${this.index + 1}`}, ...names.map((n) => make("option", {value: n, selected: n === this.name}, n)));
      select.addEventListener("change", () => { this.name = select.value; this.view.refresh(); });
      this.heading.append(select);
    } else this.heading.append(make("bdi", {}, title));
    this.list.setAttribute("aria-label", `tokens of ${title}`);
    this.curve.style.display = data ? "" : "none";
    if (!data) {
      this.list.replaceChildren("this table does not have the rollout");
      this.heading.append("");
      return this.caption.replaceChildren();
    }
    const whole = document.createDocumentFragment();
    let holder = whole, open = null;
    data.shown.forEach((text, i) => {
      const step = data.step[i];
      if (step !== open) {
        holder = step < 0 ? whole : this.band(i);
        if (step >= 0) whole.append(holder);
        open = step;
      }
      const token = make("span", {class: "t", role: "option", id: `${this.view.id}-${this.index}-${i}`, "data-i": String(i), "aria-selected": "false"});
      token.textContent = text;
      this.tokens.push(token);
      holder.append(token);
      for (let n = 0; n < data.breaks[i]; n++) holder.append(make("br"));
    });
    this.list.replaceChildren(whole);
    this.list.scrollTop = 0;
    this.paint();
  }

  band(i) {
    const {data} = this, step = data.step[i], label = data.label[i];
    const inside = data.step.map((s, j) => (s === step ? j : -1)).filter((j) => j >= 0);
    const chip = make("span", {class: "chip", "aria-hidden": "true"});
    const group = make("span", {class: `step ${label}`, role: "group"}, chip);
    this.bands = i === 0 || !this.bands || this.bands.data !== data ? Object.assign([], {data}) : this.bands;
    this.bands.push({step, label, phase: data.error_phase[i], source: data.source_shown[i], inside, chip, group});
    return group;
  }

  paint() {
    const {data, view} = this;
    if (!data) return;
    const about = view.about.columns[view.column], values = (this.values = numbers(data[view.column] ?? data.numbers[view.column]));
    let shown = 0;
    this.tokens.forEach((token, i) => {
      token.style.background = colour(values[i], about.scale, view.about.stops);
      token.classList.toggle("beyond", Math.abs(values[i]) > about.scale * (1 + 1e-9));
      token.classList.toggle("masked", data.weight[i] === 0);
      const kept = view.keeps(data, i);
      token.classList.toggle("dim", !kept);
      shown += kept;
    });
    for (const band of (this.bands && this.bands.data === data ? this.bands : [])) {
      const total = band.inside.reduce((sum, i) => sum + values[i], 0);
      const verdict = `step ${band.step + 1} ${MARK[band.label]} ${band.label || "not judged"}${band.source ? ` (${band.source})` : ""}`;
      const phase = band.phase === "before" || !band.phase ? "" : `, ${PHASE[band.phase]}`;
      band.chip.textContent = `${verdict}${phase}, Σ ${signed(total)}, mean ${signed(total / band.inside.length)}`;
      band.group.setAttribute("aria-label", band.chip.textContent);
    }
    this.count = shown;
    this.plot(about);
  }

  plot(about) {
    const {values, length, data, view} = this, high = 84;
    this.curve.setAttribute("viewBox", `0 0 ${length} ${high}`);
    const y = (value) => (about.signed ? 38 - 34 * Math.max(-1, Math.min(1, value / about.scale)) : 72 - 68 * Math.max(0, Math.min(1, value / about.scale)));
    const line = values.map((value, i) => `${i + 0.5},${y(value).toFixed(2)}`).join(" ");
    const bands = (this.bands && this.bands.data === data ? this.bands : []).map((band) =>
      draw("line", {x1: band.inside[0], x2: band.inside[band.inside.length - 1] + 1, y1: 80, y2: 80, "stroke-width": 4, "vector-effect": "non-scaling-stroke",
        stroke: band.label === "incorrect" ? "#86198f" : "#1f2937", "stroke-dasharray": {correct: "none", incorrect: "6 3"}[band.label] || "2 3"}));
    const zero = y(0);
    this.here = draw("line", {y1: 0, y2: high, stroke: "#111111", "stroke-width": 1.5, "vector-effect": "non-scaling-stroke", visibility: "hidden"});
    this.fixed = draw("line", {y1: 0, y2: high, stroke: "#0b57a4", "stroke-width": 3, "vector-effect": "non-scaling-stroke", visibility: "hidden"});
    this.curve.replaceChildren(
      draw("line", {x1: 0, x2: length, y1: zero, y2: zero, stroke: "#6b7280", "stroke-width": 1, "vector-effect": "non-scaling-stroke"}),
      draw("polyline", {points: line, fill: "none", stroke: "#0072B2", "stroke-width": 1.3, "vector-effect": "non-scaling-stroke"}),
      ...bands, this.fixed, this.here);
    const range = about.signed ? `−${about.scale} to +${about.scale}` : `0 to ${about.scale}`;
    this.curve.setAttribute("aria-label", `${about.meaning} by position, ${length} tokens, drawn from ${range}`);
    this.caption.textContent = `${about.meaning} by position, drawn from ${range}${about.unit ? ` ${about.unit}` : ""}; below, the steps`;
    this.mark();
  }

  mark() {
    const place = (line, i) => {
      line.setAttribute("visibility", i === null ? "hidden" : "visible");
      if (i !== null) for (const end of ["x1", "x2"]) line.setAttribute(end, i + 0.5);
    };
    place(this.here, this.at);
    place(this.fixed, this.pinned);
  }

  move(i, scroll) {
    if (!this.data || i === null || i >= this.length) return;
    if (this.at !== null) this.tokens[this.at].classList.remove("at");
    this.at = i;
    const token = this.tokens[i];
    token.classList.add("at");
    this.list.setAttribute("aria-activedescendant", token.id);
    if (scroll) {
      const above = token.offsetTop - 8, below = token.offsetTop + token.offsetHeight + 8;
      if (above < this.list.scrollTop) this.list.scrollTop = above;
      else if (below > this.list.scrollTop + this.list.clientHeight) this.list.scrollTop = below - this.list.clientHeight;
    }
    this.mark();
  }

  hold(i) {
    if (!this.data) return;
    if (this.pinned !== null) {
      this.tokens[this.pinned].classList.remove("pin");
      this.tokens[this.pinned].setAttribute("aria-selected", "false");
    }
    this.pinned = i !== null && i < this.length ? i : null;
    if (this.pinned !== null) {
      this.tokens[this.pinned].classList.add("pin");
      this.tokens[this.pinned].setAttribute("aria-selected", "true");
    }
    this.mark();
  }

  beside(direction) {
    const box = (i) => this.tokens[i].getClientRects()[0] || this.tokens[i].getBoundingClientRect();
    const from = box(this.at), centre = (from.left + from.right) / 2;
    let best = this.at, line = null, distance = Infinity;
    for (let i = this.at + direction; i >= 0 && i < this.length; i += direction) {
      const next = box(i);
      if (Math.abs(next.top - from.top) < 4) continue;
      if (line === null) line = next.top;
      if (Math.abs(next.top - line) > 4) break;
      const off = Math.abs((next.left + next.right) / 2 - centre);
      if (off < distance) [best, distance] = [i, off];
    }
    return best;
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.length) return;
    const at = this.at ?? 0;
    const goto = {
      ArrowRight: () => Math.min(at + 1, this.length - 1), ArrowLeft: () => Math.max(at - 1, 0),
      ArrowDown: () => this.beside(1), ArrowUp: () => this.beside(-1), Home: () => 0, End: () => this.length - 1,
    }[event.key];
    const act = {
      Enter: () => this.view.pin(this, at), " ": () => this.view.pin(this, at), Escape: () => this.view.pin(this, null),
      n: () => this.view.next(this), g: () => this.view.largest(this),
    }[event.key];
    if (!goto && !act) return;
    event.preventDefault();
    event.stopPropagation();
    if (goto) this.view.preview(this, goto(), true, true);
    else act();
  }

  words(i) {
    const {data, view} = this, about = view.about.columns[view.column];
    const step = data.step[i] >= 0 ? `, step ${data.step[i] + 1} ${data.label[i] || "not judged"}` : "";
    return `${data.shown[i]} at position ${data.position[i]}: ${about.meaning} ${signed(this.values[i])} ${about.unit}${step}`;
  }
}

class View {
  constructor(model, root) {
    this.model = model;
    this.id = `opsd-live-${++views}`;
    this.about = JSON.parse(model.get("about"));
    this.names = this.about.names;
    this.column = model.get("column");
    this.off = {labels: new Set(), classes: new Set()};
    this.panels = this.names.slice(0, 2).map((name, i) => new Panel(this, i, name));
    this.status = make("div", {class: "status", role: "status", "aria-live": "polite"});
    this.detail = make("div", {class: "detail", role: "region", "aria-label": "the token in detail"});
    this.legend = make("div", {class: "legend"});
    this.note = make("span", {class: "caption"});
    const panels = make("div", {class: "panels"}, ...this.panels.map((panel) => panel.element));
    root.replaceChildren(make("div", {class: "opsd-live", role: "group", "aria-label": "token view"}, this.bar(), this.legend, panels, this.status, this.detail));
    this.load();
    model.on("change:data", () => this.load());
  }

  bar() {
    const rollouts = make("select", {"aria-label": "rollout"}, ...this.about.rollouts.map((r) => make("option", {value: String(r.number), selected: r.number === this.model.get("rollout")}, r.title)));
    rollouts.addEventListener("change", () => { this.model.set("rollout", Number(rollouts.value)); this.model.save_changes(); });
    const columns = make("select", {"aria-label": "colour by"}, ...Object.keys(this.about.columns).map((name) => make("option", {value: name, selected: name === this.column}, name.replaceAll("_", " "))));
    columns.addEventListener("change", () => { this.column = columns.value; this.repaint(); });
    const button = (text, key, act) => {
      const element = make("button", {type: "button"}, text, ...(key ? [make("kbd", {"aria-hidden": "true"}, key)] : []));
      element.addEventListener("click", act);
      return element;
    };
    const group = (title, kind, names, word) => make("fieldset", {}, make("legend", {}, title), ...names.map((name) => {
      const box = make("input", {type: "checkbox", checked: true});
      box.addEventListener("change", () => { this.off[kind][box.checked ? "delete" : "add"](name); this.repaint(); });
      return make("label", {}, box, word(name));
    }));
    const filters = make("details", {class: "filters"}, make("summary", {}, "filters"),
      group("steps", "labels", this.about.labels, (name) => `${MARK[name]} ${name || "in no step"}`), group("tokens", "classes", this.about.classes, (name) => name));
    const first = () => this.panels.find((panel) => panel.data);
    return make("div", {class: "bar"},
      ...(this.about.rollouts.length > 1 ? [make("label", {}, "rollout", rollouts)] : []),
      make("label", {}, "colour by", columns),
      button("next incorrect step", "n", () => this.next(first())), button("next largest value", "g", () => this.largest(first())),
      button("save page", "", () => this.savePage()), button("save table", "", () => this.saveTable(first())), filters, this.note);
  }

  load() {
    this.rollout = this.model.get("rollout");
    this.data = JSON.parse(this.model.get("data"));
    this.refresh();
  }

  refresh() {
    for (const panel of this.panels) panel.show(this.data[panel.name]);
    const [a, b] = this.panels.map((panel) => panel.data);
    this.linked = Boolean(a && b && a.token_id.length === b.token_id.length && a.token_id.every((id, i) => id === b.token_id[i]));
    this.share(null);
    this.describe();
    this.repaint();
  }

  repaint() {
    const about = this.about.columns[this.column], {below, above} = this.about.stops;
    for (const panel of this.panels) panel.paint();
    const ramp = make("div", {class: "ramp"});
    ramp.style.background = `linear-gradient(to right, ${[...(about.signed ? [...below].reverse() : []), ...above.slice(about.signed ? 1 : 0)].join(", ")})`;
    const ticks = about.signed ? [`−${about.scale}`, "0", `+${about.scale}`] : ["0", String(about.scale)];
    const scale = make("div", {class: "scale"}, make("div", {}, `${about.meaning}${about.unit ? `, ${about.unit}` : ""}`), ramp, make("div", {class: "ticks"}, ...ticks.map((tick) => make("span", {}, tick))));
    const notes = [...(about.signed ? about.ends : about.ends.slice(1)), "black bar under a token: beyond the scale", "struck through: weight 0", "one scale for all panels"];
    if (this.panels.length > 1) notes.push(this.linked ? "panels linked token by token" : "panels not linked: other completions");
    this.legend.replaceChildren(scale, ...notes.map((note) => make("span", {}, note)));
    const shown = this.panels.filter((panel) => panel.data);
    this.note.textContent = shown.map((panel) => `${panel.count.toLocaleString("en")} of ${panel.length.toLocaleString("en")} tokens`).join(" · ");
    this.describe();
  }

  keeps(data, i) {
    return !this.off.labels.has(data.label[i]) && !this.off.classes.has(data.class[i]);
  }

  each(panel, act) {
    for (const other of this.panels) if (other === panel || this.linked) act(other);
  }

  preview(panel, i, scroll, spoken = false) {
    if (i === null || !panel.data) return;
    this.each(panel, (one) => one.move(i, scroll || one !== panel));
    this.active = panel;
    this.status.setAttribute("aria-live", spoken ? "polite" : "off");
    this.status.textContent = panel.words(i);
    if (panel.pinned === null) this.describe();
  }

  pin(panel, i, scroll = false) {
    if (!panel.data) return;
    const held = i !== null && panel.pinned === i ? null : i;
    if (i !== null) this.each(panel, (one) => one.move(i, scroll || one !== panel));
    this.each(panel, (one) => one.hold(held));
    this.active = panel;
    this.share(panel.pinned === null ? null : panel.data.position[panel.pinned]);
    this.status.setAttribute("aria-live", "polite");
    this.status.textContent = held === null ? "nothing is pinned" : `pinned: ${panel.words(held)}`;
    this.describe();
  }

  share(pinned) {
    if (this.model.get("pinned") === pinned) return;
    this.model.set("pinned", pinned);
    this.model.save_changes();
  }

  next(panel) {
    const {data} = panel, from = panel.at ?? -1;
    const starts = data.label.map((label, i) => (label === "incorrect" && this.keeps(data, i) && (i === 0 || data.step[i] !== data.step[i - 1]) ? i : -1)).filter((i) => i >= 0);
    if (!starts.length) { this.status.textContent = "there is no incorrect step"; return; }
    this.preview(panel, starts.find((i) => i > from) ?? starts[0], true, true);
  }

  largest(panel) {
    const order = panel.values.map((_, i) => i).filter((i) => this.keeps(panel.data, i)).sort((a, b) => Math.abs(panel.values[b]) - Math.abs(panel.values[a]) || a - b);
    if (!order.length) { this.status.textContent = "every token is filtered out"; return; }
    // Goes down the ranks while nothing else moves the cursor; from anywhere else it starts with the largest.
    const rank = panel.jumped !== undefined && panel.jumped === panel.at ? order.indexOf(panel.at) : -1;
    panel.jumped = order[(rank + 1) % order.length];
    this.preview(panel, panel.jumped, true, true);
  }

  describe() {
    const panel = this.active && this.active.data ? this.active : this.panels.find((one) => one.data);
    const i = panel ? panel.pinned ?? panel.at : null;
    if (i === null) {
      this.detail.replaceChildren(make("span", {class: "caption"}, "Hover over a token, or move with the arrow keys; click or press Enter to pin it, Esc to let it go. Home and End go to the ends, n to the next incorrect step, g to the next largest value."));
      return;
    }
    const shown = this.linked ? this.panels : [panel];
    this.detail.replaceChildren(make("div", {class: "sides"}, ...shown.map((one) => this.facts(one, i))));
  }

  facts(panel, i) {
    const {data} = panel, value = (name) => Number(data[name][i]);
    const fact = (name, text) => make("span", {}, make("span", {class: "caption"}, `${name} `), text);
    const side = (who) => fact(who, `p ${percent(value(`${who}_logprob`))}, log-prob ${signed(value(`${who}_logprob`))}, rank ${data[`${who}_rank`][i]}, entropy ${value(`${who}_entropy`).toFixed(2)}`);
    const step = data.step[i] < 0 ? "in none" : `${data.step[i] + 1}, ${MARK[data.label[i]]} ${data.label[i] || "not judged"}${data.source_shown[i] ? `, by ${data.source_shown[i]}` : ""}`;
    const head = make("div", {class: "facts"}, ...(panel.name ? [make("strong", {}, panel.name)] : []), make("span", {class: "word"}, data.shown[i]),
      fact("position", String(data.position[i])), fact("id", String(data.token_id[i])), fact("class", data.class[i]), side("student"), side("teacher"),
      fact("gap", `${signed(value("gap"))} nats`), fact("divergence", `${value("divergence").toPrecision(3)} nats`), fact("loss", value("loss").toPrecision(3)),
      fact("weight", String(data.weight[i])), fact("step", step), fact("error", PHASE[data.error_phase[i]]), fact("outcome", data.outcome[i] || "not graded"),
      ...Object.entries(data.extra).map(([name, values]) => fact(name, values[i])));
    if (!data.top) return make("div", {}, head, make("div", {class: "caption"}, "The most probable tokens are not in this table: score the rollouts with top_k=20."));
    return make("div", {}, head, make("div", {class: "lists"}, this.list(panel, i, "student", "teacher"), this.list(panel, i, "teacher", "student")));
  }

  list(panel, i, who, other) {
    const {data} = panel, read = (kind) => data.top[`${who}_top_${kind}`][i];
    const row = (rank, text, logprob, elsewhere, sampled) => {
      const bar = make("span", {class: "meter"});
      bar.style.width = `${(32 * Math.exp(logprob)).toFixed(1)}px`;
      return make("tr", sampled ? {class: "sampled"} : {}, make("td", {}, String(rank)), make("th", {scope: "row"}, make("span", {class: "word"}, text), sampled ? " ◂" : ""),
        make("td", {}, percent(logprob), bar), make("td", {}, signed(logprob)), make("td", {}, signed(elsewhere)));
    };
    const ids = read("ids"), logprobs = numbers(read("logprobs")), elsewhere = numbers(read("elsewhere"));
    const rows = ids.map((id, rank) => row(rank, data.texts[id], logprobs[rank], elsewhere[rank], id === data.token_id[i]));
    if (!ids.includes(data.token_id[i])) rows.push(row(data[`${who}_rank`][i], data.shown[i], Number(data[`${who}_logprob`][i]), Number(data[`${other}_logprob`][i]), true));
    const head = ["rank", "token", "p", "log-prob", `${other}'s`].map((name) => make("th", {scope: "col"}, name));
    return make("div", {tabindex: "0", role: "region", "aria-label": `${who}'s most probable tokens${panel.name ? `, ${panel.name}` : ""}`},
      make("table", {}, make("caption", {}, `the ${who} would write (◂ what was written)`), make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows)));
  }

  save(name, type, text) {
    const link = make("a", {href: URL.createObjectURL(new Blob([text], {type})), download: name});
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  savePage() {
    let page = this.model.get("whole");
    if (!page) {
      page = this.model.get("page");
      const about = {...this.about, rollouts: this.about.rollouts.filter((r) => r.number === this.rollout)};
      const data = {about: JSON.stringify(about), column: this.column, rollout: this.rollout, rollouts: {[this.rollout]: this.model.get("data")}};
      const parts = {style: this.model.get("_css"), script: this.model.get("_esm"), data: JSON.stringify(data).replaceAll("<", "\\u003c")};
      for (const [mark, text] of Object.entries(parts)) {
        const place = `/${"*"}${mark}*/`, at = page.indexOf(place);
        page = page.slice(0, at) + text + page.slice(at + place.length);
      }
    }
    this.save(`rollout-${this.rollout}.html`, "text/html", page);
  }

  saveTable(panel) {
    const names = this.about.table_columns, quote = (value) => (/[",\r\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
    const shown = this.panels.filter((one) => one.data);
    const lines = [["table", ...names].join(",")];
    for (const one of shown) one.data.token.forEach((_, i) => lines.push([one.name, ...names.map((name) => one.data[name][i])].map(quote).join(",")));
    this.save(`rollout-${this.rollout}.csv`, "text/csv;charset=utf-8", lines.join("\r\n") + "\r\n");
  }
}

function render({model, el}) {
  new View(model, el);
}

export default {render};
