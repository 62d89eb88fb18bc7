/** Proves a skill on this graph: its golden prompts must change the logits as its author measured. */

import { SkillProofError } from "../errors.js";
import { general } from "../common/show.js";
import { Engine } from "../model/engine.js";
import { Golden } from "../skills/manifest.js";
import { Text } from "../text/text.js";
import { Applied, rowsOf } from "./answer.js";

const LEAST_COSINE = 0.8; // as in Python for other precisions than fp32
const SIZE_RANGE = [0.5, 2] as const;
const LEAST_CHANGE = 1e-3;

/** Throws SkillProofError with each golden prompt that does not reproduce. */
export async function prove(engine: Engine, text: Text, name: string, golden: Golden[], applied: Applied): Promise<void> {
  if (!golden.length) throw new SkillProofError(`skill '${name}' has no golden prompts: learn it again, or pass prove: false`);
  const faults: string[] = [];
  for (const [at, entry] of golden.entries()) {
    for (const fault of await entryFaults(engine, text, entry, applied)) faults.push(`golden prompt ${at}: ${fault}`);
  }
  if (faults.length) {
    throw new SkillProofError(`skill '${name}' does not reproduce what its author measured: it was not loaded`, faults);
  }
}

async function entryFaults(engine: Engine, text: Text, entry: Golden, applied: Applied): Promise<string[]> {
  const tokens = text.known(entry.prompt_ids);
  const highest = Math.max(...entry.prompt_ids, ...entry.top_ids);
  if (tokens.ids.length > engine.contextLength || highest >= engine.web.vocabulary) {
    return [`${tokens.ids.length} tokens with ids up to ${highest}; the model has room for ${engine.contextLength} and ${engine.web.vocabulary} ids`];
  }
  const base: Applied = { row: engine.base, activation: "always", draft: null };
  const logits: Float32Array[] = [];
  for (const one of [base, applied]) {
    engine.rewind(0);
    logits.push((await engine.prefill(tokens.ids, rowsOf(engine, tokens, one), () => undefined)).logits);
  }
  const found = entry.top_ids.map((id) => logits[1]![id]! - logits[0]![id]!);
  const wanted = entry.skill_logits.map((value, at) => value - entry.base_logits[at]!);
  if (Math.max(...found.map(Math.abs)) <= LEAST_CHANGE) {
    return [`the skill changes no logit by more than ${general(LEAST_CHANGE)} on this graph`];
  }
  const [size, expected] = [Math.hypot(...found), Math.hypot(...wanted)];
  if (!(expected > 0)) return ["in its author's measurement the skill changes nothing"];
  const faults = [];
  const cosine = found.reduce((sum, value, at) => sum + value * wanted[at]!, 0) / (size * expected);
  if (!(cosine >= LEAST_COSINE)) {
    faults.push(`the change has another direction: cosine ${cosine.toFixed(2)}; expected at least ${LEAST_COSINE}`);
  }
  if (!(SIZE_RANGE[0] <= size / expected && size / expected <= SIZE_RANGE[1])) {
    faults.push(`the change is ${(size / expected).toFixed(2)} times its author's; expected ${SIZE_RANGE[0]} to ${SIZE_RANGE[1]}`);
  }
  return faults;
}
