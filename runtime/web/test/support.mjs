/** Fixtures that `python -m tests.tools.platforms.web_fixtures` wrote, and what several tests share. */

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

export const FIXTURES = process.env.LIME_FIXTURES ?? "";
assert.ok(existsSync(join(FIXTURES, "expected.json")), "LIME_FIXTURES names no folder of tests.tools.platforms.web_fixtures: make web-test");

export const fixture = (...parts) => join(FIXTURES, ...parts);
export const bytes = (...parts) => new Uint8Array(readFileSync(fixture(...parts)));
export const json = (...parts) => JSON.parse(readFileSync(fixture(...parts), "utf8"));
export const hasDemo = existsSync(join(FIXTURES, "demo.json"));

/** Kernels of other platforms sum in another order: fp32 scores of whole answers stay within this. */
export const SCORE_TOLERANCE = 2e-3;
/** wasm and native round activations differently in int4, so likely answers can change places where they nearly tie. */
export const DEMO_SCORE_TOLERANCE = 3;
/** Of the answers of the demo model: at least this share equal Python's, token by token. */
export const LEAST_EQUAL = 0.7;

/** Compare answers and scores with Python's; returns how many answers are equal. */
export async function compareAnswers(runtime, expected, tolerance, exact) {
  let equal = 0;
  for (const entry of expected) {
    const { skill, prompt, count } = entry;
    const found = await runtime.generate(prompt, { skill, maxNewTokens: count });
    const same = found.tokenIds.join() === entry.ids.join();
    if (exact) assert.equal(found.tokenIds.join(), entry.ids.join(), `${skill}: ${prompt}`);
    if (same) {
      equal++;
      assert.equal(found.text, entry.text, `${skill}: ${prompt}`);
      assert.equal(found.finishReason, entry.reason);
    }
    const chosen = await runtime.choose(prompt, entry.choices, { skill });
    entry.choices.forEach((choice, at) => {
      const off = Math.abs(chosen.scores[choice] - entry.scores[at]);
      assert.ok(off <= tolerance, `${skill}: ${prompt}: ${choice} is off by ${off}`);
    });
  }
  return equal;
}
