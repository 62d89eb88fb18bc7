/** The public names that browsers and Node share. */

export * from "./errors.js";
export { toHalf, fromHalf } from "./common/float16.js";
export { packRow, readContract } from "./model/contract.js";
export type { ListedSkill, ModelContract } from "./model/contract.js";
export type { Device } from "./model/engine.js";
export type { Progress } from "./model/source.js";
export type { Choice, Generation, Receipt, RuntimeOptions, Settings, SkillInfo, SkillOptions } from "./runtime.js";
export type { Answer, Timings } from "./decoding/answer.js";
export { readSkill } from "./skills/package.js";
export type { Skill } from "./skills/package.js";
export { checkSkill } from "./skills/compatibility.js";
export type { Message, Prompt } from "./text/text.js";
export { readKey, verifySignature } from "./trust/signature.js";
