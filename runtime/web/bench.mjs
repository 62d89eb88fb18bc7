/**
 * Decoding speed of an exported model in Node and in Chromium: `node bench.mjs MODEL [node|wasm|webgpu]`.
 * Prints one line of JSON: milliseconds a token of several answers, one thread.
 */

import { launch } from "puppeteer-core";
import { Runtime } from "./dist/node.js";
import { serve } from "./serve.mjs";

const [folder, device = "node"] = process.argv.slice(2);
const PROMPT = "Write a short story about a lighthouse.";
const SETTINGS = { maxNewTokens: 33, skill: null };
const ROUNDS = 4; // the first warms up

const milliseconds = ({ timings }) => timings.decodeMilliseconds / (timings.newTokens - 1);
const found = device === "node" ? await inNode() : await inChromium();
const [, ...counted] = found.map((one) => Number(one.toFixed(1)));
console.log(JSON.stringify({ device, milliseconds_a_token: counted, best: Math.min(...counted) }));

async function inNode() {
  const runtime = await Runtime.load(folder, { threads: 1 });
  const times = [];
  for (let round = 0; round < ROUNDS; round++) times.push(milliseconds(await runtime.generate(PROMPT, SETTINGS)));
  await runtime.close();
  return times;
}

async function inChromium() {
  const server = await serve(folder);
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  const browser = await launch({ executablePath, args: ["--no-sandbox"], protocolTimeout: 600_000 });
  try {
    const page = await browser.newPage();
    await page.goto(`${server.url}test.html`);
    const answers = await page.evaluate(async (chosen, prompt, settings, rounds) => {
      const { Runtime } = await import("/package/browser.js");
      const runtime = await Runtime.load("/files/", { device: chosen, threads: 1, cache: false, ort: "/ort/" });
      const all = [];
      for (let round = 0; round < rounds; round++) all.push(await runtime.generate(prompt, settings));
      return all;
    }, device, PROMPT, SETTINGS, ROUNDS);
    return answers.map(milliseconds);
  } finally {
    await browser.close();
    await server.close();
  }
}
