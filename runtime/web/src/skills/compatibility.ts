/** Whether a skill fits a model: digests, routing constants, module table, limits. docs/skill-format.md, Fitness. */

import { bounded, general } from "../common/show.js";
import { SkillMismatchError } from "../errors.js";
import { ModelContract } from "../model/contract.js";
import { Skill } from "./package.js";
import { Kind, kindOf } from "./vectors.js";

/** The largest |value| of each kind that is accepted: what an untrusted skill can do is bounded by it. */
export const LIMITS: Record<Kind, number> = { expert: 16, gain: 8, shift: 64, rank: 16, prefix: 64 };
const HINT = "learn the skill again on this checkpoint, or export the checkpoint it was made on";

/** Check that a valid skill fits a model; throws SkillMismatchError with everything that does not. */
export function checkSkill(skill: Skill, model: ModelContract, limits: Partial<Record<Kind, number>> = {}): void {
  const fit = [...originFaults(skill, model), ...tableFaults(skill, model)];
  const over = [...limitFaults(skill, { ...LIMITS, ...limits })];
  if (fit.length + over.length) {
    const hint = fit.length ? `: ${HINT}` : "";
    throw new SkillMismatchError(
      `skill '${skill.manifest.name}' does not fit ${model.backboneName} (${model.precision})${hint}`,
      bounded([...fit, ...over]),
    );
  }
}

function* originFaults({ manifest }: Skill, model: ModelContract): Iterable<string> {
  const madeFor = manifest.backbone_name ? ` (${manifest.backbone_name})` : "";
  const pairs: [string, string, string][] = [
    [`backbone${madeFor}`, manifest.backbone, model.backbone],
    ["shared adapter", manifest.adapter, model.adapter],
    ["module table", manifest.modules, model.modulesDigest],
  ];
  for (const [what, wanted, found] of pairs) {
    if (wanted !== found) yield `made for ${what} ${wanted.slice(0, 12)}, the model has ${found.slice(0, 12)}`;
  }
  if (manifest.experts > 1) {
    yield `has ${manifest.experts} experts; models for browsers run skills of one: learn it with --experts 1`;
  }
}

function* tableFaults(skill: Skill, model: ModelContract): Iterable<string> {
  const kinds = [...new Set([...skill.vectors.keys()].map(kindOf))];
  for (const kind of kinds) {
    if (!model.kinds.includes(kind)) {
      const what = kind === "rank" ? "export with --rank-gate" : "export again with this kind";
      yield `contains ${kind} vectors, the graph has only ${model.kinds.join(", ")}: ${what}`;
    }
    const wanted = new Map(model.modules.map((module) => [`${kind}.${module.name}`, module]));
    const found = [...skill.vectors].filter(([name]) => kindOf(name) === kind);
    const extra = found.map(([name]) => name).filter((name) => !wanted.has(name));
    if (extra.length) yield `contains ${some(extra)}, which the model does not have`;
    const gainOnly = found.map(([name]) => name)
      .filter((name) => model.kinds.includes(kind) && wanted.has(name) && wanted.get(name)!.offsets[kind] === undefined);
    if (gainOnly.length) {
      yield `contains ${some(gainOnly.sort())}, where the model accepts only the gain: export without --gain-only`;
    }
    for (const [name, { rows, columns }] of found) {
      const module = wanted.get(name);
      if (module && model.kinds.includes(kind) && columns !== module.out_features) {
        yield `${name} is [${rows}, ${columns}], the model expects [${skill.manifest.experts}, ${module.out_features}]`;
      }
    }
  }
}

function* limitFaults({ manifest }: Skill, limits: Record<Kind, number>): Iterable<string> {
  for (const [kind, bound] of Object.entries(manifest.bounds) as [Kind, number][]) {
    if (!(bound <= limits[kind])) {
      yield `declares ${kind} up to ${general(bound)}, this runtime accepts at most ${general(limits[kind])}: ` +
        "raise the limit if you trust the author";
    }
  }
}

function some(names: string[]): string {
  const rest = names.length - 4;
  return names.slice(0, 4).join(", ") + (rest > 0 ? ` and ${rest} more` : "");
}
