"use strict";

const POINTS = 60;      // of a plot, one a second
const TOP_K = 5;
const byId = (id) => document.getElementById(id);

function ask(path, options = {}) {
  const token = byId("token").value;
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  return fetch(path, { ...options, headers });
}

function element(kind, text, className = "") {
  const made = document.createElement(kind);
  made.textContent = text;
  made.className = className;
  return made;
}

// --- Pictures

async function classify(files) {
  for (const file of files) {
    const article = element("article", "");
    const picture = new Image();
    picture.src = URL.createObjectURL(file);
    picture.alt = "";
    const text = element("div", "");
    text.append(element("h3", file.name));
    article.append(picture, text);
    byId("answers").prepend(article);
    text.append(await answerOf(file));
  }
}

async function answerOf(file) {
  try {
    const response = await ask(`/classify?top_k=${TOP_K}`, { method: "POST", body: file });
    const answer = await response.json();
    const pairs = answer.image ?? answer;
    return Array.isArray(pairs) ? listOf(pairs) : element("p", pairs.error, "error");
  } catch (error) {
    return element("p", `no answer: ${error.message}`, "error");
  }
}

function listOf(pairs) {
  const list = element("ol", "");
  for (const [probability, label] of pairs) {
    const item = element("li", "");
    const meter = document.createElement("meter");
    meter.value = probability;
    item.append(meter, element("span", label), element("span", `${(100 * probability).toFixed(1)} %`));
    list.append(item);
  }
  return list;
}

function listenForPictures() {
  const drop = byId("drop"), files = byId("files");
  files.addEventListener("change", () => classify([...files.files]));
  drop.addEventListener("keydown", (event) => event.key === "Enter" && files.click());
  for (const kind of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
    });
  }
  drop.addEventListener("drop", (event) => classify([...event.dataTransfer.files]));
}

// --- Plots

function prepare(id) {
  const canvas = byId(id), scale = window.devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * scale;
  canvas.height = canvas.clientHeight * scale;
  const context = canvas.getContext("2d");
  context.fillStyle = context.strokeStyle = getComputedStyle(document.body).getPropertyValue("--line");
  context.lineWidth = 2 * scale;
  context.font = `${11 * scale}px sans-serif`;
  return [context, canvas.width, canvas.height];
}

function drawLine(id, values) {
  const [context, width, height] = prepare(id);
  const top = Math.max(...values, 1e-9);
  context.beginPath();
  values.forEach((value, i) => {
    context.lineTo((width * (i + POINTS - values.length)) / (POINTS - 1), height * (0.95 - 0.9 * value / top));
  });
  context.stroke();
}

function drawBars(id, counts) {
  const [context, width, height] = prepare(id);
  const sizes = [...counts.keys()].sort((a, b) => a - b), top = Math.max(...counts.values(), 1);
  const step = width / Math.max(sizes.length, 8), foot = height * 0.82;
  sizes.forEach((size, i) => {
    const tall = (foot - 4) * counts.get(size) / top;
    context.fillRect(i * step + step * 0.1, foot - tall, step * 0.8, tall);
    context.fillText(String(size), i * step + step * 0.15, height * 0.97);
  });
}

// --- What the server says of itself

const seen = { model: "", last: null, throughput: [], latency: [] };

function showModels(stats) {
  const select = byId("model"), names = stats.map((model) => model.name);
  if (names.join() !== [...select.options].map((option) => option.value).join()) {
    select.replaceChildren(...names.map((name) => element("option", name)));
  }
  return stats.find((model) => model.name === select.value);
}

function sizesOf(model) {
  return new Map(model.batch_stats.map((batch) => [batch.batch_size, batch.compute_infer.count]));
}

function show(model, now) {
  if (seen.model !== model.name) Object.assign(seen, { model: model.name, last: null, throughput: [], latency: [] });
  const success = model.inference_stats.success;
  const state = { now, samples: model.inference_count, batches: model.execution_count, ...success };
  if (seen.last) {
    const since = (name) => state[name] - seen.last[name];
    const seconds = since("now") / 1000, rate = since("samples") / seconds;
    const latency = since("count") ? since("ns") / since("count") / 1e6 : 0;
    seen.throughput = [...seen.throughput, rate].slice(-POINTS);
    seen.latency = [...seen.latency, latency].slice(-POINTS);
    byId("throughput").textContent = `${rate.toFixed(0)} samples/s`;
    byId("latency").textContent = since("count") ? `${latency.toFixed(2)} ms` : "–";
    byId("batch").textContent = since("batches") ? `mean ${(since("samples") / since("batches")).toFixed(1)}` : "–";
    drawLine("throughput-plot", seen.throughput);
    drawLine("latency-plot", seen.latency);
  }
  drawBars("batch-plot", sizesOf(model));
  seen.last = state;
}

async function look() {
  const health = byId("health");
  try {
    const ready = (await fetch("/v2/health/ready")).ok;
    health.textContent = ready ? "ready" : "not ready";
    health.classList.toggle("ready", ready);
    const response = await ask("/v2/models/stats");
    byId("login").hidden = response.status !== 401 && !byId("token").value;
    const model = response.ok && showModels((await response.json()).model_stats);
    if (model) show(model, performance.now());
  } catch (error) {
    health.textContent = "no connection";
    health.classList.remove("ready");
  }
  setTimeout(look, 1000);
}

byId("login").addEventListener("submit", (event) => event.preventDefault());  // `ask` reads the token
listenForPictures();
look();
