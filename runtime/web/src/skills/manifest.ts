/** The manifest of a skill package and its validation, which reports every fault at once. docs/skill-format.md. */

import { anything, Check, distinct, nullable, number, oneOf, plain, record, sequence, text, whole } from "../common/checks.js";
import { canonicalJson, Json, JsonError, JsonObject, parseJson, Real } from "../common/json.js";
import { bounded, characters, show } from "../common/show.js";
import { SkillFormatError } from "../errors.js";
import { DRAFT, DraftMeta } from "./draftTable.js";
import { routingFaults, Routing } from "./routing.js";
import { Kind, STORED } from "./vectors.js";

export const FORMAT = 2;
const MANIFEST_LIMIT = 4 * 2 ** 20; // characters
const IDS_LIMIT = 4096;

export interface Golden {
  prompt_ids: number[]; answer_ids: number[]; top_ids: number[]; skill_logits: number[]; base_logits: number[];
}
export type AnswerKind = "choices" | "schema" | "regex" | "text";
export interface Interface {
  input: { system: string | null; prefix: string; suffix: string };
  answers: { kind: AnswerKind; value: string[] | string | null };
  modality: string[];
  examples: string[];
}
export interface Generation {
  max_new_tokens?: number; temperature?: number; top_k?: number; top_p?: number; repetition_penalty?: number;
}
export interface Manifest {
  format: number; name: string; version: string; description: string; license: string; author: string; created: string;
  backbone: string; backbone_name: string; adapter: string; modules: string; experts: number; routing: Routing;
  activation: "always" | "response"; interface: Interface; prompt: { generation: Generation; stop: string[] };
  bounds: Partial<Record<Kind, number>>; golden: Golden[]; metrics: Record<string, unknown>[]; digest: string;
  draft?: DraftMeta; route?: { layer: number; pooling: string }; made?: Record<string, unknown>;
}

/** Another format version, whose other rules are unknown to this reader. */
export class OtherFormatError extends SkillFormatError {}

/** Parse the manifest text of a package. */
export function parseManifest(source: string): Manifest {
  if (characters(source) > MANIFEST_LIMIT) {
    throw new SkillFormatError(`the manifest is over ${MANIFEST_LIMIT} characters`);
  }
  let document: Json;
  try {
    document = parseJson(source);
  } catch (error) {
    if (error instanceof JsonError) throw new SkillFormatError(`the manifest is not strict JSON: ${error.message}`);
    throw error;
  }
  const version = document instanceof Map ? document.get("format") : undefined;
  if ((typeof version === "number" || typeof version === "bigint") && version !== 1 && version !== FORMAT) {
    throw new OtherFormatError(
      `format version ${show(version)}; this lime-edge reads versions 1 and ${FORMAT}: update lime-edge, ` +
        "or make the skill again with this version",
    );
  }
  const faults = manifestFaults(document);
  if (faults.length) throw new SkillFormatError("the manifest cannot be used", bounded(faults));
  // With one byte form, every reader displays, hashes and verifies the same text.
  if (canonicalJson(document) !== source) {
    throw new SkillFormatError("the manifest is not in canonical form (sorted keys, no spaces); write it again");
  }
  return fromDocument(plain(document) as Record<string, unknown>);
}

function fromDocument(document: Record<string, unknown>): Manifest {
  if (document["format"] === 1) {
    const { system, ...prompt } = document["prompt"] as { system: string | null };
    document["prompt"] = prompt;
    document["interface"] = {
      input: { system, prefix: "", suffix: "" }, answers: { kind: "text", value: null }, modality: ["text"], examples: [],
    };
  }
  return document as unknown as Manifest;
}

function manifestFaults(document: Json): string[] {
  const faults: string[] = [];
  const version = document instanceof Map ? document.get("format") : undefined;
  (version === 1 ? RULES_1 : RULES_2)("manifest", document, faults);
  if (document instanceof Map) {
    const routing = document.get("routing");
    if (routing instanceof Map && !same(routing.get("experts"), document.get("experts"))) {
      const [experts, inner] = [document.get("experts"), routing.get("experts")];
      faults.push(`experts is ${show(experts)} but routing.experts is ${show(inner)}; expected the same`);
    }
  }
  return faults;
}

function same(left: Json | undefined, right: Json | undefined): boolean {
  const value = (one: Json | undefined): unknown => (one instanceof Real ? one.value : one);
  return value(left) === value(right);
}

const date: Check = (where, value, faults) => {
  const match = typeof value === "string" ? /^(\d{4})-(\d{2})-(\d{2})$/.exec(value) : null;
  const day = match ? new Date(`${match[0]}T00:00:00Z`) : null;
  const valid = day && !Number.isNaN(day.getTime()) && day.toISOString().startsWith(match![0]) && match![1] !== "0000";
  if (!valid) faults.push(`${where} is ${show(value)}; expected a date, YYYY-MM-DD`);
};

const routing: Check = (where, value, faults) => {
  const simple = (one: Json): boolean =>
    typeof one === "string" || typeof one === "number" || typeof one === "bigint" || typeof one === "boolean" || one instanceof Real;
  if (!(value instanceof Map) || ![...value.values()].every(simple)) {
    faults.push(`${where} is ${show(value)}; expected an object of numbers and words`);
    return;
  }
  for (const fault of routingFaults(value)) faults.push(`${where}: ${fault.slice(0, 200)}`);
};

const GOLDEN_LISTS = ["top_ids", "skill_logits", "base_logits"];
const golden: Check = (where, value, faults) => {
  GOLDEN(where, value, faults);
  const lists = value instanceof Map ? GOLDEN_LISTS.map((key) => (value as JsonObject).get(key)) : [];
  const lengths = lists.filter(Array.isArray).map((found) => (found as Json[]).length);
  if (new Set(lengths).size > 1) {
    faults.push(`${where} has lists of [${lengths.join(", ")}] for ${GOLDEN_LISTS.join(", ")}; expected equal lengths`);
  }
};

const SCHEMA_LIMIT = 2 ** 16;
const SCHEMA_DEPTH = 32;
const SCHEMA_TEXT = text(SCHEMA_LIMIT, { least: 2, controls: "all", what: "a JSON schema as text" });

const schema: Check = (where, value, faults) => {
  const found: string[] = [];
  SCHEMA_TEXT(where, value, found);
  faults.push(...found);
  if (found.length) return;
  let document: Json;
  try {
    document = parseJson(value as string);
  } catch (error) {
    faults.push(`${where} is not strict JSON: ${(error as Error).message}`);
    return;
  }
  if (!(document instanceof Map)) faults.push(`${where} is ${show(document)}; expected a JSON schema, an object`);
  else {
    const fault = jsonFault(document, 1);
    if (fault) faults.push(`${where} ${fault}`);
  }
};

function jsonFault(value: Json, depth: number): string | undefined {
  const faults: string[] = [];
  if (Array.isArray(value) || value instanceof Map) {
    if (depth > SCHEMA_DEPTH) return `has objects and lists more than ${SCHEMA_DEPTH} deep`;
    for (const inner of value instanceof Map ? [...value.keys(), ...value.values()] : value) {
      const fault = jsonFault(inner, depth + 1);
      if (fault) return fault;
    }
  } else if (typeof value === "string") text(SCHEMA_LIMIT, { controls: "all" })("has a text that", value, faults);
  else if (value !== null && typeof value !== "boolean") number(-(2 ** 53), 2 ** 53)("has a number that", value, faults);
  return faults[0];
}

const CHOICE = text(1000, { least: 1, controls: "all" });
const VALUES: Record<string, Check> = {
  choices: distinct(sequence(CHOICE, 1000, 1)),
  schema,
  regex: text(4096, { least: 1, controls: "all" }),
  text: (where, value, faults) => {
    if (value !== null) faults.push(`${where} is ${show(value)}; expected null, because the kind is text`);
  },
};
const ANSWERS = record({ kind: oneOf(...Object.keys(VALUES)), value: anything });
const answers: Check = (where, value, faults) => {
  ANSWERS(where, value, faults);
  if (!(value instanceof Map)) return;
  const kind = value.get("kind");
  if (typeof kind === "string" && Object.hasOwn(VALUES, kind) && value.has("value")) {
    VALUES[kind]!(`${where}.value`, value.get("value"), faults);
  }
};

const SYSTEM = nullable(text(100_000, { controls: "all" }));
const AFFIX = text(20_000, { controls: "all" });
const INTERFACE = record({
  input: record({ system: SYSTEM, prefix: AFFIX, suffix: AFFIX }),
  answers,
  modality: distinct(sequence(oneOf("text"), 1, 1)),
  examples: sequence(text(2000, { least: 1, controls: "all" }), 3),
});

const NUMBER = "(0|[1-9]\\d{0,8})";
const LABEL = "(0|[1-9]\\d{0,8}|\\d*[A-Za-z-][0-9A-Za-z-]*)";
const SEMVER = `${NUMBER}\\.${NUMBER}\\.${NUMBER}(-${LABEL}(\\.${LABEL})*)?(\\+[0-9A-Za-z-]+(\\.[0-9A-Za-z-]+)*)?`;
export const DIGEST = text(64, { least: 64, pattern: "[0-9a-f]{64}", what: "a SHA-256 in lower-case hex" });
const LOGIT = number(-1e6, 1e6);
const IDS = sequence(whole(0, 2 ** 31 - 1), IDS_LIMIT, 1);
const LOGITS = sequence(LOGIT, IDS_LIMIT, 1);
const VALUE = number(-1e9, 1e9);
const GOLDEN = record({ prompt_ids: IDS, answer_ids: IDS, top_ids: IDS, skill_logits: LOGITS, base_logits: LOGITS });
const GENERATION = record({}, {
  max_new_tokens: whole(1, 2 ** 20), temperature: number(0, 10), top_k: whole(0, 2 ** 20), top_p: number(1e-3, 1),
  repetition_penalty: number(0.1, 10),
});
const ROWS = whole(0, 2 ** 40);
const MADE = record({
  how: oneOf("learned", "proposed", "rebased"),
  instruction: oneOf("carried", "kept", "none"),
  data: record({ rows: ROWS, dropped: ROWS, duplicates: ROWS, overlap: ROWS }),
});
const METRIC = record({
  dataset: DIGEST, name: text(64, { least: 1 }), split: text(64, { least: 1 }), rows: whole(1, 2 ** 40), skill: VALUE,
  base: VALUE, date,
}, { lora: VALUE });
const PROMPT = { generation: GENERATION, stop: sequence(text(200, { least: 1, controls: "all" }), 16) };
const COMMON: Record<string, Check> = {
  format: whole(1, FORMAT),
  name: text(64, { least: 1, pattern: "[a-z0-9][a-z0-9._-]{0,63}", what: "a name" }),
  version: text(64, { least: 5, pattern: SEMVER, what: "a semantic version" }),
  description: text(4000, { controls: "\n\t" }),
  license: text(200, { least: 1, pattern: "[A-Za-z0-9.+()\\- ]+", what: "an SPDX licence expression" }),
  author: text(200),
  created: date,
  backbone: DIGEST,
  backbone_name: text(200),
  adapter: DIGEST,
  modules: DIGEST,
  experts: whole(1, 64),
  routing,
  activation: oneOf("always", "response"),
  prompt: record(PROMPT),
  bounds: record({}, Object.fromEntries(STORED.map((kind) => [kind, number(0, 1e7)]))),
  golden: sequence(golden, 16),
  metrics: sequence(METRIC, 64),
  digest: DIGEST,
};
const RULES_1 = record(
  { ...COMMON, prompt: record({ system: SYSTEM, ...PROMPT }) },
  { centroid: sequence(LOGIT, 16_384, 1) },
);
const RULES_2 = record(
  { ...COMMON, interface: INTERFACE },
  { made: MADE, draft: DRAFT, route: record({ layer: whole(0, 1000), pooling: oneOf("mean", "last") }) },
);
