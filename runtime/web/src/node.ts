/** lime-edge-web in Node: the model comes from a folder or a URL and runs in onnxruntime-node. */

import { open, readFile, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { sha256 } from "./common/digests.js";
import { FetchError, ModelError, SkillFormatError } from "./errors.js";
import { Described } from "./model/contract.js";
import { OrtModule } from "./model/engine.js";
import { LoadOptions, Source, UrlSource } from "./model/source.js";
import { Runtime as Core, RuntimeOptions, SkillInfo, SkillOptions } from "./runtime.js";
import { FILE_LIMIT } from "./skills/package.js";

export * from "./index.js";

/** Files below a folder. */
class FolderSource implements Source {
  constructor(private readonly folder: string) {}

  async read(file: string, limit: number): Promise<Uint8Array> {
    const path = join(this.folder, file);
    try {
      if ((await stat(path)).size > limit) throw new Error(`it is larger than ${limit} bytes`);
      return new Uint8Array(await readFile(path));
    } catch (error) {
      throw new ModelError(`${path} cannot be read; expected what \`lime-edge export --target web\` writes`, [(error as Error).message]);
    }
  }

  async verified(file: string, described: Described): Promise<Uint8Array> {
    const bytes = await this.read(file, described.bytes);
    if (bytes.length !== described.bytes || (await sha256(bytes)) !== described.sha256) {
      throw new FetchError(`${join(this.folder, file)} is not the file that the model describes: copy the directory again`);
    }
    return bytes;
  }
}

/** An exported model and its skills. The names are those of the Python package. */
export class Runtime {
  private constructor(private readonly core: Core) {}

  /** Open a model directory, or the URL of one. */
  static async load(where: string | URL, options: RuntimeOptions & LoadOptions = {}): Promise<Runtime> {
    const text = String(where);
    const remote = /^https?:/.test(text);
    const folder = text.startsWith("file:") ? fileURLToPath(text) : text;
    const source = remote ? new UrlSource(text, options) : new FolderSource(folder);
    const ort = (await import("onnxruntime-node")) as unknown as OrtModule;
    return new Runtime(await Core.open(ort, source, "node", options));
  }

  get activeSkill() { return this.core.activeSkill; }
  get listed() { return this.core.listed; }
  skills() { return this.core.skills(); }
  unloadSkill(name: string) { this.core.unloadSkill(name); }
  useSkill(name: string | null) { this.core.useSkill(name); }
  generate(...given: Parameters<Core["generate"]>) { return this.core.generate(...given); }
  stream(...given: Parameters<Core["stream"]>) { return this.core.stream(...given); }
  choose(...given: Parameters<Core["choose"]>) { return this.core.choose(...given); }
  close() { return this.core.close(); }

  /** Load a skill from a file or from its bytes; a signature lies beside a file as `NAME.lime.sig`. */
  async loadSkill(skill: string | Uint8Array | ArrayBuffer, options: SkillOptions = {}): Promise<SkillInfo> {
    if (typeof skill !== "string") return this.core.loadSkill(new Uint8Array(skill), options);
    const data = await readRegular(skill);
    const signature = options.signature ?? (await readFile(`${skill}.sig`).then((found) => new Uint8Array(found), () => undefined));
    return this.core.loadSkill(data, { file: basename(skill), ...options, ...(signature ? { signature } : {}) });
  }
}

async function readRegular(path: string): Promise<Uint8Array> {
  try {
    const handle = await open(path);
    try {
      const info = await handle.stat();
      if (!info.isFile()) throw new SkillFormatError(`${path} is not a regular file; expected one .lime file`);
      if (info.size > FILE_LIMIT) throw new SkillFormatError(`${path} has ${info.size} bytes; expected at most ${FILE_LIMIT}`);
      return new Uint8Array(await handle.readFile());
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (error instanceof SkillFormatError) throw error;
    const missing = (error as NodeJS.ErrnoException).code === "ENOENT";
    throw new SkillFormatError(missing ? `${path} does not exist; expected a .lime file` : `${path} cannot be read: ${(error as Error).message}`);
  }
}
