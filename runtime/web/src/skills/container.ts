/** The container of a skill package: a safetensors reader for untrusted files. Format: docs/skill-format.md. */

import { decodeUtf8, Json, JsonError, JsonObject, parseJson } from "../common/json.js";
import { show } from "../common/show.js";

export type Dtype = "float16" | "int8" | "int32" | "uint16" | "uint8";

/** Type, shape [rows, columns] and position in bytes of one tensor. */
export interface Entry { dtype: Dtype; rows: number; columns: number; begin: number; end: number }

export interface Container {
  metadata: Map<string, string>;
  /** The tensor table; null if it has faults. */
  entries: Map<string, Entry> | null;
  /** The bytes of all tensors; empty if there are faults. */
  body: Uint8Array;
  faults: string[];
}

const HEADER_LIMIT = 8 * 2 ** 20; // bytes
const TENSOR_LIMIT = 2 ** 14;
const SIDE_LIMIT = 2 ** 24;
const VECTOR_TYPES: Record<string, Dtype> = { F16: "float16", I8: "int8" };
const DRAFT_TYPES: Record<string, Dtype> = { I32: "int32", U16: "uint16", U8: "uint8" };
const SIZES: Record<Dtype, number> = { float16: 2, int8: 1, int32: 4, uint16: 2, uint8: 1 };

/** Parse and validate a package file; throws JsonError if it has no header that can be parsed. */
export function unpack(data: Uint8Array): Container {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const size = data.length < 8 ? 0n : view.getBigUint64(0, true);
  if (data.length < 8 || size > BigInt(Math.min(HEADER_LIMIT, data.length - 8))) {
    throw new JsonError(
      `${data.length} bytes with a header of ${size}; expected the header inside the file, at most ${HEADER_LIMIT}`,
    );
  }
  const end = 8 + Number(size);
  let header: Json;
  try {
    header = parseHeader(decodeUtf8(data.subarray(8, end)));
  } catch (error) {
    if (error instanceof JsonError) throw new JsonError(`the header is not strict JSON: ${error.message}`);
    throw error;
  }
  if (!(header instanceof Map)) throw new JsonError(`the header is ${show(header)}; expected an object`);
  const container: Container = { metadata: new Map(), entries: null, body: new Uint8Array(), faults: [] };
  const metadata = header.get("__metadata__") ?? new Map();
  header.delete("__metadata__");
  container.entries = layout(header, container.faults);
  readMetadata(metadata, container);
  if (container.entries) readBody(container.entries, data.subarray(end), container);
  return container;
}

function parseHeader(text: string): Json {
  let end = text.length;
  while (end > 0 && text[end - 1] === " ") end--; // a regular expression would take quadratic time
  if (/\s/.test(text[0] ?? "") || /\s/.test(text[end - 1] ?? "")) {
    throw new JsonError("white space before it, or other white space than spaces after it");
  }
  return parseJson(text);
}

function readMetadata(metadata: Json, container: Container): void {
  if (!(metadata instanceof Map) || ![...metadata.values()].every((value) => typeof value === "string")) {
    container.faults.unshift(`__metadata__ is ${show(metadata)}; expected an object of texts`);
  } else {
    container.metadata = metadata as Map<string, string>;
  }
}

function layout(header: JsonObject, faults: string[]): Map<string, Entry> | null {
  if (header.size > TENSOR_LIMIT) {
    faults.push(`contains ${header.size} tensors; expected at most ${TENSOR_LIMIT}`);
    return null;
  }
  for (const [name, entry] of header) {
    const types = name.startsWith("draft.") ? DRAFT_TYPES : VECTOR_TYPES;
    for (const fault of entryFaults(entry, types)) faults.push(`tensor ${show(name)}: ${fault}`);
  }
  if (faults.length) return null; // the layout can be checked only if every entry is valid
  const entries = new Map<string, Entry>();
  for (const [name, found] of header) {
    const entry = found as JsonObject;
    const [rows, columns] = entry.get("shape") as number[];
    const [begin, end] = entry.get("data_offsets") as number[];
    const dtype = { ...VECTOR_TYPES, ...DRAFT_TYPES }[entry.get("dtype") as string]!;
    entries.set(name, { dtype, rows: rows!, columns: columns!, begin: begin!, end: end! });
  }
  faults.push(...layoutFaults(entries));
  return faults.length ? null : entries;
}

function readBody(entries: Map<string, Entry>, body: Uint8Array, container: Container): void {
  const size = Math.max(0, ...[...entries.values()].map((entry) => entry.end));
  if (size > body.length) {
    container.faults.push(
      `the file is cut short: the tensors take ${size} bytes, the file has ${body.length} for them`,
    );
  } else if (size < body.length) {
    container.faults.push(`${body.length - size} bytes follow the last tensor; expected none`);
  } else {
    container.body = body;
  }
}

function* entryFaults(entry: Json, types: Record<string, Dtype>): Iterable<string> {
  const keys = entry instanceof Map ? [...entry.keys()].sort().join() : "";
  if (!(entry instanceof Map) || keys !== "data_offsets,dtype,shape") {
    yield `${show(entry)}; expected an object with dtype, shape and data_offsets`;
    return;
  }
  const [type, shape, offsets] = [entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")];
  const dtype = typeof type === "string" && Object.hasOwn(types, type) ? types[type] : undefined;
  if (!dtype) {
    const names = Object.keys(types);
    yield `dtype ${show(type)}; expected ${names.slice(0, -1).join(", ")} or ${names.at(-1)}`;
  }
  const shaped = wholePair(shape, 1, SIDE_LIMIT);
  if (!shaped) yield `shape ${show(shape)}; expected [rows, columns], each from 1 to ${SIDE_LIMIT}`;
  if (!wholePair(offsets, 0, 2 ** 40)) {
    yield `data_offsets ${show(offsets)}; expected [begin, end]`;
  } else if (dtype && shaped) {
    const [begin, end] = offsets as number[];
    const [rows, columns] = shape as number[];
    const needed = rows! * columns! * SIZES[dtype];
    if (end! - begin! !== needed) {
      yield `data_offsets ${show(offsets)} hold ${end! - begin!} bytes; ${type as string} ${show(shape)} takes ${needed}`;
    }
  }
}

function wholePair(value: Json | undefined, low: number, high: number): boolean {
  if (!Array.isArray(value) || value.length !== 2) return false;
  return value.every((side) => typeof side === "number" && low <= side && side <= high);
}

/** Gaps and overlaps: the tensors must be contiguous. */
function* layoutFaults(entries: Map<string, Entry>): Iterable<string> {
  let position = 0;
  const spans = [...entries].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  for (const [name, { begin, end }] of spans) {
    if (begin !== position) {
      const what = begin < position ? "overlaps the tensor before it" : "leaves a gap before it";
      yield `tensor ${show(name)} begins at byte ${begin} and ${what}; expected ${position}`;
    }
    position = Math.max(position, end);
  }
}

/** The numbers of a tensor, copied so that they are aligned. */
export function numbers(body: Uint8Array, entry: Entry): Uint16Array | Int8Array | Int32Array | Uint8Array {
  const copy = body.slice(entry.begin, entry.end).buffer;
  switch (entry.dtype) {
    case "int8": return new Int8Array(copy);
    case "int32": return new Int32Array(copy);
    case "uint8": return new Uint8Array(copy);
    default: return new Uint16Array(copy); // uint16, and float16 as bits
  }
}
