/** lime-edge-web in the browser: a Runtime whose model lives in a module Worker, so that the page stays responsive. */

import { FetchError, fromPlain } from "./errors.js";
import { FromWorker, ToWorker, WorkerOptions } from "./messages.js";
import { ListedSkill } from "./model/contract.js";
import { Device } from "./model/engine.js";
import { Progress } from "./model/source.js";
import { Choice, Generation, Settings, SkillInfo, SkillOptions } from "./runtime.js";
import { Prompt } from "./text/text.js";

export * from "./index.js";

export interface BrowserOptions extends WorkerOptions {
  /** Where the model runs. "auto": WebGPU on a real GPU, otherwise wasm. */
  device?: "auto" | "wasm" | "webgpu";
  /** URL of dist/worker.js; default: beside this file. */
  worker?: string | URL;
  /** URL of a folder with the files of onnxruntime-web/dist; default: ort/ beside this file. */
  ort?: string | URL;
  onProgress?: (progress: Progress) => void;
  signal?: AbortSignal;
}

interface Call { resolve: (value: never) => void; reject: (error: unknown) => void; heard?: (value: never) => void }

/** An exported model and its skills. The names are those of the Python package. */
export class Runtime {
  device: Device = "wasm";
  listed: readonly ListedSkill[] = [];
  activeSkill: string | null = null;
  private known: SkillInfo[] = [];
  private readonly calls = new Map<number, Call>();
  private count = 0;

  private constructor(private readonly worker: Worker) {
    worker.addEventListener("message", ({ data }: MessageEvent<FromWorker>) => this.hear(data));
    worker.addEventListener("error", (event) => {
      for (const call of this.calls.values()) call.reject(new FetchError(`the Worker failed: ${event.message}`));
      this.calls.clear();
    });
  }

  /** Open the model that lies at a URL. What was downloaded once is read from the browser's cache. */
  static async load(url: string | URL, options: BrowserOptions = {}): Promise<Runtime> {
    const { device = "auto", worker, ort, onProgress, signal, ...rest } = options;
    const runtime = new Runtime(new Worker(worker ?? new URL("./worker.js", import.meta.url), { type: "module" }));
    const folder = new URL(ort ?? new URL("./ort/", import.meta.url), location.href).href;
    const message = { kind: "load" as const, url: new URL(url, location.href).href, ort: folder, device, options: rest };
    try {
      const loaded = await runtime.call<{ device: Device; listed: ListedSkill[] }>(message, signal, onProgress);
      runtime.device = loaded.device;
      runtime.listed = loaded.listed;
      return runtime;
    } catch (error) {
      runtime.worker.terminate();
      throw error;
    }
  }

  /** The loaded skills, in loading order. */
  skills(): SkillInfo[] {
    return [...this.known];
  }

  /** Load a skill from a URL, a file that was dropped or picked, or its bytes. */
  async loadSkill(skill: string | URL | Blob | ArrayBuffer | Uint8Array, options: SkillOptions = {}): Promise<SkillInfo> {
    const { data, file, signature } = await bytesOf(skill);
    const whole = { ...(file ? { file } : {}), ...(signature ? { signature } : {}), ...options };
    const made = await this.call<{ info: SkillInfo; skills: SkillInfo[] }>({ kind: "loadSkill", data, options: whole });
    this.known = made.skills;
    return made.info;
  }

  async unloadSkill(name: string): Promise<void> {
    await this.call({ kind: "unloadSkill", name });
    this.known = this.known.filter((info) => info.name !== name);
  }

  /** The skill of requests that name none; null is the base. */
  async useSkill(name: string | null): Promise<void> {
    await this.call({ kind: "useSkill", name });
    this.activeSkill = name;
  }

  async generate(prompt: Prompt, settings: Settings = {}): Promise<Generation> {
    const { signal, ...sent } = settings;
    return this.call<Generation>({ kind: "stream", prompt, settings: sent }, signal);
  }

  /** Answer piece by piece; the value at the end (`next()` with `done`) is the whole answer. */
  async *stream(prompt: Prompt, settings: Settings = {}): AsyncGenerator<string, Generation> {
    const { signal, ...sent } = settings;
    const stop = new AbortController();
    const pieces: string[] = [];
    let wake = (): void => undefined;
    let over = false;
    const end = (): void => {
      over = true;
      wake();
    };
    const whole = this.call<Generation>(
      { kind: "stream", prompt, settings: sent },
      signal ? AbortSignal.any([signal, stop.signal]) : stop.signal,
      (piece: string) => {
        pieces.push(piece);
        wake();
      },
    );
    whole.then(end, end);
    try {
      for (;;) {
        while (pieces.length) yield pieces.shift()!;
        if (over) return await whole;
        await new Promise<void>((resolve) => (wake = resolve));
      }
    } finally {
      if (!over) stop.abort(); // the reader left
    }
  }

  async choose(prompt: Prompt, choices: string[], settings: Pick<Settings, "skill" | "signal"> = {}): Promise<Choice> {
    const { signal, ...sent } = settings;
    return this.call<Choice>({ kind: "choose", prompt, choices, settings: sent }, signal);
  }

  async close(): Promise<void> {
    await this.call({ kind: "close" });
    this.worker.terminate();
  }

  private call<T>(message: Sendable, signal?: AbortSignal, heard?: (value: never) => void): Promise<T> {
    const id = ++this.count;
    const cancel = (): void => this.worker.postMessage({ id, kind: "cancel" } satisfies ToWorker);
    return new Promise<T>((resolve, reject) => {
      this.calls.set(id, { resolve: resolve as Call["resolve"], reject, ...(heard ? { heard } : {}) });
      this.worker.postMessage({ id, ...message });
      if (signal?.aborted) cancel();
      else signal?.addEventListener("abort", cancel, { once: true });
    }).finally(() => signal?.removeEventListener("abort", cancel));
  }

  private hear(message: FromWorker): void {
    const call = this.calls.get(message.id);
    if (!call) return;
    if (message.kind === "piece" || message.kind === "progress") return void call.heard?.(message.value as never);
    this.calls.delete(message.id);
    if (message.kind === "done") call.resolve(message.value as never);
    else call.reject(fromPlain(message.error));
  }
}

type Sendable = ToWorker extends infer T ? (T extends { id: number } ? Omit<T, "id"> : never) : never;

async function bytesOf(skill: string | URL | Blob | ArrayBuffer | Uint8Array) {
  if (skill instanceof Uint8Array) return { data: skill };
  if (skill instanceof ArrayBuffer) return { data: new Uint8Array(skill) };
  if (skill instanceof Blob) {
    const file = skill instanceof File ? skill.name : undefined;
    return { data: new Uint8Array(await skill.arrayBuffer()), file };
  }
  const url = new URL(skill, location.href);
  const response = await fetch(url).catch((error: Error) => {
    throw new FetchError(`${url.href} cannot be fetched: ${error.message}`);
  });
  if (!response.ok) throw new FetchError(`${url.href} cannot be fetched: HTTP ${response.status}`);
  const signed = await fetch(`${url.href}.sig`).catch(() => null);
  const signature = signed?.ok ? new Uint8Array(await signed.arrayBuffer()) : undefined;
  return { data: new Uint8Array(await response.arrayBuffer()), file: url.pathname.split("/").at(-1), signature };
}
