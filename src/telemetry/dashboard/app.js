"use strict";
// The dashboard: asks the admin endpoint's pages once a second and draws what they say. What clients named themselves
// is only ever set as text.

const $ = (id) => document.getElementById(id);
const KEPT = 300;
const colour = (n) => `var(--c${n % 4})`;

// ---- figures for people

const three = (value) => (value < 9.995 ? value.toFixed(2) : value < 99.95 ? value.toFixed(1) : value.toFixed(0));

function count(value) {
  if (value < 10 && value % 1 !== 0) return value.toFixed(1);
  if (value < 100_000) return Math.round(value).toLocaleString("en");
  return value < 1e6 ? `${three(value / 1e3)}k` : value < 1e9 ? `${three(value / 1e6)}M` : `${three(value / 1e9)}G`;
}

function bytes(value) {
  if (value < 1024) return `${Math.round(value)} B`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let unit = -1;
  do { value /= 1024; unit += 1; } while (value >= 1024 && unit < 3);
  return `${three(value)} ${units[unit]}`;
}

function time(seconds) {
  if (seconds === 0) return "0";
  // the first bucket: less than a turn
  if (seconds < 1.1e-6) return "< 1 us";
  if (seconds < 1e-3) return `${three(seconds * 1e6)} us`;
  return seconds < 1 ? `${three(seconds * 1e3)} ms` : `${three(seconds)} s`;
}

const share = (value) => `${Math.round(value * 100)} %`;
const ticks = { count: (v) => plain(count(v)), bytes: (v) => plain(bytes(v)), time: (v) => plain(time(v)), share };
// 1.00 ms is 1 ms where it names a line
const plain = (text) => text.replace(/\.0+(?=\D|$)/, "").replace(/(\.\d*[1-9])0+(?=\D|$)/, "$1");

function age(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "m"], [1, "s"]];
  const at = Math.max(0, parts.findIndex(([size]) => seconds >= size));
  const [[size, unit], next] = [parts[seconds < 1 ? 3 : at], parts[at + 1]];
  const rest = next ? Math.floor((seconds % size) / next[0]) : 0;
  return `${Math.floor(seconds / size)} ${unit}` + (next && rest ? ` ${rest} ${next[1]}` : "");
}

// ---- charts

function draw(parent, name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

function legend(id, series) {
  const spans = series.map(({ label, colour }) => {
    const span = document.createElement("span");
    span.textContent = label;
    span.style.setProperty("--key", colour);
    return span;
  });
  $(id).replaceChildren(...spans);
}

// Steps of 1, 2 or 5 (for bytes: powers of two) that make at most five lines.
function linear(most, binary) {
  const rough = Math.max(most, 1e-9) / 4;
  const base = binary ? 2 ** Math.floor(Math.log2(rough)) : 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * base).find((step) => step >= rough);
  const top = Math.ceil(most / step - 1e-9) * step || step;
  const marks = [];
  for (let at = 0; at <= top + step / 2; at += step) marks.push(at);
  return { place: (v) => v / top, marks };
}

// Powers of ten; their halves and fifths too where there are few.
function logarithmic(least, most) {
  let [low, high] = [Math.floor(Math.log10(least)), Math.ceil(Math.log10(most))];
  if (high <= low) high = low + 1;
  const marks = [];
  for (let power = low; power <= high; power += 1) {
    for (const n of high - low < 3 ? [1, 2, 5] : [1]) if (power < high || n === 1) marks.push(n * 10 ** power);
  }
  return { place: (v) => (Math.log10(Math.max(v, 10 ** low)) - low) / (high - low), marks };
}

// chart: { id, series: [{ label, colour, area, points: [[x, y | null]] }], x: { place, marks, name }, y, format }
function chart({ id, series, x, y, format, head }) {
  const box = $(id);
  const [width, height] = [box.clientWidth, box.clientHeight];
  const [left, right, top, bottom] = [58, 8, 10, 22];
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const px = (v) => left + x.place(v) * (width - left - right);
  const py = (v) => height - bottom - y.place(v) * (height - top - bottom);
  for (const mark of y.marks) {
    draw(svg, "line", { class: "grid", x1: left, x2: width - right, y1: py(mark), y2: py(mark) });
    draw(svg, "text", { class: "tick", x: left - 8, y: py(mark) + 4, "text-anchor": "end" }, ticks[format](mark));
  }
  let free = 0;
  x.marks.forEach((mark, n) => {
    // what would run into the one before it is left out
    const [text, at] = [x.name(mark), px(mark)];
    const [anchor, before] = n === 0 ? ["start", 0] : n === x.marks.length - 1 ? ["end", 1] : ["middle", 0.5];
    const start = at - before * 6 * text.length;
    if (start < free) return;
    free = start + 6 * text.length + 8;
    draw(svg, "text", { class: "tick", x: at, y: height - 5, "text-anchor": anchor }, text);
  });
  let any = false;
  for (const { points, colour, area } of series) {
    let [path, first, last] = ["", null, null];
    for (const [at, value] of points) {
      if (value === null) { last = null; continue; }
      path += `${last === null ? "M" : "L"}${px(at).toFixed(1)} ${py(value).toFixed(1)}`;
      first ??= at;
      last = at;
      any = true;
    }
    if (area && last !== null) {
      const ground = height - bottom;
      const under = `${path}L${px(last).toFixed(1)} ${ground}L${px(first).toFixed(1)} ${ground}Z`;
      draw(svg, "path", { class: "area", d: under, fill: colour });
    }
    if (path) draw(svg, "path", { class: "series", d: path, stroke: colour });
  }
  if (!any) draw(svg, "text", { class: "empty", x: (left + width) / 2, y: height / 2, "text-anchor": "middle" }, "nothing yet");
  const cross = draw(svg, "line", { class: "cross", y1: top, y2: height - bottom, visibility: "hidden" });
  box.replaceChildren(svg);
  const places = series.flatMap(({ points }) => points.filter(([, v]) => v !== null).map(([at]) => at));
  const point = (event) => {
    if (places.length === 0) return;
    const over = event.clientX - box.getBoundingClientRect().left;
    const at = places.reduce((a, b) => (Math.abs(px(b) - over) < Math.abs(px(a) - over) ? b : a));
    cross.setAttribute("x1", px(at));
    cross.setAttribute("x2", px(at));
    cross.setAttribute("visibility", "visible");
    const values = series.map(({ label, points }) => [label, points.find(([place]) => place === at)?.[1] ?? null]);
    const lines = values.filter(([, v]) => v !== null).map(([label, v]) => `${label}  ${formats[format](v)}`);
    tip(event, [head(at), ...lines].join("\n"));
  };
  box.onpointermove = (event) => { box.last = event; point(event); };
  box.onpointerleave = () => { box.last = null; $("tip").hidden = true; cross.setAttribute("visibility", "hidden"); };
  // a chart drawn anew under a pointer that rests
  if (box.last) point(box.last);
}

const formats = { count, bytes, time, share };

function tip(event, text) {
  const tip = $("tip");
  tip.textContent = text;
  tip.hidden = false;
  const over = event.clientX + tip.offsetWidth + 24 > innerWidth;
  tip.style.left = `${event.clientX + (over ? -tip.offsetWidth - 14 : 14)}px`;
  tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)}px`;
}

// ---- what is drawn

const points = [];
let curves = [];
let pid = null;

function overTime(id, format, y, series) {
  const last = points.length ? points[points.length - 1].at_ms : Date.now();
  // as much as there is: a minute at least, five at most
  const there = points.length ? last - points[0].at_ms : 0;
  const first = last - Math.min(Math.max(there, 60_000), KEPT * 1000);
  const x = {
    place: (at) => (at - first) / (last - first),
    marks: [first, first + (last - first) / 2, last],
    name: (at) => (at === last ? "now" : `-${age(Math.round((last - at) / 1000))}`),
  };
  const head = (at) => new Date(at).toLocaleTimeString();
  const placed = series.map((one) => ({ ...one, points: points.map((p) => [p.at_ms, one.of(p)]) }));
  chart({ id, series: placed, x, y, format, head });
  legend(id.replace("c-", "l-"), series);
}

const most = (of) => Math.max(...points.map(of), 0);

function drawHistory() {
  overTime("c-requests", "count", linear(most((p) => Math.max(p.requests, p.errors)) || 1), [
    { label: "requests", colour: colour(0), area: true, of: (p) => p.requests },
    { label: "errors", colour: colour(3), of: (p) => p.errors },
  ]);
  overTime("c-bytes", "bytes", linear(most((p) => Math.max(p.received, p.sent)) || 1024, true), [
    { label: "in", colour: colour(0), area: true, of: (p) => p.received },
    { label: "out", colour: colour(1), of: (p) => p.sent },
  ]);
  const timed = points.filter((p) => p.latency.count > 0);
  const least = Math.min(...timed.map((p) => p.latency.p50));
  const slowest = Math.max(...timed.map((p) => p.latency.p999));
  const y = timed.length ? logarithmic(Math.max(least, 1e-6), slowest) : logarithmic(1e-5, 1e-2);
  const of = (name) => (p) => (p.latency.count > 0 ? p.latency[name] : null);
  overTime("c-latency", "time", y, [
    { label: "p50", colour: colour(0), of: of("p50") },
    { label: "p90", colour: colour(2), of: of("p90") },
    { label: "p99", colour: colour(1), of: of("p99") },
    { label: "p99.9", colour: colour(3), of: of("p999") },
  ]);
  const cores = Math.max(0, ...points.map((p) => p.load.length));
  const load = { place: (v) => v, marks: [0, 0.5, 1] };
  const each = Array.from({ length: cores }, (_, core) => {
    return { label: `core ${core}`, colour: colour(core), area: cores === 1, of: (p) => p.load[core] ?? null };
  });
  const over = (pick) => (p) => {
    const known = p.load.filter((share) => share !== null);
    return known.length ? pick(known) : null;
  };
  const mean = (known) => known.reduce((sum, share) => sum + share, 0) / known.length;
  const summary = [
    { label: "busiest", colour: colour(1), of: over((known) => Math.max(...known)) },
    { label: `mean of ${cores} cores`, colour: colour(0), area: true, of: over(mean) },
    { label: "idlest", colour: colour(2), of: over((known) => Math.min(...known)) },
  ];
  // more lines than that can't be told apart
  overTime("c-load", "share", load, cores <= 4 ? each : summary);
}

function drawCurve() {
  const shown = curves.filter(({ curve }) => curve.length > 0).slice(0, 4);
  const series = shown.map(({ channel, name, curve }, n) => {
    // 1 lies nowhere on this axis: half as far again as the last one before it
    const last = curve.length > 1 ? curve[curve.length - 2][0] : 0;
    const at = ([quantile, value]) => [quantile < 1 ? quantile : 1 - (1 - last) / 2, value];
    return { label: name ?? (channel.length > 12 ? `${channel.slice(0, 8)}…` : channel), colour: colour(n), points: curve.map(at) };
  });
  const all = series.flatMap(({ points }) => points);
  const far = Math.max(0.999, ...all.map(([quantile]) => quantile));
  const depth = (quantile) => -Math.log10(1 - quantile);
  const place = (quantile) => depth(quantile) / depth(far);
  const marks = [0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999].filter((quantile) => quantile <= far);
  const name = (quantile) => (quantile === 0 ? "0" : `${plain((quantile * 100).toFixed(4))} %`);
  const values = all.map(([, value]) => value);
  const y = values.length ? logarithmic(Math.max(1e-6, Math.min(...values)), Math.max(...values)) : logarithmic(1e-5, 1e-2);
  chart({ id: "c-curve", series, x: { place, marks, name }, y, format: "time", head: (q) => `up to ${name(q)}` });
  legend("l-curve", series);
}

function tile(name, value, more) {
  $(`t-${name}`).textContent = value;
  $(`t-${name}-more`).textContent = more;
}

function drawTiles(varz) {
  const now = points[points.length - 1];
  if (!now) return;
  tile("requests", `${count(now.requests)}/s`, `${count(varz.requests)} in all`);
  const timed = now.latency.count > 0;
  tile("p50", timed ? time(now.latency.p50) : "–", timed ? `mean ${time(now.latency.mean)}` : "no answers");
  tile("p99", timed ? time(now.latency.p99) : "–", timed ? `most ${time(now.latency.max)}` : "no answers");
  tile("in", `${bytes(now.received)}/s`, `out ${bytes(now.sent)}/s`);
  tile("flight", count(varz.in_flight), `${bytes(varz.held_bytes)} held`);
  tile("errors", `${count(now.errors)}/s`, `${count(varz.errors)} in all`);
  tile("conns", count(varz.connections), `at most ${count(varz.max_connections)}`);
  tile("memory", bytes(varz.resident_bytes), `most ${bytes(varz.peak_resident_bytes)}`);
}

function cell(row, text, kind) {
  const cell = row.insertCell();
  if (kind) cell.className = kind;
  cell.append(text);
  return cell;
}

// A second line in a cell: a column of its own would be out of sight.
function below(cell, text) {
  const line = document.createElement("small");
  line.textContent = line.title = text;
  cell.append(line);
}

function drawChannels({ items, total }) {
  const body = $("channels").tBodies[0];
  const rows = items.map((channel) => {
    const row = document.createElement("tr");
    cell(row, channel.name ?? channel.channel, "id").title = channel.channel;
    cell(row, channel.cores.join(", ") || "–");
    cell(row, `${count(channel.connections - channel.providers)}, ${count(channel.providers)}`, "n");
    const use = cell(row, "");
    const meter = document.createElement("meter");
    meter.max = Math.max(channel.capacity, 1);
    meter.value = channel.in_flight;
    meter.title = "in flight, of what the providers take";
    use.append(meter, `${count(channel.in_flight)} of ${count(channel.capacity)}`);
    cell(row, count(channel.queued), "n");
    cell(row, count(channel.requests), "n");
    cell(row, count(channel.errors), channel.errors ? "n bad" : "n");
    cell(row, `${bytes(channel.request_bytes)}, ${bytes(channel.response_bytes)}`, "n");
    const timed = channel.latency.count > 0;
    for (const key of ["p50", "p99", "max"]) cell(row, timed ? time(channel.latency[key]) : "–", "n");
    return row;
  });
  if (rows.length === 0) {
    const row = document.createElement("tr");
    cell(row, "Nobody is connected. Start a provider: corelay reply shout --exec 'tr a-z A-Z'", "none").colSpan = 11;
    rows.push(row);
  }
  body.replaceChildren(...rows);
  $("channels-more").textContent = total > items.length ? `the ${items.length} busiest of ${count(total)}` : "";
}

function drawProducers({ producers }) {
  $("producers-all").hidden = producers.length === 0;
  const rows = producers.map((producer) => {
    const row = document.createElement("tr");
    cell(row, producer.id, "id");
    const where = cell(row, `${producer.protocol}, ${producer.address}`);
    const error = producer.last_error;
    if (error) below(where, `${age(error.age_seconds)} ago: ${error.text}`);
    const state = cell(row, producer.state.replace("_", " "), producer.state === "closed" ? "" : "bad");
    state.title = producer.per_core.map(({ core, state }) => `core ${core}: ${state}`).join("\n");
    cell(row, producer.channels.length ? `${producer.what} of ${producer.channels.join(", ")}` : producer.what, "wrap");
    cell(row, count(producer.accepted), "n");
    below(cell(row, count(producer.forwarded), "n"), bytes(producer.forwarded_bytes));
    cell(row, count(producer.retried), "n");
    const reasons = Object.entries(producer.dropped).filter(([, n]) => n > 0);
    const dropped = reasons.reduce((sum, [, n]) => sum + n, 0);
    cell(row, count(dropped), dropped ? "n bad" : "n").title = reasons.map(([reason, n]) => `${reason}: ${n}`).join("\n");
    cell(row, count(producer.dead_lettered), "n");
    below(cell(row, count(producer.queue_messages), "n"), `${bytes(producer.queue_bytes)} of ${bytes(producer.queue_limit)}`);
    for (const key of ["p50", "p99"]) cell(row, producer.latency.count > 0 ? time(producer.latency[key]) : "–", "n");
    return row;
  });
  $("producers").tBodies[0].replaceChildren(...rows);
}

function drawHead(varz) {
  $("name").textContent = varz.name;
  document.title = varz.name === "corelay" ? "corelay" : `${varz.name} - corelay`;
  const cores = varz.cores === 1 ? "1 core" : `${varz.cores} cores`;
  const facts = [`corelay ${varz.version}`, varz.listen.join(", "), cores, varz.io === "uring" ? "io_uring" : varz.io,
    `process ${varz.pid}`, `up ${age(varz.uptime_seconds)}`];
  $("facts").textContent = facts.join("  ·  ");
}

function drawStatus(status, reasons) {
  $("status").textContent = status;
  $("status").className = `pill ${status}`;
  $("reasons").hidden = reasons.length === 0;
  $("reasons").textContent = reasons.join("\n");
}

// ---- asking

async function page(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(5000) });
  // health pages say 503, and why
  if (!answer.ok && answer.status !== 503) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

async function look(turn) {
  const after = points.length ? `?after=${points[points.length - 1].number}` : "";
  const [history, varz, health] = await Promise.all([page(`/historyz${after}`), page("/varz"), page("/healthz")]);
  if (pid !== varz.pid && pid !== null) {
    // another process: its points count from the beginning
    points.length = 0;
    history.points = (await page("/historyz")).points;
  }
  pid = varz.pid;
  points.push(...history.points);
  points.splice(0, Math.max(0, points.length - KEPT));
  drawHead(varz);
  drawStatus(health.status, health.reasons);
  drawTiles(varz);
  drawHistory();
  // the longer lists not as often
  if (turn % 2 === 0) drawChannels(await page("/channelz?limit=50"));
  if (turn % 2 === 1) drawProducers(await page("/producerz"));
  if (turn % 4 === 0) {
    curves = (await page("/latencyz")).channels.filter(({ channel }, _, all) => channel !== "all" || all.length > 2);
    drawCurve();
  }
}

async function watch() {
  for (let turn = 0; ; turn += 1) {
    const next = new Promise((resolve) => setTimeout(resolve, 1000));
    try {
      if (!document.hidden) await look(turn);
    } catch (error) {
      drawStatus("gone", [`No answer: ${error.message}. Asking again.`]);
      // a broker started anew counts from the beginning
      points.length = 0;
    }
    await next;
  }
}

addEventListener("resize", () => { drawHistory(); drawCurve(); });
watch();
