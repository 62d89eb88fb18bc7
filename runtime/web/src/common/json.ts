/**
 * A strict JSON parser and the canonical form, for untrusted files. The rules are those of the Python package
 * (lime_edge/common/strict_json.py): no duplicate keys, no NaN, no -0 as a whole number, bounded size and depth.
 */

/** A number that was written with a point or an exponent: 2.0 is not the whole number 2. */
export class Real {
  constructor(readonly value: number) {}
}

export type Json = null | boolean | number | bigint | Real | string | Json[] | JsonObject;
export type JsonObject = Map<string, Json>;

const OPENED_LIMIT = 2 ** 16; // opening brackets and braces
const PARTS_LIMIT = 2 ** 19; // commas and colons
const DEPTH_LIMIT = 900;
const DIGITS_LIMIT = 4300; // of a whole number; Python refuses more
const NUMBER = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?/y;
const PLAIN = /[^"\\\u0000-\u001f]*/y; // what needs no decoding inside a string
const SPACE = /[ \t\n\r]*/y;
const CONSTANTS = ["NaN", "Infinity", "-Infinity"];

/** A text that is not strict JSON; the message says why. */
export class JsonError extends Error {}

/** Parse one JSON value that fills the text. */
export function parseJson(text: string): Json {
  limit(text);
  const parser = new Parser(text);
  const value = parser.value(0);
  parser.space();
  if (parser.at < text.length) throw new JsonError(`Extra data: char ${parser.at}`);
  return value;
}

/** UTF-8 bytes as text; refuses what is not UTF-8. */
export function decodeUtf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new JsonError("'utf-8' codec can't decode the bytes");
  }
}

function limit(text: string): void {
  let opened = 0;
  let parts = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === 0x5b || code === 0x7b) opened++;
    else if (code === 0x2c || code === 0x3a) parts++;
  }
  if (opened > OPENED_LIMIT || parts > PARTS_LIMIT) {
    throw new JsonError(
      `contains ${opened} of [ and { and ${parts} of , and : (also counted inside strings); ` +
        `expected at most ${OPENED_LIMIT} and ${PARTS_LIMIT}`,
    );
  }
}

class Parser {
  at = 0;
  constructor(readonly text: string) {}

  space(): void {
    SPACE.lastIndex = this.at;
    SPACE.exec(this.text);
    this.at = SPACE.lastIndex;
  }

  value(depth: number): Json {
    if (depth > DEPTH_LIMIT) throw new JsonError("nested too deeply");
    this.space();
    const { text, at } = this;
    switch (text[at]) {
      case "{": return this.object(depth);
      case "[": return this.list(depth);
      case '"': return this.string();
      case "t": return this.word("true", true);
      case "f": return this.word("false", false);
      case "n": return this.word("null", null);
    }
    const constant = CONSTANTS.find((word) => text.startsWith(word, at));
    if (constant) throw new JsonError(`${constant} is not a JSON number`);
    return this.number();
  }

  private word<T extends Json>(word: string, value: T): T {
    if (!this.text.startsWith(word, this.at)) throw new JsonError(`Expecting value: char ${this.at}`);
    this.at += word.length;
    return value;
  }

  private number(): Json {
    NUMBER.lastIndex = this.at;
    const match = NUMBER.exec(this.text);
    if (!match) throw new JsonError(`Expecting value: char ${this.at}`);
    this.at = NUMBER.lastIndex;
    const digits = match[0];
    if (match[1] !== undefined || match[2] !== undefined) return new Real(Number(digits));
    if (digits === "-0") throw new JsonError("-0 is not a whole number");
    if (digits.length > DIGITS_LIMIT) throw new JsonError(`a whole number of over ${DIGITS_LIMIT} digits`);
    const value = Number(digits);
    return Number.isSafeInteger(value) ? value : BigInt(digits);
  }

  private string(): string {
    const { text } = this;
    const start = this.at;
    let end = start + 1;
    for (;;) {
      PLAIN.lastIndex = end;
      PLAIN.exec(text);
      end = PLAIN.lastIndex;
      const next = text[end];
      if (next === '"') break;
      if (next !== "\\" || end + 1 >= text.length) throw new JsonError(`Invalid control character or end: char ${end}`);
      end += 2;
    }
    this.at = end + 1;
    try {
      return JSON.parse(text.slice(start, this.at)) as string;
    } catch {
      throw new JsonError(`Invalid escape: char ${start}`);
    }
  }

  private list(depth: number): Json[] {
    const found: Json[] = [];
    this.at++;
    this.space();
    if (this.text[this.at] === "]") {
      this.at++;
      return found;
    }
    for (;;) {
      found.push(this.value(depth + 1));
      this.space();
      const next = this.text[this.at++];
      if (next === "]") return found;
      if (next !== ",") throw new JsonError(`Expecting ',' delimiter: char ${this.at - 1}`);
    }
  }

  private object(depth: number): JsonObject {
    const found: JsonObject = new Map();
    this.at++;
    this.space();
    if (this.text[this.at] === "}") {
      this.at++;
      return found;
    }
    for (;;) {
      this.space();
      if (this.text[this.at] !== '"') throw new JsonError(`Expecting property name: char ${this.at}`);
      const key = this.string();
      this.space();
      if (this.text[this.at++] !== ":") throw new JsonError(`Expecting ':' delimiter: char ${this.at - 1}`);
      const value = this.value(depth + 1);
      if (found.has(key)) throw new JsonError(`key ${JSON.stringify(key).replace(/^"|"$/g, "'")} appears twice in one object`);
      found.set(key, value);
      this.space();
      const next = this.text[this.at++];
      if (next === "}") return found;
      if (next !== ",") throw new JsonError(`Expecting ',' delimiter: char ${this.at - 1}`);
    }
  }
}

/** The canonical form: keys sorted by code point, no spaces, numbers as Python writes them. */
export function canonicalJson(value: Json): string {
  if (value === null || typeof value === "boolean") return String(value);
  if (typeof value === "number" || typeof value === "bigint") return String(value);
  if (value instanceof Real) return pythonFloat(value.value);
  if (typeof value === "string") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  const keys = [...value.keys()].sort(byCodePoint);
  return `{${keys.map((key) => `${JSON.stringify(key)}:${canonicalJson(value.get(key)!)}`).join(",")}}`;
}

/** Order of texts by code point; JavaScript's own order is by UTF-16 unit. */
export function byCodePoint(a: string, b: string): number {
  for (let at = 0; at < Math.min(a.length, b.length); at++) {
    const [left, right] = [a.charCodeAt(at), b.charCodeAt(at)];
    if (left !== right) return rank(left) - rank(right);
  }
  return a.length - b.length;
}

/** Halves of surrogate pairs stand for code points beyond all others. */
function rank(unit: number): number {
  return unit >= 0xd800 && unit < 0xe000 ? unit + 0x10000 : unit;
}

/** A float as Python's repr writes it: the same shortest digits as JavaScript, other exponents. */
export function pythonFloat(value: number): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
  const [digits, exponent] = value.toExponential().split("e") as [string, string];
  const power = Number(exponent);
  if (power >= 16 || power < -4) {
    return `${digits}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
  }
  const sign = Object.is(value, -0) || value < 0 ? "-" : "";
  const figures = digits.replace(/[-.]/g, "");
  if (power < 0) return `${sign}0.${"0".repeat(-power - 1)}${figures}`;
  const whole = figures.slice(0, power + 1).padEnd(power + 1, "0");
  return `${sign}${whole}.${figures.slice(power + 1) || "0"}`;
}
