/** Answers one prompt: the decoding loop, and the scores of given answers. */

import { ConfigError } from "../errors.js";
import { Engine, Row } from "../model/engine.js";
import { Text, TextStream, Tokens } from "../text/text.js";
import { DraftTable } from "../skills/draftTable.js";
import { Drafter } from "./drafts.js";
import { logProbability, Sampler, Sampling } from "./sampling.js";

export interface Options extends Sampling { maxNewTokens: number; stop: readonly string[]; speculate: boolean }
export interface Applied { row: Row; activation: "always" | "response"; draft: DraftTable | null }
export interface Timings {
  prefillMilliseconds: number; decodeMilliseconds: number; promptTokens: number; reusedTokens: number; newTokens: number;
  draftedTokens: number; acceptedTokens: number;
}
export interface Answer { text: string; tokenIds: number[]; finishReason: "stop" | "length" | "cancelled"; timings: Timings }

/** The vectors of each prompt token: the base before the skill begins. */
export function rowsOf(engine: Engine, tokens: Tokens, applied: Applied): Row[] {
  const start = applied.activation === "response" ? tokens.boundary : 0;
  return tokens.ids.map((_, at) => (at >= start ? applied.row : engine.base));
}

/** Answer a prompt piece by piece; the value at the end is the whole answer. */
export async function* answer(
  engine: Engine, text: Text, tokens: Tokens, applied: Applied, options: Options, signal: AbortSignal | null,
): AsyncGenerator<string, Answer> {
  checkRoom(engine, tokens, options.maxNewTokens);
  const started = performance.now();
  const ends = new Set([...text.ends, ...text.stopIds(options.stop)]);
  const stream = new TextStream(text, options.stop);
  const sampler = new Sampler(options, tokens.ids);
  const drafter = applied.draft && options.speculate && engine.device !== "webgpu" ? new Drafter(tokens.ids, applied.draft, ends) : null;
  const ids: number[] = [];
  let whole = "";
  let reason: Answer["finishReason"] | "" = "";
  let first = started;
  let reused = 0;
  let logits: Float32Array[] = [];
  let draft: number[] = [];
  try {
    const read = await engine.prefill(tokens.ids, rowsOf(engine, tokens, applied), () => signal?.throwIfAborted());
    logits = [read.logits];
    reused = read.reused;
  } catch (error) {
    if (!signal?.aborted) throw error;
    reason = "cancelled";
  }
  while (!reason) {
    let taken = 0;
    for (const values of logits) {
      const id = sampler.pick(values);
      const right = id === draft[taken];
      taken++;
      ids.push(id);
      drafter?.accept(id);
      if (ids.length === 1) first = performance.now();
      let piece: string;
      if (ends.has(id)) {
        reason = "stop";
        piece = stream.flush();
      } else {
        piece = stream.push(id);
        if (stream.stopped) reason = "stop";
        else if (ids.length === options.maxNewTokens) {
          reason = "length";
          piece += stream.flush();
        }
      }
      whole += piece;
      if (piece) yield piece;
      if (reason || !right) break;
      drafter!.accepted++;
    }
    engine.rewind(tokens.ids.length + ids.length - 1); // drafts that were wrong
    if (!reason && signal?.aborted) reason = "cancelled";
    if (reason) break;
    draft = drafter?.propose(options.maxNewTokens - ids.length - 1) ?? [];
    logits = await engine.extend([ids.at(-1)!, ...draft], applied.row, 1 + draft.length);
  }
  if (reason === "cancelled") {
    const rest = stream.flush();
    whole += rest;
    if (rest) yield rest;
  }
  const now = performance.now();
  const timings = {
    prefillMilliseconds: first - started, decodeMilliseconds: now - first, promptTokens: tokens.ids.length,
    reusedTokens: reused, newTokens: ids.length, draftedTokens: drafter?.drafted ?? 0, acceptedTokens: drafter?.accepted ?? 0,
  };
  return { text: whole, tokenIds: ids, finishReason: reason as Answer["finishReason"], timings };
}

function checkRoom(engine: Engine, tokens: Tokens, count: number): void {
  const size = tokens.ids.length;
  if (size + count > engine.contextLength) {
    throw new ConfigError("the prompt does not fit into the model's context", [
      `${size} prompt tokens + ${count} new ones; expected at most ${engine.contextLength} together: ` +
        "shorten the prompt, ask for fewer tokens, or load the model with a larger context",
    ]);
  }
}

/** log P(choice + end of turn | prompt) of every choice. The cache holds the prompt afterwards. */
export async function score(
  engine: Engine, text: Text, tokens: Tokens, applied: Applied, choices: readonly string[], signal: AbortSignal | null,
): Promise<Map<string, number>> {
  const encoded = choices.map((choice): [string, number[]] => [choice, [...text.encode(choice), text.endOfTurn]]);
  checkRoom(engine, tokens, Math.max(...encoded.map(([, ids]) => ids.length)));
  const { logits: after } = await engine.prefill(tokens.ids, rowsOf(engine, tokens, applied), () => signal?.throwIfAborted());
  const size = tokens.ids.length;
  const found = new Map<string, number>();
  for (const [choice, ids] of encoded) {
    signal?.throwIfAborted();
    let sum = logProbability(after, ids[0]!);
    if (ids.length > 1) {
      const inputs = ids.slice(0, -1);
      const logits = await engine.extend(inputs, applied.row, inputs.length);
      for (let at = 1; at < ids.length; at++) sum += logProbability(logits[at - 1]!, ids[at]!);
      engine.rewind(size);
    }
    found.set(choice, sum);
  }
  return found;
}
