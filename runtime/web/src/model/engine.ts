/** One ONNX Runtime session and the KV cache of one sequence. */

import type * as Ort from "onnxruntime-common";
import { ConfigError, DeviceError, ModelError } from "../errors.js";
import { ModelContract, WebModel } from "./contract.js";

export type Device = "wasm" | "webgpu" | "node";
/** What both onnxruntime-web and onnxruntime-node export. */
export type OrtModule = Pick<typeof Ort, "InferenceSession" | "Tensor">;

const ROW = "lime.row";
const LOGITS_FROM = "lime.logits_from";
const CHUNK = 64; // prompt tokens in one run: bounds the memory of a step

/** The vectors that a run uses; `key` identifies them in the cache. Zeros are the base. */
export interface Row { key: string; tensor: Ort.Tensor }

export class Engine {
  readonly base: Row;
  private cache: Record<string, Ort.Tensor>;
  private positions: { id: number; row: string }[] = [];
  private readonly names: string[] = [];

  private constructor(
    private readonly ort: OrtModule,
    private readonly session: Ort.InferenceSession,
    readonly contract: ModelContract,
    readonly web: WebModel,
    readonly device: Device,
    readonly contextLength: number,
  ) {
    for (let layer = 0; layer < web.layers; layer++) this.names.push(`${layer}.key`, `${layer}.value`);
    this.base = this.row("", new Float32Array(contract.rowSize));
    this.cache = this.empty();
  }

  /** Open the graph; `files` are the graph and its weights. */
  static async open(
    ort: OrtModule, contract: ModelContract, web: WebModel, device: Device, files: [Uint8Array, Uint8Array],
    threads: number | undefined, contextLength: number,
  ): Promise<Engine> {
    const [, weights] = web.variants[device]!;
    const options: Ort.InferenceSession.SessionOptions = {
      externalData: [{ path: weights, data: files[1] }],
      executionProviders: [device === "node" ? "cpu" : device],
      logSeverityLevel: 3,
    };
    if (device === "node") options.intraOpNumThreads = threads ?? 0;
    if (device === "webgpu") {
      const names = Array.from({ length: web.layers }, (_, layer) => [`present.${layer}.key`, `present.${layer}.value`]);
      options.preferredOutputLocation = Object.fromEntries(names.flat().map((name) => [name, "gpu-buffer" as const]));
    }
    let session: Ort.InferenceSession;
    try {
      session = await ort.InferenceSession.create(files[0], options);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      if (device === "webgpu") throw new DeviceError(`the model cannot run on WebGPU: ${why}`);
      throw new ModelError(`ONNX Runtime cannot load the graph: ${why}`);
    }
    // A runtime that lacks an input would ignore its values, and answer as the base under the name of a skill.
    const missing = [ROW, LOGITS_FROM, "input_ids", "attention_mask"].filter((name) => !session.inputNames.includes(name));
    if (missing.length) {
      throw new ModelError(`the graph has no input ${missing.join(", ")}: export the model again with --target web`);
    }
    return new Engine(ort, session, contract, web, device, contextLength);
  }

  /** The vectors of a skill, ready to be fed. */
  row(key: string, values: Float32Array): Row {
    return { key, tensor: new this.ort.Tensor("float32", values, [1, values.length]) };
  }

  /** The number of tokens that the sequence in the cache has in common with a prompt, all but its last one. */
  common(ids: readonly number[], rows: readonly Row[]): number {
    let count = 0;
    while (
      count < Math.min(this.positions.length, ids.length - 1) &&
      this.positions[count]!.id === ids[count] && this.positions[count]!.row === rows[count]!.key
    ) count++;
    return count;
  }

  /** Forget all but the first positions. */
  rewind(count: number): void {
    this.positions.length = Math.min(this.positions.length, count);
  }

  /** Read a prompt; what the cache has already is not read again. Returns the logits after it, [V], and what was reused. */
  async prefill(
    ids: readonly number[], rows: readonly Row[], stopped: () => void,
  ): Promise<{ logits: Float32Array; reused: number }> {
    const reused = this.common(ids, rows);
    this.rewind(reused);
    let logits: Float32Array = new Float32Array();
    for (let at = reused; at < ids.length; ) {
      stopped();
      let end = at + 1; // a run has the vectors of one skill
      while (end < ids.length && end - at < CHUNK && rows[end] === rows[at]) end++;
      logits = (await this.extend(ids.slice(at, end), rows[at]!, 1))[0]!;
      at = end;
    }
    return { logits, reused };
  }

  /** Append tokens. Returns the logits after each of the last `count` of them, [V] each. */
  async extend(ids: readonly number[], row: Row, count: number): Promise<Float32Array[]> {
    const { Tensor } = this.ort;
    const total = this.positions.length + ids.length;
    if (total > this.contextLength) {
      throw new ConfigError(`${total} tokens; this runtime has room for ${this.contextLength}: shorten the prompt or load with more context`);
    }
    const feeds: Record<string, Ort.Tensor> = {
      input_ids: new Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]),
      attention_mask: new Tensor("int64", new BigInt64Array(total).fill(1n), [1, total]),
      [ROW]: row.tensor,
      [LOGITS_FROM]: new Tensor("int64", BigInt64Array.of(BigInt(-count)), [1]),
    };
    if (this.session.inputNames.includes("position_ids")) {
      const places = Array.from(ids, (_, at) => BigInt(this.positions.length + at));
      feeds["position_ids"] = new Tensor("int64", BigInt64Array.from(places), [1, ids.length]);
    }
    for (const name of this.names) feeds[`past_key_values.${name}`] = this.cache[name]!;
    const shared = this.device === "node"; // past and present are one buffer
    const fetches = shared ? { logits: null, ...this.presents() } : undefined;
    const results = fetches ? await this.session.run(feeds, fetches) : await this.session.run(feeds);
    if (!shared) {
      const before = this.cache;
      this.cache = Object.fromEntries(this.names.map((name) => [name, results[`present.${name}`]!]));
      if (this.device === "webgpu") for (const tensor of Object.values(before)) tensor.dispose();
    }
    for (const id of ids) this.positions.push({ id, row: row.key });
    const logits = results["logits"]!;
    const values = (await logits.getData()) as Float32Array;
    const size = this.web.vocabulary;
    return Array.from({ length: count }, (_, at) => values.subarray(at * size, (at + 1) * size));
  }

  async release(): Promise<void> {
    await this.session.release();
  }

  private presents(): Record<string, Ort.Tensor> {
    return Object.fromEntries(this.names.map((name) => [`present.${name}`, this.cache[name]!]));
  }

  private empty(): Record<string, Ort.Tensor> {
    const { kvHeads, headSize } = this.web;
    const length = this.device === "node" ? this.contextLength : 0;
    const size = kvHeads * length * headSize;
    const made = (): Ort.Tensor => new this.ort.Tensor("float32", new Float32Array(size), [1, kvHeads, length, headSize]);
    return Object.fromEntries(this.names.map((name) => [name, made()]));
  }
}
