/** The Worker of lime-edge-web: owns the model, and runs the calls that the page sends. */

import { toPlain } from "./errors.js";
import { Device, OrtModule } from "./model/engine.js";
import { UrlSource } from "./model/source.js";
import { Runtime } from "./runtime.js";
import { FromWorker, ToWorker } from "./messages.js";

/** The build with WebGPU lacks kernels for wasm that int4 models need. */
const MODULES = { wasm: "ort.wasm.bundle.min.mjs", webgpu: "ort.webgpu.bundle.min.mjs" };
let runtime: Runtime | null = null;
const stops = new Map<number, AbortController>();
const send = (message: FromWorker): void => postMessage(message);

addEventListener("message", ({ data }: MessageEvent<ToWorker>) => {
  if (data.kind === "cancel") stops.get(data.id)?.abort();
  else void run(data);
});

async function run(call: Exclude<ToWorker, { kind: "cancel" }>): Promise<void> {
  const stop = new AbortController();
  stops.set(call.id, stop);
  try {
    send({ id: call.id, kind: "done", value: await answered(call, stop.signal) });
  } catch (error) {
    send({ id: call.id, kind: "failed", error: toPlain(error) });
  } finally {
    stops.delete(call.id);
  }
}

async function answered(call: Exclude<ToWorker, { kind: "cancel" }>, signal: AbortSignal): Promise<unknown> {
  if (call.kind === "load") {
    const { url, ort: folder, device, options } = call;
    const chosen: Device = device === "auto" ? await bestDevice() : device;
    const module = new URL(MODULES[chosen === "webgpu" ? "webgpu" : "wasm"], folder).href;
    const ort = (await import(/* @vite-ignore */ module)) as OrtModule & { env: { wasm: { numThreads?: number; wasmPaths?: string } } };
    ort.env.wasm.numThreads = options.threads ?? 1;
    const onProgress = (progress: unknown): void => send({ id: call.id, kind: "progress", value: progress });
    const source = new UrlSource(url, { onProgress, signal, cache: options.cache ?? true });
    runtime = await Runtime.open(ort, source, chosen, options);
    return { device: runtime.device, listed: runtime.listed };
  }
  if (!runtime) throw new Error("the model is not loaded");
  switch (call.kind) {
    case "loadSkill": return { info: await runtime.loadSkill(call.data, call.options), skills: runtime.skills() };
    case "unloadSkill": return void runtime.unloadSkill(call.name);
    case "useSkill": return void runtime.useSkill(call.name);
    case "choose": return runtime.choose(call.prompt, call.choices, { ...call.settings, signal });
    case "close": return runtime.close();
    case "stream": {
      const pieces = runtime.stream(call.prompt, { ...call.settings, signal });
      for (;;) {
        const { done, value } = await pieces.next();
        if (done) return value;
        send({ id: call.id, kind: "piece", value });
      }
    }
  }
}

/** WebGPU where the browser has a real GPU; a software adapter is slower than wasm. */
async function bestDevice(): Promise<Device> {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return adapter && !adapter.info?.isFallbackAdapter && adapter.info?.architecture !== "swiftshader" ? "webgpu" : "wasm";
}
