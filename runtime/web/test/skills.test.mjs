/** Packages: the rows of valid ones equal Python's byte for byte, all others are refused with Python's messages. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdirSync } from "node:fs";
import { test } from "node:test";
import {
  checkSkill, packRow, readContract, readKey, readSkill, SkillFormatError, SkillTrustError, toHalf, verifySignature,
} from "../dist/node.js";
import { bytes, fixture, json } from "./support.mjs";

const sha = (array) => createHash("sha256").update(new Uint8Array(array.buffer)).digest("hex");
const model = await readContract(bytes("tiny-fp32", "lime.json"));

test("rows of 200 random skills have Python's bytes, in float32 and in float16", async () => {
  const expected = json("packed_rows.json");
  const files = readdirSync(fixture("packed")).sort();
  assert.equal(files.length, 200);
  for (const [at, file] of files.entries()) {
    const skill = await readSkill(bytes("packed", file), file);
    const row = packRow(model, skill.vectors);
    assert.deepEqual([sha(row), sha(toHalf(row))], expected[at], file);
  }
});

test("every file of the corpus is refused with Python's faults", async () => {
  const index = Object.entries(json("corpus", "index.json")).filter(([file]) => /^\d{3}-/.test(file));
  assert.ok(index.length > 300);
  for (const [file, faults] of index) {
    await assert.rejects(readSkill(bytes("corpus", file), file), (error) => {
      assert.ok(error instanceof SkillFormatError, `${file}: ${error}`);
      for (const fault of faults) assert.ok(error.message.includes(fault), `${file}: ${fault} is not in ${error.message.slice(0, 300)}`);
      return true;
    });
  }
});

test("skills for other models and damaged ones are refused with Python's faults", async () => {
  const index = Object.entries(json("refused.json"));
  assert.ok(index.length >= 4);
  for (const [file, { error, faults }] of index) {
    const check = async () => checkSkill(await readSkill(bytes("refused", file), file), model);
    await assert.rejects(check, (found) => {
      assert.equal(found.name, error, file);
      assert.deepEqual(found.faults, faults, file);
      return true;
    });
  }
});

for (const curve of ["secp256r1", "secp384r1", "secp521r1"]) {
  test(`signatures over ${curve}`, async () => {
    const [data, signature] = [bytes("signed", curve, "always.lime"), bytes("signed", curve, "always.lime.sig")];
    const text = (name) => new TextDecoder().decode(bytes("signed", curve, name));
    const key = await readKey(text("public.pem"));
    assert.equal(key.id, text("id.txt"));
    assert.equal(await verifySignature(data, signature, "always.lime", [key]), key.id);
    const refused = (...given) => assert.rejects(verifySignature(...given), SkillTrustError);
    await refused(data, null, "always.lime", [key]);
    await refused(data, signature, "other.lime", [key]);
    await refused(data.with(-1, data.at(-1) ^ 1), signature, "always.lime", [key]);
    await refused(data, signature, "always.lime", []);
    const changed = JSON.parse(new TextDecoder().decode(signature));
    const payload = JSON.parse(atob(changed.dsseEnvelope.payload));
    payload.subject[0].name = "other.lime";
    changed.dsseEnvelope.payload = btoa(JSON.stringify(payload));
    await refused(data, new TextEncoder().encode(JSON.stringify(changed)), "other.lime", [key]);
    await refused(data, new TextEncoder().encode("{}"), "always.lime", [key]);
  });
}
