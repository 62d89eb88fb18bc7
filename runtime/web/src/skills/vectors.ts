/** How a skill's vectors are stored: names, shapes, F16, or int8 in blocks with F16 scales. docs/skill-format.md. */

import { fromHalf } from "../common/float16.js";
import { show } from "../common/show.js";
import { Entry, numbers } from "./container.js";

export const STORED = ["expert", "gain", "shift", "rank", "prefix"] as const;
export type Kind = (typeof STORED)[number];

const BLOCK = 32; // consecutive values that share one scale
const LEVELS = 127;
export const SCALE = ".scale";
const MODULE = /^[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}$/;

export function kindOf(name: string): Kind {
  return name.slice(0, name.indexOf(".")) as Kind;
}

function moduleOf(name: string): string {
  return withoutScale(name).slice(name.indexOf(".") + 1);
}

function withoutScale(name: string): string {
  return name.endsWith(SCALE) ? name.slice(0, -SCALE.length) : name;
}

function isName(name: string): boolean {
  const at = name.indexOf(".");
  return at >= 0 && (STORED as readonly string[]).includes(name.slice(0, at)) && MODULE.test(moduleOf(name));
}

/** Faults of names, types and shapes. */
export function formFaults(forms: Map<string, Entry>): string[] {
  const good = [...forms].filter(([name]) => isName(name));
  const faults = [...forms.keys()]
    .filter((name) => !isName(name))
    .map(
      (name) =>
        `tensor ${show(name)}: expected a name <kind>.<module> or <kind>.<module>${SCALE}, kind one of ${STORED.join(", ")}`,
    );
  const values = new Map(good.filter(([name]) => !name.endsWith(SCALE)));
  const scales = new Map(good.filter(([name]) => name.endsWith(SCALE)));
  if (!values.size) faults.push("contains no vectors; expected at least one tensor <kind>.<module>");
  faults.push(...scaleFaults(values, scales), ...familyFaults(values));
  return faults;
}

function shape(entry: Entry): string {
  return `[${entry.rows}, ${entry.columns}]`;
}

function* scaleFaults(values: Map<string, Entry>, scales: Map<string, Entry>): Iterable<string> {
  for (const [name, entry] of values) {
    const found = scales.get(name + SCALE);
    if (entry.dtype !== "int8") {
      if (found) yield `tensor ${name}${SCALE} is not allowed: ${name} is F16`;
    } else if (!found) {
      yield `tensor ${name}${SCALE} is missing: ${name} is I8`;
    } else {
      const blocks = Math.ceil(entry.columns / BLOCK);
      if (found.dtype !== "float16" || found.rows !== entry.rows || found.columns !== blocks) {
        yield `tensor ${name}${SCALE} is ${found.dtype} ${shape(found)}; expected float16 [${entry.rows}, ${blocks}]`;
      }
    }
  }
  for (const name of scales.keys()) {
    if (!values.has(withoutScale(name))) yield `tensor ${name} has no vector: ${withoutScale(name)} is missing`;
  }
}

/** A package has one type; the kinds that act on a module's output have one width. */
function* familyFaults(values: Map<string, Entry>): Iterable<string> {
  if (new Set([...values.values()].map((entry) => entry.dtype)).size > 1) {
    yield "some vectors are F16 and some I8; expected one of them throughout";
  }
  const widths = new Map<string, Map<string, number>>();
  for (const [name, entry] of values) {
    if (!["rank", "prefix"].includes(kindOf(name))) {
      const module = moduleOf(name);
      if (!widths.has(module)) widths.set(module, new Map());
      widths.get(module)!.set(kindOf(name), entry.columns);
    }
  }
  for (const [module, found] of widths) {
    if (new Set(found.values()).size > 1) {
      const listed = [...found].map(([kind, width]) => `'${kind}': ${width}`).join(", ");
      yield `module ${module} has widths {${listed}}; expected one width`;
    }
  }
}

/** Faults of the numbers in tensors with valid names. */
export function numberFaults(forms: Map<string, Entry>, body: Uint8Array): string[] {
  const faults: string[] = [];
  for (const [name, entry] of forms) {
    if (!isName(name)) continue;
    const found = numbers(body, entry);
    if (found instanceof Int8Array) {
      if (found.includes(-128)) faults.push(`tensor ${name} contains -128; expected -${LEVELS} to ${LEVELS}`);
      continue;
    }
    if (!(found instanceof Uint16Array)) continue;
    const values = fromHalf(found);
    if (!values.every(Number.isFinite)) faults.push(`tensor ${name} contains numbers that are not finite`);
    else if (name.endsWith(SCALE) && values.some((value) => value < 0)) {
      faults.push(`tensor ${name} contains negative scales; expected 0 or more`);
    }
  }
  return faults;
}

/** One dequantised vector, [rows, columns]. */
export interface Vector { rows: number; columns: number; values: Float32Array }

/** Dequantise well-formed tensors; the products are exact in float32. */
export function decodeVectors(forms: Map<string, Entry>, body: Uint8Array): Map<string, Vector> {
  const found = new Map<string, Vector>();
  for (const [name, entry] of forms) {
    if (name.endsWith(SCALE)) continue;
    const { rows, columns } = entry;
    const stored = numbers(body, entry);
    if (stored instanceof Uint16Array) {
      found.set(name, { rows, columns, values: fromHalf(stored) });
      continue;
    }
    const scales = fromHalf(numbers(body, forms.get(name + SCALE)!) as Uint16Array);
    const blocks = Math.ceil(columns / BLOCK);
    const values = new Float32Array(rows * columns);
    for (let at = 0; at < values.length; at++) {
      const row = Math.floor(at / columns);
      values[at] = stored[at]! * scales[row * blocks + Math.floor((at % columns) / BLOCK)]!;
    }
    found.set(name, { rows, columns, values });
  }
  return found;
}

/** The largest |value| of each kind present. */
export function peaksOf(vectors: Map<string, Vector>): Map<Kind, number> {
  const peaks = new Map<Kind, number>();
  for (const [name, { values }] of vectors) {
    let peak = peaks.get(kindOf(name)) ?? 0;
    for (const value of values) if (Math.abs(value) > peak) peak = Math.abs(value);
    peaks.set(kindOf(name), peak);
  }
  return peaks;
}
