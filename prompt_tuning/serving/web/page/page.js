"use strict";

// The page asks the same API as any other client.

const at = (id) => document.getElementById(id);
let models = [];

function made(name, text, className) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

async function call(path, body) {
  const headers = {};
  if (at("key").value) headers.Authorization = `Bearer ${at("key").value}`;
  if (body) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, {
    method: body ? "POST" : "GET",
    headers,
    body: body && JSON.stringify(body),
  });
  const read = await answer.json();
  if (!answer.ok) throw new Error(read.error ? read.error.message : answer.status);
  return read;
}

function chosen() {
  const names = [...at("prompts").querySelectorAll("input:checked")];
  return models.filter((model) => names.some((box) => box.value === model.id));
}

// The form of an input: what the records of the chosen prompts say.
function showForm() {
  const forms = [...new Set(chosen().map((model) => model.template).filter(Boolean))];
  at("form").textContent = forms.length ? `Form: ${forms.join("   or   ")}` : "";
  at("text").placeholder = forms[0] || "";
}

async function list() {
  try {
    models = (await call("v1/models")).data;
  } catch (error) {
    at("status").textContent = error.message;
    if (!at("key").value) at("key").closest("details").open = true;
    return;
  }
  const before = new Set(chosen().map((model) => model.id));
  at("prompts").replaceChildren();
  for (const [number, model] of models.entries()) {
    const label = made("label");
    const box = made("input");
    box.type = "checkbox";
    box.value = model.id;
    box.checked = before.size ? before.has(model.id) : number === 0;
    box.addEventListener("change", showForm);
    const task = model.task && model.task !== model.id ? ` (${model.task})` : "";
    label.append(box, made("span", model.parent ? model.id + task
      : `${model.id}, without a prompt`));
    at("prompts").append(label);
    if (!model.parent) at("own").textContent = model.id;
  }
  at("status").textContent = `${models.length - 1} prompts are served.`;
  showForm();
}

function rowOf(label, share) {
  const row = made("tr");
  const meter = made("meter");
  meter.value = share;
  meter.setAttribute("aria-label", `probability of ${label}`);
  const cell = made("td");
  cell.append(meter);
  row.append(made("td", label), cell,
    made("td", `${(100 * share).toFixed(1)} %`, "number"));
  return row;
}

function probabilities(pairs) {
  const table = made("table");
  for (const [label, share] of pairs) table.append(rowOf(label, share));
  return table;
}

// One prompt's answer: among labels if there are any, else written freely.
async function ask(model, text, typed) {
  const labels = typed.length ? typed : model.labels || [];
  if (labels.length) {
    const read = await call("v1/classify", { model: model.id, input: text, labels });
    const [one] = read.data;
    const pairs = read.labels.map((label, i) => [label, one.probs[i]]);
    return [one.label, pairs.sort((a, b) => b[1] - a[1])];
  }
  const read = await call("v1/completions", {
    model: model.id, prompt: text, logprobs: 0, temperature: 0,
    max_tokens: Number(at("tokens").value) || null,
  });
  const [choice] = read.choices;
  const nats = choice.logprobs.token_logprobs.reduce((a, b) => a + b, 0);
  return [choice.text, [["this answer", Math.exp(nats)]]];
}

async function show(model, text, labels) {
  const card = made("article", undefined, "answer");
  card.dataset.model = model.id;
  const answer = made("p", "…", "text");
  const time = made("p", "", "hint");
  card.append(made("h2", model.id), answer, time);
  at("answers").append(card);
  const begin = performance.now();
  try {
    const [said, pairs] = await ask(model, text, labels);
    answer.textContent = said || "(nothing)";
    card.append(probabilities(pairs));
  } catch (error) {
    card.classList.add("failed");
    answer.textContent = error.message;
  }
  time.textContent = `${(performance.now() - begin).toFixed(0)} ms`;
}

at("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const asked = chosen();
  if (!asked.length) {
    at("status").textContent = "Choose at least one prompt.";
    return;
  }
  const labels = at("labels").value.split(",").map((x) => x.trim()).filter(Boolean);
  at("answers").replaceChildren();
  at("send").disabled = true;
  await Promise.all(asked.map((model) => show(model, at("text").value, labels)));
  at("send").disabled = false;
  at("status").textContent = `${asked.length} answers.`;
});

at("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.ctrlKey) at("ask").requestSubmit();
});
at("key").addEventListener("change", list);
list();
