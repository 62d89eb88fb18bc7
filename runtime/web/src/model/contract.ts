/** lime.json and web.json: what the model is, which skills fit it, and the layout of a skill's row. */

import { oneOf, plain, record, sequence, text, whole, anything, Check } from "../common/checks.js";
import { sha256 } from "../common/digests.js";
import { canonicalJson, decodeUtf8, Json, JsonObject, parseJson } from "../common/json.js";
import { bounded } from "../common/show.js";
import { ModelError } from "../errors.js";
import { Routing, routingFaults } from "../skills/routing.js";
import { Kind, Vector } from "../skills/vectors.js";

export interface Module { name: string; out_features: number; rank: number; offsets: Partial<Record<Kind, number>> }
export type Piece = (string | number)[];
export interface ListedSkill {
  file: string; name: string; version: string; description: string; examples: string[]; bytes: number; sha256: string;
}
export interface Described { bytes: number; sha256: string }

export interface ModelContract {
  backboneName: string; backbone: string; adapter: string; modulesDigest: string; precision: string; routing: Routing;
  kinds: Kind[]; rowSize: number; modules: Module[]; files: Map<string, Described>; digest: string;
}

export interface WebModel {
  contextLength: number; vocabulary: number; layers: number; kvHeads: number; headSize: number; endId: number;
  eosIds: number[];
  chat: { first: Record<string, Piece>; between: Record<string, Piece>; last: Record<string, Piece>; answer: Record<string, Piece> } | null;
  variants: Record<string, [string, string]>; files: Map<string, Described>; skills: ListedSkill[];
}

const ALIGNMENT = 64; // values; the block of every module starts and ends at a multiple of it
const SHA = text(64, { least: 64, pattern: "[0-9a-f]{64}", what: "a SHA-256" });
const FILE = /^[A-Za-z0-9_][A-Za-z0-9._-]*(\/[A-Za-z0-9_][A-Za-z0-9._-]*)?$/;
const COUNT = whole(1, 2 ** 24 - 1);
const BYTES = whole(0, 2 ** 40);

const object = (inner: Check): Check => (where, value, faults) => {
  if (!(value instanceof Map)) return record({})(where, value, faults);
  for (const [key, one] of value) inner(`${where}.${key}`, one, faults);
};
const files = (inner: Check): Check => (where, value, faults) => {
  object(inner)(where, value, faults);
  if (value instanceof Map) for (const key of value.keys()) if (!FILE.test(key)) faults.push(`${where}: '${key}' is no file name`);
};
const file: Check = (where, value, faults) => {
  if (typeof value !== "string" || !FILE.test(value)) faults.push(`${where} is no file name`);
};
const routing: Check = (where, value, faults) => {
  if (value instanceof Map) faults.push(...routingFaults(value).map((fault) => `${where}: ${fault}`));
  else faults.push(`${where} is missing`);
};
const kind = oneOf("gain", "shift");

const LIME = record(
  {
    format: whole(1, 1),
    backbone: record({ name: text(1000), revision: text(1000), digest: SHA }),
    adapter: record({ digest: SHA }),
    graph: record({ digest: SHA, opset: whole(1, 1), files: files(SHA), sizes: files(BYTES) }, { parts: anything }),
    precision: oneOf("int4", "fp32"),
    routing,
    kinds: sequence(kind, 2, 1),
    row_size: whole(1, 2 ** 28),
    modules_digest: SHA,
    modules: sequence(
      record({ name: text(200, { least: 1 }), out_features: COUNT, rank: COUNT, offsets: object(whole(0, 2 ** 28)) }),
      2 ** 14, 1,
    ),
  },
  { vision: anything, route: anything },
);

const piece = sequence((where, value, faults) => {
  if (typeof value === "string") text(100_000, { controls: "all" })(where, value, faults);
  else whole(0, 2 ** 31 - 1)(where, value, faults);
}, 1000);
const WEB = record({
  format: whole(1, 1), context_length: COUNT, vocabulary: COUNT, layers: whole(1, 1000), kv_heads: whole(1, 1000),
  head_size: whole(1, 10_000), end_id: whole(0, 2 ** 31 - 1), eos_ids: sequence(whole(0, 2 ** 31 - 1), 100, 1),
  chat: (where, value, faults) => {
    if (value === null) return;
    record({ first: object(piece), between: object(piece), last: object(piece), answer: object(piece) })(where, value, faults);
  },
  variants: object(sequence(file, 2, 2)),
  files: files(record({ bytes: BYTES, sha256: SHA })),
  skills: sequence(
    record({
      file, name: text(64), version: text(100), description: text(4000, { controls: "\n\t" }),
      examples: sequence(text(2000, { controls: "all" }), 3), bytes: BYTES, sha256: SHA,
    }), 1000,
  ),
});

/** Parse and validate lime.json. */
export async function readContract(bytes: Uint8Array): Promise<ModelContract> {
  const document = checked("lime.json", bytes, LIME);
  const modules = plain(document.get("modules")!) as Module[];
  const kinds = plain(document.get("kinds")!) as Kind[];
  const graph = plain(document.get("graph")!) as { digest: string; files: Record<string, string>; sizes: Record<string, number> };
  const settled = plain(document.get("routing")!) as Routing;
  const table = modules.map(({ name, out_features, rank }) => [name, out_features, rank]);
  const faults: string[] = [];
  if ((await sha256(encoded(table as Json))) !== document.get("modules_digest")) {
    faults.push("the digest of the module table does not match its content");
  }
  const pairs = Object.entries(graph.files).sort(([a], [b]) => (a < b ? -1 : 1));
  if ((await sha256(encoded(pairs as Json))) !== graph.digest) {
    faults.push("the digest of the graph does not match its files");
  }
  const row = document.get("row_size") as number;
  if (!follows(modules, kinds, row, settled.experts)) faults.push("the offsets do not follow from the module table");
  for (const name of Object.keys(graph.files)) if (!(name in graph.sizes)) faults.push(`sizes lacks ${name}`);
  if (faults.length) throw new ModelError("lime.json contradicts itself: export again", faults);
  const backbone = plain(document.get("backbone")!) as { name: string; digest: string };
  return {
    backboneName: backbone.name,
    backbone: backbone.digest,
    adapter: (plain(document.get("adapter")!) as { digest: string }).digest,
    modulesDigest: document.get("modules_digest") as string,
    precision: document.get("precision") as string,
    routing: settled,
    kinds,
    rowSize: row,
    modules,
    files: new Map(pairs.map(([name, digest]) => [name, { bytes: graph.sizes[name]!, sha256: digest }])),
    digest: graph.digest,
  };
}

function encoded(value: Json): Uint8Array {
  return new TextEncoder().encode(canonicalJson(value));
}

function follows(modules: Module[], kinds: Kind[], row: number, experts: number): boolean {
  let position = 0;
  for (const module of modules) {
    const own = Object.keys(module.offsets);
    const expected = own.length === 1 && own[0] === "gain" ? ["gain"] : kinds;
    if (own.join() !== expected.join()) return false;
    for (const one of expected) {
      if (module.offsets[one as Kind] !== position) return false;
      position += module.out_features;
    }
    position = Math.ceil(position / ALIGNMENT) * ALIGNMENT;
  }
  return position * experts === row;
}

/** Parse and validate web.json. */
export function readWebModel(bytes: Uint8Array, contract: ModelContract): WebModel {
  const found = plain(checked("web.json", bytes, WEB)) as Record<string, unknown>;
  const web: WebModel = {
    contextLength: found["context_length"] as number, vocabulary: found["vocabulary"] as number,
    layers: found["layers"] as number, kvHeads: found["kv_heads"] as number, headSize: found["head_size"] as number,
    endId: found["end_id"] as number, eosIds: found["eos_ids"] as number[], chat: found["chat"] as WebModel["chat"],
    variants: found["variants"] as WebModel["variants"],
    files: new Map(Object.entries(found["files"] as Record<string, Described>)),
    skills: found["skills"] as ListedSkill[],
  };
  const faults = ["wasm", "webgpu", "node"].filter((name) => !(name in web.variants)).map((name) => `no variant ${name}`);
  for (const name of Object.values(web.variants).flat()) {
    if (!contract.files.has(name)) faults.push(`the variants name ${name}, which lime.json does not list`);
  }
  if (!web.files.has("tokenizer.json")) faults.push("the files lack tokenizer.json");
  if (faults.length) throw new ModelError("web.json contradicts lime.json: export again", faults);
  return web;
}

function checked(name: string, bytes: Uint8Array, check: Check): JsonObject {
  let document: Json;
  try {
    document = parseJson(decodeUtf8(bytes));
  } catch (error) {
    throw new ModelError(`${name} cannot be read: export the model again with --target web`, [(error as Error).message]);
  }
  const faults: string[] = [];
  check(name, document, faults);
  if (faults.length) throw new ModelError(`${name} cannot be used: export the model again with --target web`, bounded(faults));
  return document as JsonObject;
}

/** The row of a skill that fits the model, [P] float32. A missing vector is zeros and has no effect. */
export function packRow(contract: ModelContract, vectors: Map<string, Vector>): Float32Array {
  const row = new Float32Array(contract.rowSize);
  for (const module of contract.modules) {
    for (const [one, offset] of Object.entries(module.offsets)) {
      const vector = vectors.get(`${one}.${module.name}`);
      if (vector) row.set(vector.values, offset);
    }
  }
  return row;
}

