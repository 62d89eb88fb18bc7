/** What a page and its Worker send each other. */

import type { PlainError } from "./errors.js";
import type { Device } from "./model/engine.js";
import type { RuntimeOptions, Settings, SkillOptions } from "./runtime.js";
import type { Prompt } from "./text/text.js";

export type WorkerOptions = RuntimeOptions & { cache?: boolean };
type Sent = Omit<Settings, "signal">;

export type ToWorker = { id: number } & (
  | { kind: "load"; url: string; ort: string; device: Device | "auto"; options: WorkerOptions }
  | { kind: "loadSkill"; data: Uint8Array; options: SkillOptions }
  | { kind: "unloadSkill"; name: string }
  | { kind: "useSkill"; name: string | null }
  | { kind: "stream"; prompt: Prompt; settings: Sent }
  | { kind: "choose"; prompt: Prompt; choices: string[]; settings: Sent }
  | { kind: "close" }
  | { kind: "cancel" }
);

export type FromWorker = { id: number } & (
  | { kind: "done"; value: unknown }
  | { kind: "failed"; error: PlainError }
  | { kind: "piece"; value: string }
  | { kind: "progress"; value: unknown }
);
