/** An exported model and the skills loaded into it. Requests run one after the other; each names its own skill. */

import { fromHalf, toHalf } from "./common/float16.js";
import { show } from "./common/show.js";
import { answer, Answer, Applied, Options, score, Timings } from "./decoding/answer.js";
import { prove } from "./decoding/proof.js";
import { ConfigError, SkillMismatchError, StoppedError, UnknownSkillError } from "./errors.js";
import { ListedSkill, ModelContract, packRow, readContract, readWebModel, WebModel } from "./model/contract.js";
import { Device, Engine, OrtModule } from "./model/engine.js";
import { Source } from "./model/source.js";
import { checkSkill } from "./skills/compatibility.js";
import { Interface, Manifest } from "./skills/manifest.js";
import { readSkill } from "./skills/package.js";
import { Prompt, Text, Tokens } from "./text/text.js";
import { PublicKey, readKey, verifySignature } from "./trust/signature.js";

export interface RuntimeOptions {
  /** ONNX Runtime's threads; null: its own choice. */
  threads?: number;
  /** Most tokens of prompt and answer together; a browser copies the KV cache with every token. Default 512. */
  context?: number;
  /** Public keys (PEM). With some, only skills that one of them signed are loaded. */
  keys?: string[];
}
export interface SkillOptions { name?: string; prove?: boolean; replace?: boolean; signature?: Uint8Array; file?: string }
export interface SkillInfo {
  name: string; version: string; digest: string; activation: string; description: string; license: string; author: string;
  size: number; proved: boolean; signer: string | null; interface: Interface;
}
/** What a request may set; the skill's own settings, then greedy decoding of at most 256 tokens, fill the rest. */
export interface Settings {
  skill?: string | null; maxNewTokens?: number; temperature?: number; topK?: number; topP?: number;
  repetitionPenalty?: number; seed?: number; stop?: string[]; speculate?: boolean; signal?: AbortSignal;
  /** What the answer must be: one of these texts, or "text" for free text in spite of the skill's interface. */
  answers?: string[] | "text";
}
export interface Receipt { backbone: string; adapter: string; graph: string; skill: string | null; name: string | null }
export interface Generation extends Answer { receipt: Receipt }
export interface Choice { label: string; probabilities: Record<string, number>; scores: Record<string, number>; receipt: Receipt }

interface Loaded { info: SkillInfo; manifest: Manifest; applied: Applied }

const RANGES: Record<string, [boolean, number, number]> = {
  maxNewTokens: [true, 1, 2 ** 20], temperature: [false, 0, 10], topK: [true, 0, 2 ** 20], topP: [false, 1e-3, 1],
  repetitionPenalty: [false, 0.1, 10], seed: [true, 0, 2 ** 32 - 1],
};
const OTHERS = ["skill", "stop", "speculate", "signal", "answers"];

export class Runtime {
  private readonly loaded = new Map<string, Loaded>();
  private active: string | null = null;
  private last: Promise<unknown> = Promise.resolve();

  private constructor(
    private readonly engine: Engine, private readonly text: Text, readonly web: WebModel, readonly contract: ModelContract,
    private readonly keys: readonly PublicKey[],
  ) {}

  /** Open a model; `Runtime.load` of the package for your platform calls this. */
  static async open(ort: OrtModule, source: Source, device: Device, options: RuntimeOptions = {}): Promise<Runtime> {
    const contract = await readContract(await source.read("lime.json", 4 * 2 ** 20));
    const web = readWebModel(await source.read("web.json", 16 * 2 ** 20), contract);
    const context = options.context ?? 512;
    if (!Number.isInteger(context) || context < 2) throw new ConfigError(`context is ${context}; expected a whole number from 2`);
    const keys = await Promise.all((options.keys ?? []).map(readKey));
    const [graph, weights] = web.variants[device]!;
    const read = (name: string): Promise<Uint8Array> =>
      source.verified(name, (contract.files.get(name) ?? web.files.get(name))!);
    const config = web.files.has("tokenizer_config.json") ? await read("tokenizer_config.json") : null;
    const text = new Text(web, await read("tokenizer.json"), config);
    const files: [Uint8Array, Uint8Array] = [await read(graph), await read(weights)];
    const room = Math.min(context, web.contextLength);
    const engine = await Engine.open(ort, contract, web, device, files, options.threads, room);
    return new Runtime(engine, text, web, contract, keys);
  }

  get device(): Device {
    return this.engine.device;
  }

  /** The skills that lie beside the model on its host. */
  get listed(): readonly ListedSkill[] {
    return this.web.skills;
  }

  get activeSkill(): string | null {
    return this.active;
  }

  /** The loaded skills, in loading order. */
  skills(): SkillInfo[] {
    return [...this.loaded.values()].map(({ info }) => info);
  }

  /** Check the bytes of a package and load it; a failure at any step changes nothing. */
  async loadSkill(data: Uint8Array, options: SkillOptions = {}): Promise<SkillInfo> {
    const file = options.file ?? "the file";
    const signer = this.keys.length ? await verifySignature(data, options.signature ?? null, file, this.keys) : null;
    const skill = await readSkill(data, file);
    const { manifest } = skill;
    const name = options.name ?? manifest.name;
    if (typeof name !== "string" || !name || /\p{C}/u.test(name)) throw new ConfigError(`the name ${show(name)} cannot be used; expected printable text`);
    this.checkFree(name, options.replace ?? false);
    checkSkill(skill, this.contract);
    if (skill.draft && skill.draft.largestId >= this.web.vocabulary) {
      throw new SkillMismatchError(`${file} does not fit the tokenizer of this model`, [
        `the draft table has the token ${skill.draft.largestId}; the vocabulary has ${this.web.vocabulary}`,
      ]);
    }
    let values = packRow(this.contract, skill.vectors);
    if (this.contract.precision === "int4") values = fromHalf(toHalf(values)); // as Python's bank holds them
    const applied: Applied = { row: this.engine.row(manifest.digest, values), activation: manifest.activation, draft: skill.draft };
    if (options.prove) await this.alone(() => prove(this.engine, this.text, name, manifest.golden, applied));
    this.checkFree(name, options.replace ?? false);
    const { version, digest, activation, description, license, author } = manifest;
    const info: SkillInfo = {
      name, version, digest, activation, description, license, author, size: skill.size, proved: options.prove ?? false,
      signer, interface: manifest.interface,
    };
    this.loaded.set(name, { info, manifest, applied });
    return info;
  }

  unloadSkill(name: string): void {
    this.find(name);
    if (this.active === name) throw new ConfigError(`skill '${name}' is active: call useSkill(null) or use another skill first`);
    this.loaded.delete(name);
  }

  /** The skill of requests that name none; null is the base. */
  useSkill(name: string | null): void {
    if (name !== null) this.find(name);
    this.active = name;
  }

  /** Answer a request, or a list of messages. */
  async generate(prompt: Prompt, settings: Settings = {}): Promise<Generation> {
    const pieces = this.stream(prompt, settings);
    for (;;) {
      const { done, value } = await pieces.next();
      if (done) return value;
    }
  }

  /** Answer piece by piece; the value at the end (`next()` with `done`) is the whole answer. */
  async *stream(prompt: Prompt, settings: Settings = {}): AsyncGenerator<string, Generation> {
    const loaded = this.requested(settings);
    const options = optionsOf(settings, loaded?.manifest);
    const tokens = this.encode(prompt, loaded);
    const choices = choicesOf(prompt, settings, loaded);
    const release = await this.turn();
    try {
      if (choices && options.temperature === 0 && options.repetitionPenalty === 1) {
        const made = await this.likeliest(tokens, loaded, choices, settings.signal ?? null);
        yield made.text;
        return { ...made, receipt: this.receipt(loaded) };
      }
      if (choices) throw new ConfigError("answers that are one of several texts are greedy here: expected temperature 0 and repetitionPenalty 1");
      const room = this.engine.contextLength - tokens.ids.length;
      if (settings.maxNewTokens === undefined && room < options.maxNewTokens) options.maxNewTokens = Math.max(1, room);
      const made = yield* answer(this.engine, this.text, tokens, this.apply(loaded), options, settings.signal ?? null);
      return { ...made, receipt: this.receipt(loaded) };
    } finally {
      release();
    }
  }

  /** The likeliest of several given answers, by log P(choice + end of turn | prompt). */
  async choose(prompt: Prompt, choices: string[], settings: Pick<Settings, "skill" | "signal"> = {}): Promise<Choice> {
    const loaded = this.requested(settings);
    checkChoices(choices);
    const tokens = this.encode(prompt, loaded);
    const found = await this.alone(() =>
      score(this.engine, this.text, tokens, this.apply(loaded), choices, settings.signal ?? null).catch((error: unknown) => {
        throw settings.signal?.aborted ? new StoppedError("choose was cancelled before every choice was scored") : error;
      }),
    );
    const scores = Object.fromEntries(found);
    const most = Math.max(...found.values());
    const weights = choices.map((choice) => Math.exp(found.get(choice)! - most));
    const sum = weights.reduce((a, b) => a + b);
    return {
      label: choices[weights.indexOf(Math.max(...weights))]!,
      probabilities: Object.fromEntries(choices.map((choice, at) => [choice, weights[at]! / sum])),
      scores,
      receipt: this.receipt(loaded),
    };
  }

  /** Free the session; the runtime cannot be used afterwards. */
  async close(): Promise<void> {
    await this.alone(() => this.engine.release());
  }

  private async likeliest(tokens: Tokens, loaded: Loaded | null, choices: string[], signal: AbortSignal | null): Promise<Answer> {
    const started = performance.now();
    const found = await score(this.engine, this.text, tokens, this.apply(loaded), choices, signal).catch((error: unknown) => {
      throw signal?.aborted ? new StoppedError("the request was cancelled before every choice was scored") : error;
    });
    const label = choices.reduce((best, one) => (found.get(one)! > found.get(best)! ? one : best));
    const ids = [...this.text.encode(label), this.text.endOfTurn];
    const timings: Timings = {
      prefillMilliseconds: performance.now() - started, decodeMilliseconds: 0, promptTokens: tokens.ids.length,
      reusedTokens: 0, newTokens: ids.length, draftedTokens: 0, acceptedTokens: 0,
    };
    return { text: label, tokenIds: ids, finishReason: "stop", timings };
  }

  private encode(prompt: Prompt, loaded: Loaded | null): Tokens {
    const input = loaded?.manifest.interface.input;
    const request = typeof prompt === "string" && input ? `${input.prefix}${prompt}${input.suffix}` : prompt;
    return this.text.prompt(request, input?.system ?? null);
  }

  private apply(loaded: Loaded | null): Applied {
    return loaded?.applied ?? { row: this.engine.base, activation: "always", draft: null };
  }

  private receipt(loaded: Loaded | null): Receipt {
    const { backbone, adapter, digest } = this.contract;
    return { backbone, adapter, graph: digest, skill: loaded?.info.digest ?? null, name: loaded?.info.name ?? null };
  }

  private requested(settings: Settings): Loaded | null {
    const name = settings.skill === undefined ? this.active : settings.skill;
    return name === null ? null : this.find(name);
  }

  private find(name: string): Loaded {
    const found = this.loaded.get(name);
    if (found) return found;
    const names = [...this.loaded.keys()].map((one) => `'${one}'`).join(", ");
    const listed = names ? `loaded skills: ${names}` : "no skill is loaded";
    throw new UnknownSkillError(`no skill named ${show(name)}; ${listed}. Call loadSkill first (null is the base)`);
  }

  private checkFree(name: string, replace: boolean): void {
    if (this.loaded.has(name) && !replace) {
      throw new ConfigError(`a skill named '${name}' is already loaded: pass replace: true, or load it under another name`);
    }
  }

  /** Wait until the requests before are done; the result ends this turn. */
  private async turn(): Promise<() => void> {
    const before = this.last;
    let release!: () => void;
    this.last = new Promise<void>((resolve) => (release = resolve));
    await before;
    return release;
  }

  private async alone<T>(work: () => Promise<T>): Promise<T> {
    const release = await this.turn();
    try {
      return await work();
    } finally {
      release();
    }
  }
}

function optionsOf(settings: Settings, manifest: Manifest | undefined): Options {
  const faults = Object.keys(settings).filter((key) => !(key in RANGES) && !OTHERS.includes(key)).map(
    (key) => `unknown setting '${key}'; known are ${[...Object.keys(RANGES), ...OTHERS].join(", ")}`,
  );
  for (const [name, [whole, low, high]] of Object.entries(RANGES)) {
    const value = settings[name as keyof Settings] as unknown;
    if (value === undefined) continue;
    if (typeof value !== "number" || (whole && !Number.isInteger(value)) || !(low <= value && value <= high)) {
      faults.push(`${name} is ${String(value)}; expected a ${whole ? "whole number" : "number"} from ${low} to ${high}`);
    }
  }
  const stop = settings.stop ?? manifest?.prompt.stop ?? [];
  if (!Array.isArray(stop) || stop.length > 16 || !stop.every((one) => typeof one === "string" && one)) {
    faults.push("stop is no list of at most 16 texts");
  }
  if (faults.length) throw new ConfigError("the generation settings are invalid", faults);
  const own = manifest?.prompt.generation ?? {};
  return {
    maxNewTokens: settings.maxNewTokens ?? own.max_new_tokens ?? 256,
    temperature: settings.temperature ?? own.temperature ?? 0,
    topK: settings.topK ?? own.top_k ?? 0,
    topP: settings.topP ?? own.top_p ?? 1,
    repetitionPenalty: settings.repetitionPenalty ?? own.repetition_penalty ?? 1,
    seed: settings.seed ?? null,
    stop,
    speculate: settings.speculate ?? true,
  };
}

function checkChoices(choices: unknown): void {
  const texts = Array.isArray(choices) && choices.length > 0 && choices.every((one) => typeof one === "string" && one);
  if (!texts) throw new ConfigError(`the choices are invalid; expected a list of texts`);
  if (new Set(choices as string[]).size < (choices as string[]).length) {
    throw new ConfigError("the choices are invalid; expected each choice only once");
  }
}

/** The texts of which the answer must be one; null for free text. */
function choicesOf(prompt: Prompt, settings: Settings, loaded: Loaded | null): string[] | null {
  if (settings.answers === "text") return null;
  if (settings.answers !== undefined) {
    checkChoices(settings.answers);
    return settings.answers;
  }
  const form = loaded?.manifest.interface.answers;
  if (!form || typeof prompt !== "string" || form.kind === "text") return null;
  if (form.kind === "choices") return form.value as string[];
  throw new ConfigError(
    `the answers of this skill follow a ${form.kind}, which this runtime cannot hold them to: pass answers: "text" for ` +
      "answers that nothing checks",
  );
}
