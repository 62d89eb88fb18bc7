/** Reads skill packages, `NAME.lime`. A package is untrusted input. Normative page: docs/skill-format.md. */

import { fromHalf } from "../common/float16.js";
import { sha256 } from "../common/digests.js";
import { byCodePoint, JsonError } from "../common/json.js";
import { bounded, general, show } from "../common/show.js";
import { SkillFormatError } from "../errors.js";
import { Container, Entry, numbers, unpack } from "./container.js";
import { draftFormFaults, draftMeta, DraftMeta, DraftTable } from "./draftTable.js";
import { Manifest, OtherFormatError, parseManifest } from "./manifest.js";
import { decodeVectors, formFaults, Kind, numberFaults, peaksOf, Vector } from "./vectors.js";

export const FILE_LIMIT = 256 * 2 ** 20; // bytes
const CENTROIDS = "route.centroids";

/** A valid skill package in memory. */
export interface Skill {
  manifest: Manifest;
  /** `<kind>.<module>` -> dequantised vectors. */
  vectors: Map<string, Vector>;
  draft: DraftTable | null;
  /** Bytes of the file. */
  size: number;
}

interface Facts {
  vectors: Map<string, Entry>; faults: string[]; draft: DraftMeta | null; route: boolean; kinds: Set<string>;
}

/** Validate the bytes of a package; throws SkillFormatError with every fault at once. */
export async function readSkill(data: Uint8Array, path = "the file"): Promise<Skill> {
  if (data.length > FILE_LIMIT) {
    throw new SkillFormatError(`${path} has ${data.length} bytes; expected at most ${FILE_LIMIT}`);
  }
  let container: Container;
  try {
    container = unpack(data);
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    throw new SkillFormatError(`${path} is not a skill package: not a safetensors file`, [error.message]);
  }
  const faults: string[] = [];
  const manifest = readManifest(container, path, faults);
  const facts = container.entries ? factsOf(container.entries) : null;
  let vectors = new Map<string, Vector>();
  let draft: DraftTable | null = null;
  if (!facts || container.faults.length) {
    faults.push(...container.faults);
  } else {
    if (facts.faults.length) faults.push(...facts.faults, ...numberFaults(facts.vectors, container.body));
    else {
      const wrong = numberFaults(facts.vectors, container.body);
      faults.push(...wrong);
      if (!wrong.length) vectors = decodeVectors(facts.vectors, container.body);
      if (facts.draft) {
        draft = new DraftTable(container.entries!, container.body);
        faults.push(...draft.faults);
      }
      if (facts.route) faults.push(...routeNumberFaults(container));
    }
    if (manifest) faults.push(...(await sealFaults(manifest, container, facts)));
  }
  if (manifest && !faults.length) faults.push(...boundFaults(manifest, peaksOf(vectors)));
  if (!manifest || faults.length) throw new SkillFormatError(`${path} is not a valid skill package`, bounded(faults));
  return { manifest, vectors, draft, size: data.length };
}

function readManifest(container: Container, path: string, faults: string[]): Manifest | null {
  const unknown = [...container.metadata.keys()].filter((key) => key !== "lime");
  faults.push(...unknown.map((key) => `__metadata__ has the unknown key ${show(key)}; expected only 'lime'`));
  const text = container.metadata.get("lime");
  if (text === undefined) {
    faults.push("__metadata__ has no key 'lime': a safetensors file, but not a skill package");
  }
  if (faults.length || text === undefined) return null;
  try {
    return parseManifest(text);
  } catch (error) {
    if (error instanceof OtherFormatError) throw new SkillFormatError(`${path} has ${error.summary}`);
    if (!(error instanceof SkillFormatError)) throw error;
    faults.push(...(error.faults.length ? error.faults : [error.summary]));
    return null;
  }
}

function factsOf(entries: Map<string, Entry>): Facts {
  const parts: Record<string, Map<string, Entry>> = { draft: new Map(), route: new Map() };
  const vectors = new Map<string, Entry>();
  for (const [name, entry] of entries) {
    const first = name.split(".", 1)[0]!;
    (Object.hasOwn(parts, first) ? parts[first]! : vectors).set(name, entry);
  }
  const faults = [...formFaults(vectors), ...draftFormFaults(parts["draft"]!), ...routeFormFaults(parts["route"]!)];
  const kinds = new Set([...vectors.keys()].map((name) => name.split(".", 1)[0]!));
  return { vectors, faults, draft: draftMeta(parts["draft"]!), route: parts["route"]!.size > 0, kinds };
}

function* routeFormFaults(forms: Map<string, Entry>): Iterable<string> {
  for (const [name, form] of forms) {
    if (name !== CENTROIDS) yield `tensor ${show(name)}: expected ${CENTROIDS} as the only tensor route.*`;
    else if (form.dtype !== "float16" || form.rows > 4 || form.columns > 2 ** 14) {
      yield `tensor ${name} is ${form.dtype} [${form.rows}, ${form.columns}]; expected float16, at most [4, 16384]`;
    }
  }
}

function* routeNumberFaults(container: Container): Iterable<string> {
  const found = numbers(container.body, container.entries!.get(CENTROIDS)!) as Uint16Array;
  if (!fromHalf(found).every(Number.isFinite)) yield `tensor ${CENTROIDS} contains numbers that are not finite`;
}

/** Compare the E, the kinds, the draft table, the route and the digest of the manifest with the tensors. */
async function sealFaults(manifest: Manifest, container: Container, facts: Facts): Promise<string[]> {
  const faults: string[] = [];
  for (const [name, entry] of facts.vectors) {
    if (entry.rows !== manifest.experts) {
      faults.push(`tensor ${show(name)} has ${entry.rows} rows; expected E = ${manifest.experts}`);
    }
  }
  const [declared, present] = [Object.keys(manifest.bounds).sort(byCodePoint), [...facts.kinds].sort(byCodePoint)];
  if (declared.join() !== present.join()) {
    faults.push(`manifest.bounds declares ${show(declared)} but the tensors are ${show(present)}; expected the same`);
  }
  const meta = (one: DraftMeta | null | undefined): string =>
    one ? `{'entries': ${one.entries}, 'order': ${one.order}}` : "None";
  if (meta(manifest.draft) !== meta(facts.draft)) {
    faults.push(`manifest.draft is ${meta(manifest.draft)} but the tensors say ${meta(facts.draft)}; expected the same`);
  }
  if (facts.route !== (manifest.route !== undefined)) {
    const { layer, pooling } = manifest.route ?? {};
    const declaredRoute = manifest.route ? `{'layer': ${layer}, 'pooling': '${pooling}'}` : "None";
    faults.push(`manifest.route is ${declaredRoute} but ${CENTROIDS} is ${facts.route ? "there" : "missing"}`);
  }
  if ([...container.entries!.keys()].some((name) => /[^\x00-\x7f]/.test(name))) return faults; // already faults
  const found = await digestOf(manifest.digest, container);
  if (found !== manifest.digest) {
    faults.push(
      `the digest is ${found.slice(0, 12)}, the manifest says ${manifest.digest.slice(0, 12)}: the file was changed or ` +
        "damaged after it was written; get it again",
    );
  }
  return faults;
}

function digestOf(digest: string, container: Container): Promise<string> {
  const encoder = new TextEncoder();
  const text = container.metadata.get("lime")!.replaceAll(`"digest":"${digest}",`, "");
  const parts: Uint8Array[] = [encoder.encode(`${text}\n`)];
  for (const [name, entry] of [...container.entries!].sort(([a], [b]) => byCodePoint(a, b))) {
    parts.push(encoder.encode(`${JSON.stringify([name, entry.dtype, [entry.rows, entry.columns]])}\n`));
    parts.push(container.body.subarray(entry.begin, entry.end));
  }
  return sha256(...parts);
}

function* boundFaults(manifest: Manifest, peaks: Map<Kind, number>): Iterable<string> {
  for (const [kind, peak] of peaks) {
    const bound = manifest.bounds[kind]!;
    if (peak > bound) {
      yield `${kind} reaches ${general(peak)}; manifest.bounds.${kind} promises at most ${general(bound)}`;
    }
  }
}
