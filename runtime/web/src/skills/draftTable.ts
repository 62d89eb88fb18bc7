/** The draft table of a skill: the token that most probably follows the last few. Format: docs/skill-format.md. */

import { record, whole } from "../common/checks.js";
import { show } from "../common/show.js";
import { Entry, numbers } from "./container.js";

const TABLE_LIMIT = 64 * 1024; // bytes of the four tensors
const ORDER_LIMIT = 6;
const LEVELS = 255;
const [TOKENS, CONTEXTS, NEXT, PROBABILITY] = ["draft.tokens", "draft.contexts", "draft.next", "draft.probability"];
const TYPES: Record<string, string> = { [TOKENS]: "int32", [CONTEXTS]: "uint16", [NEXT]: "uint16", [PROBABILITY]: "uint8" };

/** The check of `draft` in a manifest. */
export const DRAFT = record({ order: whole(2, ORDER_LIMIT), entries: whole(1, TABLE_LIMIT) });

export interface DraftMeta { order: number; entries: number }

/** Faults of names, types and shapes; none if there is no table. */
export function draftFormFaults(forms: Map<string, Entry>): string[] {
  if (!forms.size) return [];
  const known = Object.keys(TYPES);
  const faults = [...forms.keys()].filter((name) => !(name in TYPES)).map(
    (name) => `tensor ${show(name)}: expected one of ${known.join(", ")}`,
  );
  for (const name of known) {
    if (!forms.has(name)) faults.push(`tensor ${name} is missing: a draft table has ${known.join(", ")}`);
  }
  if (faults.length) return faults;
  const { rows: entries, columns } = forms.get(CONTEXTS)!;
  const shapes: Record<string, [number, number]> = {
    [TOKENS]: [forms.get(TOKENS)!.rows, 1],
    [CONTEXTS]: [entries, Math.min(columns, ORDER_LIMIT - 1)],
  };
  let size = 0;
  for (const name of known) {
    const form = forms.get(name)!;
    const [rows, wide] = shapes[name] ?? [entries, 1];
    size += form.end - form.begin;
    if (form.dtype !== TYPES[name] || form.rows !== rows || form.columns !== wide) {
      faults.push(
        `tensor ${name} is ${form.dtype} [${form.rows}, ${form.columns}]; expected ${TYPES[name]} [${rows}, ${wide}]`,
      );
    }
  }
  if (size > TABLE_LIMIT) faults.push(`the draft table has ${size} bytes; expected at most ${TABLE_LIMIT}`);
  return faults;
}

export function draftMeta(forms: Map<string, Entry>): DraftMeta | null {
  const form = forms.get(CONTEXTS);
  return form ? { order: form.columns + 1, entries: form.rows } : null;
}

/** A back-off n-gram table: at most one next token for every context of 1 to order - 1 tokens. */
export class DraftTable {
  readonly order: number;
  readonly largestId: number;
  readonly faults: string[];
  private readonly following = new Map<string, [number, number]>();

  /** From well-formed tensors; `faults` says whether their numbers are valid. */
  constructor(forms: Map<string, Entry>, body: Uint8Array) {
    const ids = numbers(body, forms.get(TOKENS)!) as Int32Array;
    const contexts = numbers(body, forms.get(CONTEXTS)!) as Uint16Array;
    const next = numbers(body, forms.get(NEXT)!) as Uint16Array;
    const levels = numbers(body, forms.get(PROBABILITY)!) as Uint8Array;
    const width = forms.get(CONTEXTS)!.columns;
    this.order = width + 1;
    this.largestId = ids[ids.length - 1]!;
    this.faults = [...numberFaults(ids, contexts, next, levels, width)];
    if (this.faults.length) return;
    for (let row = 0; row < next.length; row++) {
      const context = [...contexts.subarray(row * width, (row + 1) * width)].filter((number) => number > 0);
      this.following.set(context.map((number) => ids[number - 1]).join(), [ids[next[row]! - 1]!, levels[row]! / LEVELS]);
    }
  }

  /** Token and probability after the longest known end of a context; null if no end is known. */
  next(context: readonly number[]): [number, number] | null {
    const recent = context.slice(-(this.order - 1));
    for (let start = 0; start < recent.length; start++) {
      const found = this.following.get(recent.slice(start).join());
      if (found) return found;
    }
    return null;
  }
}

function* numberFaults(
  ids: Int32Array, contexts: Uint16Array, next: Uint16Array, levels: Uint8Array, width: number,
): Iterable<string> {
  const count = ids.length;
  if (ids.some((id, at) => id < 0 || (at > 0 && id <= ids[at - 1]!))) {
    yield `tensor ${TOKENS} is not a rising sequence of token ids from 0`;
  }
  const most = contexts.reduce((a, b) => Math.max(a, b), 0);
  if (most > count) yield `tensor ${CONTEXTS} reaches ${most}; expected at most ${count}, the number of tokens`;
  if (contexts.some((one, at) => one === 0 && (at % width === width - 1 || contexts[at - 1]! > 0) && (at % width > 0 || width === 1))) {
    yield `tensor ${CONTEXTS} has rows that are empty or not aligned to the right`;
  }
  if (!rising(contexts, width)) yield `tensor ${CONTEXTS} has rows that repeat or are not sorted`;
  if (next.some((one) => one < 1 || one > count)) {
    const low = next.reduce((a, b) => Math.min(a, b));
    const high = next.reduce((a, b) => Math.max(a, b));
    yield `tensor ${NEXT} has numbers from ${low} to ${high}; expected 1 to ${count}`;
  }
  if (levels.includes(0)) yield `tensor ${PROBABILITY} contains 0; expected 1 to ${LEVELS}`;
  const used = new Set([...contexts, ...next]);
  let unused = 0;
  for (let id = 1; id <= count; id++) if (!used.has(id)) unused++;
  if (unused) yield `tensor ${TOKENS} has ${unused} tokens that no entry uses`;
}

function rising(rows: Uint16Array, width: number): boolean {
  for (let at = width; at < rows.length; at += width) {
    let column = 0;
    while (column < width && rows[at + column] === rows[at - width + column]) column++;
    if (column === width || rows[at + column]! < rows[at - width + column]!) return false;
  }
  return true;
}
