/** The example page in Chromium: answers in wasm and WebGPU, a dropped skill, refusals, and a reload without network. */

import assert from "node:assert/strict";
import { existsSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { launch } from "puppeteer-core";
import { serve } from "../serve.mjs";
import { compareAnswers, DEMO_SCORE_TOLERANCE, fixture, FIXTURES, hasDemo, json, LEAST_EQUAL, SCORE_TOLERANCE } from "./support.mjs";

const CHROMIUM = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((path) => path && existsSync(path));
const SHOTS = process.env.LIME_SCREENSHOTS;
const LONG = 600_000;
let browser;
let server;

before(async () => {
  assert.ok(CHROMIUM, "Chromium is not installed: apt install chromium, or set CHROMIUM");
  server = await serve(FIXTURES);
  const args = ["--no-sandbox", "--enable-unsafe-webgpu", "--enable-features=Vulkan", "--use-webgpu-adapter=swiftshader"];
  browser = await launch({ executablePath: CHROMIUM, args, protocolTimeout: LONG });
});
after(async () => {
  await browser?.close();
  await server?.close();
});

async function opened(path) {
  const page = await browser.newPage();
  page.setDefaultTimeout(LONG);
  await page.goto(`${server.url}${path}`);
  return page;
}

/** A runtime in a page, with the methods that the comparisons use. */
async function remote(model, device, skills) {
  const page = await opened("test.html");
  const failed = await page.evaluate(async (url, chosen, files) => {
    const { Runtime } = await import("/package/browser.js");
    try {
      globalThis.runtime = await Runtime.load(url, { device: chosen, cache: false, threads: 1, context: 200, ort: "/ort/" });
      for (const file of files) await runtime.loadSkill(file);
    } catch (error) {
      return String(error.stack);
    }
  }, `/files/${model}/`, device, skills.map((file) => `/files/${file}`));
  assert.equal(failed, undefined);
  return {
    page,
    generate: (prompt, settings) => page.evaluate((...given) => runtime.generate(...given), prompt, settings),
    choose: (...given) => page.evaluate((...all) => runtime.choose(...all), ...given),
  };
}

const SKILLS = ["always", "response", "stopping"].map((name) => `skills/${name}.lime`);

test("wasm gives Python's answers", async () => {
  const runtime = await remote("tiny-fp32", "wasm", SKILLS);
  const expected = json("expected.json");
  assert.equal(await compareAnswers(runtime, expected, SCORE_TOLERANCE, true), expected.length);
  await runtime.page.close();
});

test("WebGPU gives Python's answers", async () => {
  const runtime = await remote("tiny-fp32", "webgpu", SKILLS);
  const expected = json("expected.json");
  assert.equal(await compareAnswers(runtime, expected, SCORE_TOLERANCE, true), expected.length);
  await runtime.page.close();
});

test("an int4 model answers in wasm and on WebGPU, and its skills have an effect", async () => {
  for (const device of ["wasm", "webgpu"]) {
    const runtime = await remote("tiny-int4", device, [SKILLS[0]]);
    const [base, skill] = [null, "always"].map((name) => runtime.generate("Hello", { skill: name, maxNewTokens: 8 }));
    assert.notEqual((await base).tokenIds.join(), (await skill).tokenIds.join(), device);
    await runtime.page.close();
  }
});

test("skills for another model and tampered ones are refused with Python's messages", async () => {
  const runtime = await remote("tiny-fp32", "wasm", [SKILLS[0]]);
  for (const [file, { error, faults }] of Object.entries(json("refused.json"))) {
    const found = await runtime.page.evaluate(async (url) => {
      try {
        await runtime.loadSkill(url, { name: "other" });
      } catch (caught) {
        return { error: caught.name, faults: [...caught.faults] };
      }
    }, `/files/refused/${file}`);
    assert.deepEqual(found, { error, faults }, file);
  }
  assert.equal(await runtime.page.evaluate(() => runtime.skills().length), 1);
  await runtime.page.close();
});

test("the page: a dropped skill, a reload without network, a refusal that is shown", async () => {
  const page = await opened("?model=/files/tiny-fp32/");
  await page.waitForSelector("#ask:not([disabled])");
  await drop(page, "skills/always.lime");
  await page.waitForFunction(() => [...document.querySelectorAll("#skills option")].some((one) => one.value === "always"));
  await answer(page, "Hello");
  const texts = () => page.$$eval("output", (all) => all.map((one) => one.textContent));
  const [base, skill] = await texts();
  assert.notEqual(base, skill);
  await drop(page, "refused/tampered.lime");
  await page.waitForFunction(() => document.querySelector("#problem").textContent.includes("was changed or damaged"));
  await page.waitForFunction(() => navigator.serviceWorker.controller !== null);
  await page.waitForFunction(async () => (await (await caches.open("lime-page-1")).keys()).length >= 7);
  server.offline(true);
  await page.reload();
  await page.waitForSelector("#ask:not([disabled])");
  await drop(page, "skills/always.lime");
  await page.waitForFunction(() => document.querySelector("#skills").value === "always");
  await answer(page, "Hello");
  assert.deepEqual(await texts(), [base, skill]);
  server.offline(false);
  await page.close();
});

if (hasDemo) test("the demo model answers as in Python", async (context) => {
  const skills = json("demo", "web.json").skills.map(({ file }) => `demo/${file}`);
  const runtime = await remote("demo", "wasm", skills);
  const expected = json("demo.json");
  const equal = await compareAnswers(runtime, expected, DEMO_SCORE_TOLERANCE, false);
  context.diagnostic(`${equal} of ${expected.length} answers are equal, token by token`);
  assert.ok(equal >= LEAST_EQUAL * expected.length);
  await runtime.page.close();
});

if (hasDemo && SHOTS) test("screenshots of the page with the demo model", async () => {
  rmSync(SHOTS, { recursive: true, force: true });
  mkdirSync(SHOTS, { recursive: true });
  const page = await opened("?model=/files/demo/");
  const sizes = { light: [1200, 800, "light"], dark: [1200, 800, "dark"], phone: [390, 844, "light"] };
  await page.waitForSelector("#ask:not([disabled])");
  await page.select("#skills", "shell");
  await answer(page, "List all .jpg files in the current directory tree");
  for (const [name, [width, height, scheme]] of Object.entries(sizes)) {
    await page.setViewport({ width, height });
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    await page.screenshot({ path: join(SHOTS, `${name}.png`) });
  }
  await page.close();
});

async function answer(page, text) {
  await page.$eval("#prompt", (field, value) => (field.value = value), text);
  await page.click("#ask");
  await page.waitForFunction(() => document.querySelector("main").dataset.state === "answered");
}

/** Drop a file of the fixtures on the page. */
async function drop(page, file) {
  const data = [...(await import("node:fs")).readFileSync(fixture(file))];
  await page.evaluate((bytes, name) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], name));
    document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
  }, data, file.split("/").at(-1));
}
