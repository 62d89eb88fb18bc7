/** The runtime in Node: answers of the Python package, and no answers of the base under the name of a skill. */

import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { ConfigError, FetchError, ModelError, Runtime, SkillMismatchError, UnknownSkillError } from "../dist/node.js";
import { bytes, compareAnswers, DEMO_SCORE_TOLERANCE, fixture, hasDemo, json, LEAST_EQUAL, SCORE_TOLERANCE } from "./support.mjs";

const tiny = await Runtime.load(fixture("tiny-fp32"), { threads: 1, context: 200 });
for (const name of ["always", "response", "stopping"]) await tiny.loadSkill(fixture("skills", `${name}.lime`));

test("answers and scores are Python's", async () => {
  const expected = json("expected.json");
  assert.equal(await compareAnswers(tiny, expected, SCORE_TOLERANCE, true), expected.length);
});

test("a skill is never the base in silence", async () => {
  const ids = async (skill) => (await tiny.generate("Hello", { skill, maxNewTokens: 8 })).tokenIds.join();
  const base = await ids(null);
  for (const name of ["always", "response"]) assert.notEqual(await ids(name), base);
  assert.equal(await ids(null), base);
  await assert.rejects(Runtime.load(fixture("optional")), /the graph has no input lime.row/);
});

test("changed files are refused", async () => {
  const copy = mkdtempSync(join(tmpdir(), "lime-web-"));
  try {
    cpSync(fixture("tiny-fp32"), copy, { recursive: true });
    const document = JSON.parse(readFileSync(join(copy, "web.json"), "utf8"));
    document.variants.node = ["model.onnx", "missing.data"];
    writeFileSync(join(copy, "web.json"), JSON.stringify(document));
    await assert.rejects(Runtime.load(copy), ModelError);
    cpSync(fixture("tiny-fp32"), copy, { recursive: true });
    const graph = readFileSync(join(copy, "model.onnx"));
    graph[graph.length >> 1] ^= 1;
    writeFileSync(join(copy, "model.onnx"), graph);
    await assert.rejects(Runtime.load(copy), FetchError); // its digest is another
  } finally {
    rmSync(copy, { recursive: true });
  }
});

test("the active skill, its receipt, and requests that name another", async () => {
  tiny.useSkill("always");
  const found = await tiny.generate("Hello", { maxNewTokens: 4 });
  assert.equal(found.receipt.skill, tiny.skills()[0].digest);
  assert.equal((await tiny.generate("Hello", { skill: null, maxNewTokens: 4 })).receipt.skill, null);
  assert.throws(() => tiny.unloadSkill("always"), ConfigError);
  tiny.useSkill(null);
  assert.throws(() => tiny.useSkill("nobody"), UnknownSkillError);
});

test("requests at the same time do not see each other's skills", async () => {
  const names = [null, "always", "response", "always", null];
  const alone = new Map();
  for (const skill of new Set(names)) alone.set(skill, (await tiny.generate("is it so?", { skill, maxNewTokens: 6 })).text);
  const together = await Promise.all(names.map((skill) => tiny.generate("is it so?", { skill, maxNewTokens: 6 })));
  assert.deepEqual(together.map(({ text }) => text), names.map((skill) => alone.get(skill)));
});

test("streams give the pieces of the whole answer and can be left", async () => {
  const stream = tiny.stream("Hello", { skill: "always", maxNewTokens: 10 });
  let text = "";
  let step;
  while (!(step = await stream.next()).done) text += step.value;
  assert.equal(step.value.text, text);
  for await (const piece of tiny.stream("Hello", { maxNewTokens: 10 })) {
    assert.ok(piece);
    break;
  }
  const stop = new AbortController();
  stop.abort();
  assert.equal((await tiny.generate("Hello", { signal: stop.signal })).finishReason, "cancelled");
  assert.equal((await tiny.generate("Hello", { skill: "always", maxNewTokens: 10 })).text, text);
});

test("answers that must be one of several texts are the likeliest", async () => {
  const answers = ["yes", "no", "not yet"];
  const { label } = await tiny.choose("Hello", answers, { skill: "always" });
  assert.equal((await tiny.generate("Hello", { skill: "always", answers })).text, label);
});

test("bad requests name what is wrong and leave the runtime usable", async () => {
  const before = (await tiny.generate("Hello", { maxNewTokens: 3 })).text;
  await assert.rejects(tiny.generate("Hello", { temperature: 11, topK: 0.5, colour: 1 }), (error) => error.faults.length === 3);
  await assert.rejects(tiny.generate("x".repeat(5000)), /prompt tokens/);
  await assert.rejects(tiny.generate([{ role: "king", content: "x" }]), /has the role 'king'/);
  await assert.rejects(tiny.generate("a\ud800"), /lone surrogate/);
  await assert.rejects(tiny.loadSkill(fixture("skills", "always.lime")), /already loaded/);
  await assert.rejects(tiny.loadSkill(fixture("refused", "other-backbone.lime"), { name: "other" }), SkillMismatchError);
  await assert.rejects(tiny.loadSkill(fixture("nothing.lime")), /does not exist/);
  await assert.rejects(tiny.loadSkill(fixture("skills")), /not a regular file/);
  assert.equal((await tiny.generate("Hello", { maxNewTokens: 3 })).text, before);
  assert.equal(tiny.skills().length, 3);
});

test("a seed gives the same sample again", async () => {
  const sample = async (seed) => (await tiny.generate("Hello", { temperature: 1.5, topK: 50, topP: 0.95, seed, maxNewTokens: 8 })).tokenIds.join();
  assert.equal(await sample(7), await sample(7));
  assert.notEqual(await sample(7), await sample(8));
});

test("with keys, only signed skills are loaded", async () => {
  const pem = new TextDecoder().decode(bytes("signed", "secp256r1", "public.pem"));
  const runtime = await Runtime.load(fixture("tiny-int4"), { threads: 1, keys: [pem] });
  await assert.rejects(runtime.loadSkill(fixture("skills", "always.lime")), /there is no signature/);
  const info = await runtime.loadSkill(fixture("signed", "secp256r1", "always.lime"));
  assert.equal(info.signer, new TextDecoder().decode(bytes("signed", "secp256r1", "id.txt")));
  await runtime.close();
});

if (hasDemo) test("the demo model answers as in Python", async (context) => {
  const demo = await Runtime.load(fixture("demo"), { threads: 1 });
  for (const { file } of demo.listed) await demo.loadSkill(fixture("demo", file), { prove: false });
  const expected = json("demo.json");
  const equal = await compareAnswers(demo, expected, DEMO_SCORE_TOLERANCE, false);
  context.diagnostic(`${equal} of ${expected.length} answers are equal, token by token`);
  assert.ok(equal >= LEAST_EQUAL * expected.length);
  await demo.close();
});
