"use strict";
(() => {
  const get = (id) => document.getElementById(id);
  const shots = JSON.parse(get("shots").textContent);
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  // The table. What is not known comes last, whichever the order.
  const body = get("images").tBodies[0];
  let follow = () => {}; // what else depends on the order of the rows
  const heads = [...get("images").tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const text = head.dataset.kind === "text";
    head.querySelector("button").addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const down = before === "none" ? !("low" in head.dataset) : before === "ascending";
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = [...body.rows].map((row) => {
        const key = row.cells[column].dataset.v;
        return { row, known: key !== "", key: text ? key : Number(key) };
      });
      const compare = text ? new Intl.Collator(undefined, { numeric: true }).compare : (a, b) => (a === b ? 0 : a - b);
      keyed.sort((a, b) => (a.known && b.known ? compare(a.key, b.key) * (down ? -1 : 1) : b.known - a.known));
      body.append(...keyed.map((each) => each.row));
      follow();
    });
  });
  body.addEventListener("click", (event) => {
    const button = event.target.closest(".open");
    if (button) open(Number(button.dataset.picture));
  });

  // The plot: one stop for the Tab key, and arrows within.
  const plot = get("plot");
  if (plot) {
    const dots = [...plot.querySelectorAll(".dot")];
    const own = dots.filter((dot) => dot.classList.contains("series-0"));
    const abscissa = (dot) => dot.transform.baseVal[0].matrix.e;
    own.sort((a, b) => abscissa(a) - abscissa(b));
    let at = -1;
    const mark = (dot) => {
      for (const each of dots) each.classList.toggle("hot", Boolean(dot) && each.dataset.row === dot.dataset.row);
      if (dot) get("told").textContent = dot.querySelector("title").textContent;
    };
    const enter = (dot) => dot && dot.dataset.picture !== undefined && open(Number(dot.dataset.picture));
    plot.addEventListener("pointerover", (event) => mark(event.target.closest(".dot")));
    plot.addEventListener("click", (event) => enter(event.target.closest(".dot")));
    plot.addEventListener("focus", () => mark(own[(at = Math.max(at, 0))]));
    plot.addEventListener("blur", () => mark(null));
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, Home: -own.length, End: own.length }[event.key];
      if (step) mark(own[(at = clamp(at + step, 0, own.length - 1))]);
      else if (event.key === "Enter") enter(own[at]);
      else return;
      event.preventDefault();
    });
  }

  // The viewer.
  if (!shots.length) return;
  const stage = get("stage"), layers = get("layers"), handle = get("handle"), over = get("over"), under = get("under");
  const state = { shot: 0, other: 0, split: 50, zoom: 1, x: 0.5, y: 0.5, flicker: 0, phase: false, difference: false, bits: false };
  const source = (number, view) => "data:image/webp;base64," + get(`pixels-${number}-${view}`).textContent;
  const shot = () => shots[state.shot];
  const others = () => shot().views.filter((view) => view.key !== "vaetools");
  let box = { left: 0, width: 1 }; // of the picture that is seen, in the stage

  function render() {
    const [width, height] = [stage.clientWidth, stage.clientHeight];
    const [wide, high] = [shot().place[2], shot().place[3]];
    const fit = Math.min(width / wide, height / high, 8);
    const scale = fit * state.zoom;
    const shift = (at, room, length) => (length <= room ? (room - length) / 2 : clamp(room / 2 - at * length, room - length, 0));
    const left = shift(state.x, width, wide * scale), top = shift(state.y, height, high * scale);
    if (wide * scale > width) state.x = (width / 2 - left) / (wide * scale);
    if (high * scale > height) state.y = (height / 2 - top) / (high * scale);
    for (const image of [under, over, get("bits-image")]) {
      image.style.width = `${wide}px`;
      image.style.height = `${high}px`;
      image.style.transform = `translate(${left}px, ${top}px) scale(${scale})`;
    }
    const shown = Math.max(0, left);
    box = { left: shown, width: Math.min(width, left + wide * scale) - shown, scale, wide: wide * scale, high: high * scale };
    const border = box.left + (box.width * state.split) / 100;
    const two = others().length > 0;
    const split = two && !state.flicker && !state.difference;
    handle.hidden = !split;
    handle.style.left = `${border}px`;
    const whole = state.difference || (state.flicker && state.phase);
    get("over-layer").hidden = !two || (Boolean(state.flicker) && !state.phase && !state.difference);
    get("over-layer").style.clipPath = whole ? "none" : `inset(0 ${width - border}px 0 0)`;
    layers.classList.toggle("difference", state.difference && two);
    layers.classList.toggle("pixelated", scale >= 2);
    stage.classList.toggle("large", box.wide > width + 1 || box.high > height + 1);
    get("bits-layer").hidden = !state.bits;
    get("left-tag").hidden = !two || (Boolean(state.flicker) && !state.phase && !state.difference);
    get("right-tag").hidden = Boolean(state.flicker) && state.phase && !state.difference;
    get("zoom").textContent = `${Math.round(scale * 100)} %`;
    handle.setAttribute("aria-valuenow", Math.round(state.split));
    if (two) {
      const name = others()[state.other].label;
      handle.setAttribute("aria-valuetext", `${Math.round(state.split)} % ${name}, the rest vaetools`);
    }
    for (const [id, on] of [["flicker", state.flicker], ["difference", state.difference], ["bits", state.bits]])
      get(id).setAttribute("aria-pressed", Boolean(on));
  }

  function compare(number) {
    if (number >= others().length) return;
    state.other = number;
    const view = others()[number];
    over.src = source(state.shot, view.key);
    over.alt = view.label;
    get("left-tag").textContent = view.tag;
    [...get("others").children].forEach((button, each) => button.setAttribute("aria-pressed", each === number));
    render();
  }

  function show(number) {
    if (!(number in shots)) return;
    Object.assign(state, { shot: number, zoom: 1, x: 0.5, y: 0.5 });
    const { name, place, width, height, views, bits } = shot();
    const key = others()[state.other]?.key;
    get("name").textContent = name;
    const cut = place[2] < width || place[3] < height;
    get("place").textContent = `${width} × ${height}` + (cut ? `; shown: ${place[2]} × ${place[3]} at ${place[0]}, ${place[1]}` : "");
    follow();
    under.src = source(state.shot, "vaetools");
    under.alt = "What the compressed file gives back";
    get("right-tag").textContent = views.find((view) => view.key === "vaetools").tag;
    get("others").replaceChildren(...others().map((view, each) => {
      const button = document.createElement("button");
      button.type = "button";
      const cap = document.createElement("kbd");
      cap.textContent = each + 1;
      button.append(view.label + " ", cap);
      button.addEventListener("click", () => compare(each));
      return button;
    }));
    get("facts").replaceChildren(...views.map((view) => {
      const item = document.createElement("li");
      item.textContent = view.facts;
      return item;
    }));
    for (const id of ["flicker", "difference"]) get(id).disabled = !others().length;
    if (!others().length) halt();
    get("bits").disabled = !bits;
    state.bits = state.bits && bits;
    get("whole").src = document.querySelector(`.open[data-picture="${state.shot}"] img`).src;
    const frame = get("frame").style;
    get("frame").hidden = !cut;
    frame.left = `${(100 * place[0]) / width}%`;
    frame.top = `${(100 * place[1]) / height}%`;
    frame.width = `${(100 * place[2]) / width}%`;
    frame.height = `${(100 * place[3]) / height}%`;
    get("whole-bits-frame").hidden = !bits;
    const small = get("whole"), map = get("whole-bits");
    if (bits) {
      get("bits-image").src = "data:image/png;base64," + get(`pixels-${state.shot}-bits`).textContent;
      map.src = "data:image/png;base64," + get(`pixels-${state.shot}-all-bits`).textContent;
      const factor = Math.min(1, 160 / Math.max(width, height));
      map.width = Math.max(1, Math.round(width * factor));
      map.height = Math.max(1, Math.round(height * factor));
    }
    small.alt = `The whole image${cut ? ", with the part that is shown" : ""}`;
    for (const row of body.rows) {
      const button = row.querySelector(".open");
      row.classList.toggle("current", Boolean(button) && Number(button.dataset.picture) === state.shot);
    }
    if (others().length) compare(Math.max(0, others().findIndex((view) => view.key === key)));
    else render();
  }

  // Next and previous are those of the table, as it is sorted.
  const order = () => [...body.querySelectorAll(".open")].map((button) => Number(button.dataset.picture));
  const step = (by) => show(order()[order().indexOf(state.shot) + by]);
  follow = () => {
    const at = order().indexOf(state.shot);
    get("position").textContent = `${at + 1} of ${shots.length}`;
    get("previous").disabled = at === 0;
    get("next").disabled = at === shots.length - 1;
  };

  function open(number) {
    show(number);
    get("viewer").scrollIntoView({ block: "start" });
    (handle.hidden ? get("next") : handle).focus({ preventScroll: true });
  }

  function halt() {
    clearInterval(state.flicker);
    Object.assign(state, { flicker: 0, phase: false, difference: false });
  }

  function flicker() {
    const start = !state.flicker;
    halt();
    if (start && others().length)
      state.flicker = setInterval(() => { state.phase = !state.phase; render(); }, 500);
    render();
  }

  function difference() {
    const start = !state.difference;
    halt();
    state.difference = start && others().length > 0;
    render();
  }

  function zoom(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
    const before = { ...box };
    const top = before.high > stage.clientHeight ? stage.clientHeight / 2 - state.y * before.high : (stage.clientHeight - before.high) / 2;
    const left = before.wide > stage.clientWidth ? stage.clientWidth / 2 - state.x * before.wide : (stage.clientWidth - before.wide) / 2;
    const [u, v] = [(x - left) / before.wide, (y - top) / before.high]; // what is under the pointer stays there
    const old = state.zoom;
    state.zoom = factor ? clamp(state.zoom * factor, 1, 32) : 1;
    const grown = state.zoom / old;
    state.x = u + (stage.clientWidth / 2 - x) / (before.wide * grown);
    state.y = v + (stage.clientHeight / 2 - y) / (before.high * grown);
    render();
  }

  function pan(x, y) {
    state.x -= x / box.wide;
    state.y -= y / box.high;
    render();
  }

  const move = (split) => { state.split = clamp(split, 0, 100); render(); };
  handle.addEventListener("keydown", (event) => {
    if (event.shiftKey || event.ctrlKey || event.altKey || event.metaKey) return;
    const step = { ArrowRight: 2, ArrowUp: 2, ArrowLeft: -2, ArrowDown: -2, PageUp: 10, PageDown: -10, Home: -100, End: 100 }[event.key];
    if (!step) return;
    move(state.split + step);
    event.preventDefault();
  });
  let drag = null;
  stage.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    const panning = stage.classList.contains("large") && !handle.contains(event.target);
    drag = { panning, x: event.clientX, y: event.clientY };
    stage.setPointerCapture(event.pointerId);
    if (!panning) slide(event);
    if (!handle.hidden) handle.focus({ preventScroll: true });
    event.preventDefault();
  });
  const slide = (event) => move((100 * (event.clientX - stage.getBoundingClientRect().left - box.left)) / box.width);
  stage.addEventListener("pointermove", (event) => {
    if (!drag) return;
    if (drag.panning) {
      pan(event.clientX - drag.x, event.clientY - drag.y);
      Object.assign(drag, { x: event.clientX, y: event.clientY });
    } else slide(event);
  });
  for (const kind of ["pointerup", "pointercancel"]) stage.addEventListener(kind, () => { drag = null; });
  stage.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !stage.contains(document.activeElement)) return; // the page scrolls
    const place = stage.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / 400), event.clientX - place.left, event.clientY - place.top);
    event.preventDefault();
  }, { passive: false });

  const actions = {
    n: () => step(1), p: () => step(-1), f: flicker, d: difference,
    m: () => { state.bits = !state.bits && shot().bits; render(); },
    "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), "0": () => zoom(0),
  };
  const clicks = { next: "n", previous: "p", flicker: "f", difference: "d", bits: "m", "zoom-in": "+", "zoom-out": "-", fit: "0" };
  for (const [id, key] of Object.entries(clicks)) get(id).addEventListener("click", actions[key]);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest("input, textarea, select")) return;
    const arrow = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] }[event.key];
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (event.shiftKey && arrow && stage.contains(event.target)) pan(...arrow);
    else if (action) action();
    else if (/^[1-9]$/.test(event.key)) compare(Number(event.key) - 1);
    else return;
    event.preventDefault();
  });
  new ResizeObserver(render).observe(stage);
  get("viewer").hidden = false;
  show(order()[0]);
})();
