/**
 * Checks of untrusted JSON: each takes the path of a value and the value, and adds one line for each fault, with the
 * value found and the value expected. They compose and never throw.
 */

import { byCodePoint, Json, JsonObject, Real } from "./json.js";
import { characters, general, show } from "./show.js";

export type Check = (where: string, value: Json | undefined, faults: string[]) => void;

export interface TextRules { least?: number; pattern?: string; what?: string; controls?: string }

const CONTROL = /[\p{Cc}\p{Cs}]/u;

/** A text of `least` to `limit` characters that matches `pattern` from end to end. */
export function text(limit: number, rules: TextRules = {}): Check {
  const { least = 0, pattern = "", what = "text", controls = "" } = rules;
  const expected = least
    ? `${what} of ${least} to ${limit} characters`
    : `${what} of at most ${limit} characters`;
  const matching = new RegExp(`^(?:${pattern})$`);
  return (where, value, faults) => {
    const size = typeof value === "string" ? characters(value) : -1;
    if (typeof value !== "string" || size < least || size > limit) {
      faults.push(`${where} is ${show(value)}; expected ${expected}`);
    } else if (pattern && !matching.test(value)) {
      faults.push(`${where} is ${show(value)}; expected ${expected}, matching ${pattern}`);
    } else if (CONTROL.test(value)) {
      const bad = new Set([...value].filter((char) => CONTROL.test(char) && !allowed(char, controls)));
      if (bad.size) {
        const listed = show([...bad].sort(byCodePoint));
        faults.push(`${where} contains ${listed}; expected no control or surrogate characters`);
      }
    }
  };
}

function allowed(char: string, controls: string): boolean {
  return !/\p{Cs}/u.test(char) && (controls === "all" || controls.includes(char));
}

/** A finite number from `low` to `high`. */
export function number(low: number, high: number): Check {
  return (where, value, faults) => {
    const real = value instanceof Real ? value.value : value;
    if ((typeof real !== "number" && typeof real !== "bigint") || !(low <= real && real <= high)) {
      faults.push(`${where} is ${show(value)}; expected a number from ${general(low)} to ${general(high)}`);
    }
  };
}

/** A whole number; 2.0 is none. */
export function whole(low: number, high: number): Check {
  return (where, value, faults) => {
    if ((typeof value !== "number" && typeof value !== "bigint") || !(low <= value && value <= high)) {
      faults.push(`${where} is ${show(value)}; expected a whole number from ${low} to ${high}`);
    }
  };
}

export function oneOf(...values: string[]): Check {
  return (where, value, faults) => {
    if (typeof value !== "string" || !values.includes(value)) {
      faults.push(`${where} is ${show(value)}; expected one of ${values.join(", ")}`);
    }
  };
}

export const flag: Check = (where, value, faults) => {
  if (typeof value !== "boolean") faults.push(`${where} is ${show(value)}; expected true or false`);
};

export const anything: Check = () => undefined;

/** A check that also accepts null. */
export function nullable(inner: Check): Check {
  return (where, value, faults) => {
    if (value !== null) inner(where, value, faults);
  };
}

/** A list of `least` to `limit` values that each pass `item`. */
export function sequence(item: Check, limit: number, least = 0): Check {
  return (where, value, faults) => {
    if (!Array.isArray(value) || value.length < least || value.length > limit) {
      const found = Array.isArray(value) ? `a list of ${value.length}` : show(value);
      faults.push(`${where} is ${found}; expected a list of ${least} to ${limit}`);
      return;
    }
    value.forEach((element, at) => item(`${where}[${at}]`, element, faults));
  };
}

/** A list of texts that must not repeat. */
export function distinct(inner: Check): Check {
  return (where, value, faults) => {
    const found: string[] = [];
    inner(where, value, found);
    faults.push(...found);
    if (!found.length && new Set(value as Json[]).size < (value as Json[]).length) {
      const twice = (value as Json[]).find((one, at, all) => all.indexOf(one, at + 1) >= 0);
      faults.push(`${where} contains ${show(twice)} twice; expected distinct texts`);
    }
  };
}

/** An object with exactly the `required` keys and some of the `optional` ones. */
export function record(required: Record<string, Check>, optional: Record<string, Check> = {}): Check {
  const known: Record<string, Check> = { ...required, ...optional };
  const listed = Object.keys(known).join(", ");
  return (where, value, faults) => {
    if (!(value instanceof Map)) {
      faults.push(`${where} is ${show(value)}; expected an object with ${listed}`);
      return;
    }
    for (const key of [...value.keys()].filter((one) => !Object.hasOwn(known, one)).sort(byCodePoint)) {
      faults.push(`${where} has the unknown key ${show(key)}; known are ${listed}`);
    }
    for (const key of Object.keys(required)) if (!value.has(key)) faults.push(`${where} lacks the key '${key}'`);
    for (const [key, inner] of Object.entries(known)) {
      if (value.has(key)) inner(`${where}.${key}`, value.get(key), faults);
    }
  };
}

/** A validated value in JavaScript's own types: objects, numbers. */
export function plain(value: Json): unknown {
  if (value instanceof Real) return value.value;
  if (typeof value === "bigint") return Number(value);
  if (Array.isArray(value)) return value.map(plain);
  if (value instanceof Map) return Object.fromEntries([...(value as JsonObject)].map(([key, one]) => [key, plain(one)]));
  return value;
}
