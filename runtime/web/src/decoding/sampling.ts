/** Samples a token from logits: repetition penalty, temperature, top-k, top-p and a seeded draw. */

import { ModelError } from "../errors.js";

export interface Sampling { temperature: number; topK: number; topP: number; repetitionPenalty: number; seed: number | null }

export class Sampler {
  private readonly seen: Set<number>;
  private readonly random: () => number;

  constructor(private readonly options: Sampling, prompt: readonly number[]) {
    this.seen = new Set(options.repetitionPenalty === 1 ? [] : prompt);
    this.random = generator(options.seed ?? Math.floor(Math.random() * 2 ** 32));
  }

  /** Pick one token; `logits` [V] is left as it was. */
  pick(logits: Float32Array): number {
    const { temperature, repetitionPenalty } = this.options;
    let values = logits;
    if (repetitionPenalty !== 1) {
      values = logits.slice();
      for (const id of this.seen) values[id] = values[id]! > 0 ? values[id]! / repetitionPenalty : values[id]! * repetitionPenalty;
    }
    const best = argmax(values);
    if (!Number.isFinite(values[best])) throw new ModelError("the graph's logits are not finite: export again");
    const id = temperature > 0 ? this.draw(values, values[best]!) : best;
    if (repetitionPenalty !== 1) this.seen.add(id);
    return id;
  }

  private draw(values: Float32Array, most: number): number {
    const { temperature, topK, topP } = this.options;
    let kept = Array.from(values, (value, id): [number, number] => [id, Math.exp((value - most) / temperature)]);
    if (topK > 0 && topK < kept.length) kept = kept.sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, topK);
    if (topP < 1) {
      kept.sort((a, b) => b[1] - a[1] || a[0] - b[0]);
      const target = topP * kept.reduce((sum, [, weight]) => sum + weight, 0);
      let sum = 0;
      kept = kept.slice(0, kept.findIndex(([, weight]) => (sum += weight) >= target) + 1 || kept.length);
    }
    let left = this.random() * kept.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [id, weight] of kept) if ((left -= weight) < 0) return id;
    return kept.at(-1)![0];
  }
}

export function argmax(values: Float32Array): number {
  let best = 0;
  for (let at = 1; at < values.length; at++) if (!(values[at]! <= values[best]!)) best = at;
  return best;
}

/** log P of some tokens. */
export function logProbability(logits: Float32Array, id: number): number {
  const most = logits[argmax(logits)]!;
  let sum = 0;
  for (const value of logits) sum += Math.exp(value - most);
  return logits[id]! - most - Math.log(sum);
}

/** Uniform numbers in [0, 1) from a seed (mulberry32); other numbers than Python's for the same seed. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
