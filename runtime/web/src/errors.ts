/** Every error that lime-edge raises on purpose, with the names of the Python package. Bad input raises nothing else. */

/** Root of the tree. `faults` lists everything that is wrong, each with the expected value and what to do. */
export class LimeError extends Error {
  readonly faults: readonly string[];
  /** The message without the faults. */
  readonly summary: string;

  constructor(summary: string, faults: readonly string[] = []) {
    super([summary, ...faults].join("\n  - "));
    this.summary = summary;
    this.faults = faults;
    this.name = new.target.name;
  }
}

/** A setting or argument is unknown, out of range, or contradicts another. */
export class ConfigError extends LimeError {}
/** An exported model is incomplete, damaged, or of another version. */
export class ModelError extends LimeError {}
/** The requested device is not available. */
export class DeviceError extends LimeError {}
/** A file cannot be fetched, or is not what its digest says. */
export class FetchError extends LimeError {}
/** A request was cancelled, and what it has is of no use in part. */
export class StoppedError extends LimeError {}
/** A trust policy or a key in it cannot be used. */
export class PolicyError extends LimeError {}
/** Root of the errors about a skill. */
export class SkillError extends LimeError {}
/** The file is not a valid skill package. */
export class SkillFormatError extends SkillError {}
/** The package is valid, but was made for another model. */
export class SkillMismatchError extends SkillError {}
/** Its golden prompts do not reproduce. */
export class SkillProofError extends SkillError {}
/** Its signature is missing or wrong, or the policy refuses it. */
export class SkillTrustError extends SkillError {}
/** No skill of that name is loaded. */
export class UnknownSkillError extends SkillError {}

const CLASSES = {
  LimeError, ConfigError, ModelError, DeviceError, FetchError, StoppedError, PolicyError, SkillError,
  SkillFormatError, SkillMismatchError, SkillProofError, SkillTrustError, UnknownSkillError,
} as const;

/** What a Worker sends instead of an error, which would lose its class on the way. */
export interface PlainError { name: string; summary: string; faults: readonly string[] }

export function toPlain(error: unknown): PlainError {
  if (error instanceof LimeError) return { name: error.name, summary: error.summary, faults: error.faults };
  return { name: "LimeError", summary: error instanceof Error ? error.message : String(error), faults: [] };
}

export function fromPlain(plain: PlainError): LimeError {
  const kind = CLASSES[plain.name as keyof typeof CLASSES] ?? LimeError;
  return new kind(plain.summary, plain.faults);
}
