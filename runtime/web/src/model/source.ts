/** Where the files of a model come from: a static host with a cache by digest, or a folder in Node. */

import { sha256, joined } from "../common/digests.js";
import { FetchError } from "../errors.js";
import { Described } from "./contract.js";

export interface Progress { file: string; loaded: number; total: number; cached: boolean }
export interface LoadOptions { onProgress?: (progress: Progress) => void; signal?: AbortSignal; cache?: boolean }

/** Reads files of one model. */
export interface Source {
  /** A small file that is not described yet: lime.json or web.json. */
  read(file: string, limit: number): Promise<Uint8Array>;
  /** A file whose size and SHA-256 are known; throws FetchError if it is another. */
  verified(file: string, described: Described): Promise<Uint8Array>;
}

const CACHE = "lime-edge-1";

/** Files below a URL. What was verified is kept in the Cache API under its digest, so it loads without a network. */
export class UrlSource implements Source {
  private readonly base: URL;
  private readonly options: LoadOptions;

  constructor(url: string | URL, options: LoadOptions = {}) {
    const base = new URL(url, globalThis.location?.href);
    this.base = base.pathname.endsWith("/") ? base : new URL(`${base.pathname}/${base.search}`, base);
    this.options = options;
  }

  async read(file: string, limit: number): Promise<Uint8Array> {
    const url = new URL(file, this.base);
    const store = await this.store();
    let response: Response;
    try {
      response = await fetched(url, this.options.signal);
    } catch (error) {
      const kept = await store?.match(url); // offline: what was there last time
      if (!kept || this.options.signal?.aborted) throw error;
      return new Uint8Array(await kept.arrayBuffer());
    }
    const bytes = await this.body(response, file, limit);
    await store?.put(url, new Response(bytes as BodyInit));
    return bytes;
  }

  async verified(file: string, described: Described): Promise<Uint8Array> {
    const store = await this.store();
    const key = new URL(`lime-sha256/${described.sha256}`, this.base.origin);
    const kept = await store?.match(key);
    if (kept) {
      const bytes = new Uint8Array(await kept.arrayBuffer());
      if (bytes.length === described.bytes && (await sha256(bytes)) === described.sha256) {
        this.report(file, bytes.length, described.bytes, true);
        return bytes;
      }
      await store!.delete(key);
    }
    const bytes = await this.body(await fetched(new URL(file, this.base), this.options.signal), file, described.bytes);
    const found = await sha256(bytes);
    if (bytes.length !== described.bytes || found !== described.sha256) {
      throw new FetchError(
        `${file} has SHA-256 ${found.slice(0, 12)}; expected ${described.sha256.slice(0, 12)}: the file was changed or ` +
          "damaged: put the exported directory on the host again",
      );
    }
    try {
      await store?.put(key, new Response(bytes as BodyInit));
    } catch {
      // Over the quota: the model works, and is downloaded again next time.
    }
    return bytes;
  }

  private async body(response: Response, file: string, limit: number): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    let loaded = 0;
    const reader = response.body!.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return joined(parts);
      loaded += value.length;
      if (loaded > limit) {
        await reader.cancel();
        throw new FetchError(`${file} is larger than ${limit} bytes; expected what the model describes`);
      }
      parts.push(value);
      this.report(file, loaded, limit, false);
    }
  }

  private report(file: string, loaded: number, total: number, cached: boolean): void {
    this.options.onProgress?.({ file, loaded, total, cached });
  }

  private async store(): Promise<Cache | null> {
    if (this.options.cache === false || typeof caches === "undefined") return null;
    try {
      return await caches.open(CACHE);
    } catch {
      return null; // private windows may refuse
    }
  }
}

async function fetched(url: URL, signal?: AbortSignal): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, signal ? { signal } : {});
  } catch (error) {
    throw new FetchError(`${url.href} cannot be fetched: ${(error as Error).message}`);
  }
  if (!response.ok) throw new FetchError(`${url.href} cannot be fetched: HTTP ${response.status}`);
  return response;
}
