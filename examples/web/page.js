/** The example page: one model, a skill that is picked or dropped, and both answers side by side. */

import { Runtime } from "./package/browser.js";

const $ = (id) => document.getElementById(id);
const main = document.querySelector("main");
const parameters = new URLSearchParams(location.search);
const model = new URL(parameters.get("model") ?? "model/", location.href);
const TOKENS = 96; // of an answer
const paths = new Map(); // name of a listed skill that is not loaded yet -> its URL
let runtime;
let stop = new AbortController();

start().catch(tell);

async function start() {
  navigator.serviceWorker?.register("sw.js").catch(tell);
  await navigator.storage?.persist?.().catch(() => false);
  const sizes = new Map();
  runtime = await Runtime.load(model, {
    device: parameters.get("device") ?? "auto",
    ort: "./ort/",
    onProgress: ({ file, loaded, total, cached }) => {
      sizes.set(file, loaded);
      $("progress").value = loaded / Math.max(total, 1);
      const what = cached ? "Reading from this browser" : "Downloading";
      $("status").textContent = `${what}: ${file}, ${megabytes(loaded)} of ${megabytes(total)}`;
    },
  });
  const whole = [...sizes.values()].reduce((sum, size) => sum + size, 0);
  $("progress").hidden = true;
  $("status").textContent = `Ready on ${runtime.device}: ${megabytes(whole)}, kept in this browser`;
  const registration = await navigator.serviceWorker?.ready;
  registration?.active?.postMessage(runtime.device);
  for (const { name, file, description, examples } of runtime.listed) {
    paths.set(name, new URL(file, model));
    list(name, description, examples[0]);
  }
  for (const id of ["skills", "ask"]) $(id).disabled = false;
  pick();
  main.dataset.state = "ready";
}

/** Add a skill to the list, or renew it. */
function list(name, description, example = "") {
  const option = [...$("skills").options].find((one) => one.value === name) ?? $("skills").appendChild(new Option(name, name));
  option.dataset.about = description;
  option.dataset.example = example;
}

/** Show what the chosen skill is, and offer its example. */
function pick() {
  const { about = "No skill yet: drop a .lime file on this page.", example = "" } = $("skills").selectedOptions[0]?.dataset ?? {};
  $("about").textContent = about;
  if (!$("prompt").value || $("prompt").dataset.offered === $("prompt").value) $("prompt").value = $("prompt").dataset.offered = example;
}

async function loadFile(file) {
  try {
    tell(null);
    const info = await runtime.loadSkill(file, { replace: true });
    paths.delete(info.name);
    list(info.name, info.description, info.interface.examples[0]);
    $("skills").value = info.name;
    pick();
  } catch (error) {
    tell(error);
  }
}

async function ask() {
  stop = new AbortController();
  main.dataset.state = "answering";
  [$("ask").disabled, $("stop").disabled] = [true, false];
  tell(null);
  try {
    const name = $("skills").value || null;
    if (paths.has(name)) {
      await runtime.loadSkill(paths.get(name));
      paths.delete(name);
    }
    await show("base", null);
    if (name && !stop.signal.aborted) await show("skill", name);
    main.dataset.state = "answered";
  } catch (error) {
    tell(error);
    main.dataset.state = "ready";
  } finally {
    [$("ask").disabled, $("stop").disabled] = [false, true];
  }
}

/** Answer with one skill, into its own place. */
async function show(place, skill) {
  $(place).textContent = $(`${place}-times`).textContent = "";
  const form = runtime.skills().find((info) => info.name === skill)?.interface.answers.kind;
  const answers = form === "schema" || form === "regex" ? { answers: "text" } : {};
  const pieces = runtime.stream($("prompt").value, { skill, maxNewTokens: TOKENS, signal: stop.signal, ...answers });
  for (;;) {
    const { done, value } = await pieces.next();
    if (!done) {
      $(place).textContent += value;
      continue;
    }
    const { prefillMilliseconds, decodeMilliseconds, newTokens } = value.timings;
    const each = newTokens > 1 && decodeMilliseconds ? `, then ${(decodeMilliseconds / (newTokens - 1)).toFixed(0)} ms a token` : "";
    $(`${place}-times`).textContent = `${newTokens} tokens; the first after ${prefillMilliseconds.toFixed(0)} ms${each}`;
    return;
  }
}

function tell(error) {
  $("problem").textContent = error ? String(error.message ?? error) : "";
}

function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

$("skills").addEventListener("change", pick);
$("stop").addEventListener("click", () => stop.abort());
$("file").addEventListener("change", ({ target }) => target.files[0] && loadFile(target.files[0]));
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  void ask();
});
for (const [name, on] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dropping", on);
    const file = name === "drop" && event.dataTransfer?.files[0];
    if (file) void loadFile(file);
  });
}
