/** Values in messages as the Python package shows them: a repr of bounded length, safe for values of any depth. */

import { byCodePoint, Json, pythonFloat, Real } from "./json.js";

const MOST = 80; // characters of a text or a number
const WIDTH = 400; // characters of one value
const LISTED = 40; // faults in one error; the rest are counted

export function show(value: Json | undefined): string {
  const text = shown(value === undefined ? null : value, 3);
  return text.length <= WIDTH ? text : `${text.slice(0, WIDTH)}...`;
}

/** The first faults, at most a screenful, and the number of the others. */
export function bounded(faults: readonly string[]): readonly string[] {
  const rest = faults.length - LISTED;
  return rest <= 0 ? faults : [...faults.slice(0, LISTED), `and ${rest} more faults`];
}

/** The number of characters (code points) of a text. */
export function characters(text: string): number {
  let count = text.length;
  for (let at = 0; at < text.length - 1; at++) {
    const code = text.charCodeAt(at);
    const next = text.charCodeAt(at + 1);
    if (code >= 0xd800 && code < 0xdc00 && next >= 0xdc00 && next < 0xe000) count--, at++;
  }
  return count;
}

/** A number with at most six significant digits, as Python's format "g". */
export function general(value: number): string {
  if (!Number.isFinite(value)) return pythonFloat(value);
  if (value === 0) return "0";
  const [digits, exponent] = value.toExponential(5).split("e") as [string, string];
  const power = Number(exponent);
  if (power < -4 || power >= 6) {
    const short = digits.includes(".") ? digits.replace(/\.?0+$/, "") : digits;
    return `${short}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
  }
  const fixed = value.toFixed(Math.max(0, 5 - power));
  return fixed.includes(".") ? fixed.replace(/\.?0+$/, "") : fixed;
}

function shown(value: Json, level: number): string {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "string") return shownText(value);
  if (value instanceof Real) return cut(pythonFloat(value.value));
  if (typeof value === "number" || typeof value === "bigint") return cut(String(value));
  if (Array.isArray(value)) {
    if (!value.length) return "[]";
    if (level <= 0) return "[...]";
    const parts = value.slice(0, 6).map((one) => shown(one, level - 1));
    return `[${[...parts, ...(value.length > 6 ? ["..."] : [])].join(", ")}]`;
  }
  if (!value.size) return "{}";
  if (level <= 0) return "{...}";
  const keys = [...value.keys()].sort(byCodePoint);
  const parts = keys.slice(0, 4).map((key) => `${shownText(key)}: ${shown(value.get(key)!, level - 1)}`);
  return `{${[...parts, ...(keys.length > 4 ? ["..."] : [])].join(", ")}}`;
}

function cut(text: string): string {
  if (text.length <= MOST) return text;
  const head = Math.floor((MOST - 3) / 2);
  return `${text.slice(0, head)}...${text.slice(text.length - (MOST - 3 - head))}`;
}

function shownText(text: string): string {
  if (text.length <= 4 * MOST) {
    const whole = quoted(text);
    if (whole.length <= MOST) return whole;
  }
  const head = Math.floor((MOST - 3) / 2);
  const tail = MOST - 3 - head;
  const points = text.length > 1000 ? [...text.slice(0, 200), ...text.slice(-200)] : [...text];
  const short = quoted([...points.slice(0, head), ...points.slice(points.length - tail)].join(""));
  return `${short.slice(0, head)}...${short.slice(short.length - tail)}`;
}

const HIDDEN = /[\p{C}\p{Z}]/u;
const ESCAPES: Record<string, string> = { "\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\" };

function quoted(text: string): string {
  const mark = text.includes("'") && !text.includes('"') ? '"' : "'";
  let out = mark;
  for (const char of text) {
    if (char in ESCAPES) out += ESCAPES[char];
    else if (char === mark) out += `\\${char}`;
    else if (char !== " " && HIDDEN.test(char)) out += escaped(char.codePointAt(0)!);
    else out += char;
  }
  return out + mark;
}

function escaped(code: number): string {
  const hex = code.toString(16);
  if (code < 0x100) return `\\x${hex.padStart(2, "0")}`;
  return code < 0x10000 ? `\\u${hex.padStart(4, "0")}` : `\\U${hex.padStart(8, "0")}`;
}
