/** Tokens and text: the chat pieces of the model, and answers as they grow. What stands in a message is never special. */

import { Tokenizer } from "@huggingface/tokenizers";
import { decodeUtf8 } from "../common/json.js";
import { show } from "../common/show.js";
import { ConfigError, ModelError } from "../errors.js";
import { Piece, WebModel } from "../model/contract.js";

export interface Message { role: string; content: string }
export type Prompt = string | Message[];
/** Token ids of a prompt, and the first position of the answer's turn, where skills of activation "response" begin. */
export interface Tokens { ids: number[]; boundary: number }

interface AddedToken { id: number; content: string; special: boolean }
interface TokenizerFile { added_tokens?: AddedToken[] }

export class Text {
  readonly ends: Set<number>;
  readonly endOfTurn: number;
  private readonly whole: Tokenizer;
  private readonly plainOnly: Tokenizer;
  private readonly special = new Map<string, number>();

  constructor(private readonly web: WebModel, tokenizer: Uint8Array, config: Uint8Array | null) {
    this.endOfTurn = web.endId;
    this.ends = new Set([...web.eosIds, web.endId]);
    try {
      const document = JSON.parse(decodeUtf8(tokenizer)) as TokenizerFile;
      const settings = config ? (JSON.parse(decodeUtf8(config)) as Record<string, unknown>) : {};
      settings["clean_up_tokenization_spaces"] = false;
      const added = document.added_tokens ?? [];
      const written = new Set(Object.values(web.chat ?? {}).flatMap((found) => Object.values(found).flat()));
      const special = added.filter((token) => token.special || written.has(token.id));
      for (const token of special) this.special.set(token.content, token.id);
      this.whole = new Tokenizer(document, settings);
      // Without its special tokens, a tokenizer cannot be made to write one by what stands in a message.
      this.plainOnly = new Tokenizer({ ...document, added_tokens: added.filter((token) => !special.includes(token)) }, settings);
    } catch (error) {
      throw new ModelError(`tokenizer.json cannot be used: ${(error as Error).message}`);
    }
  }

  /** Token ids of text that is data from beginning to end. */
  encode(text: string): number[] {
    if (/\p{Cs}/u.test(text)) throw new ConfigError(`the text ${show(text)} has a lone surrogate; expected Unicode text`);
    return text ? [...this.plainOnly.encode(text, { add_special_tokens: false }).ids] : [];
  }

  /** Encode a request (as one message of the user) or a conversation; `system` goes first unless there is one. */
  prompt(prompt: Prompt, system: string | null): Tokens {
    const chat = this.web.chat;
    if (!chat) throw new ConfigError("this model has no chat template");
    let messages: Message[] = typeof prompt === "string" ? [{ role: "user", content: prompt }] : prompt;
    const faults = messageFaults(messages, Object.keys(chat.first));
    if (faults.length) throw new ConfigError("the messages are invalid", faults);
    let begun = "";
    if (messages.length > 1 && messages.at(-1)!.role === "assistant") {
      begun = messages.at(-1)!.content;
      messages = messages.slice(0, -1);
    }
    if (system !== null && messages[0]!.role !== "system") messages = [{ role: "system", content: system }, ...messages];
    const body: Piece = [...(chat.first[messages[0]!.role] ?? [])];
    messages.forEach((message, at) => {
      body.push(message.content);
      const following = messages[at + 1];
      if (!following) return;
      const between = chat.between[`${message.role}>${following.role}`];
      if (!between) throw new ConfigError(`this model's template takes no ${following.role} message after one of ${message.role}`);
      body.push(...between);
    });
    const last = messages.at(-1)!.role;
    const opened = chat.answer[last];
    if (!opened) throw new ConfigError(`this model's template takes no ${last} message before an answer`);
    const ids = this.runs([...body, ...opened]);
    const before = this.runs([...body, ...(chat.last[last] ?? [])]);
    const start = before.every((id, at) => id === ids[at]) ? before.length : ids.length;
    const full = [...ids, ...this.encode(begun)];
    if (!full.length) throw new ConfigError("the prompt is empty; expected at least one token");
    return { ids: full, boundary: Math.min(start, full.length - 1) };
  }

  /** A prompt given as ids; the boundary is before the header of the answer. */
  known(ids: number[]): Tokens {
    const header = this.prompt("x", null);
    const size = header.ids.length - header.boundary;
    const ending = ids.slice(-size).join() === header.ids.slice(header.boundary).join();
    return { ids, boundary: Math.min(ending ? ids.length - size : ids.length, ids.length - 1) };
  }

  /** Text of token ids, without special tokens. */
  decode(ids: number[]): string {
    return ids.length ? this.whole.decode(ids, { skip_special_tokens: true, clean_up_tokenization_spaces: false }) : "";
  }

  /** Ids of stop strings that are special tokens; these never become text. */
  stopIds(stops: readonly string[]): number[] {
    return stops.flatMap((stop) => (this.special.has(stop) ? [this.special.get(stop)!] : []));
  }

  private runs(piece: Piece): number[] {
    const ids: number[] = [];
    let words = "";
    for (const part of piece) {
      if (typeof part === "string") {
        words += part;
        continue;
      }
      ids.push(...this.encode(words), part);
      words = "";
    }
    return [...ids, ...this.encode(words)];
  }
}

function messageFaults(messages: unknown, roles: string[]): string[] {
  if (!Array.isArray(messages) || !messages.length) return ["expected text or a list of messages"];
  return messages.flatMap((message: Partial<Message> | null, at) => {
    if (typeof message?.content !== "string" || typeof message.role !== "string") {
      return [`message ${at} is no object with the texts role and content`];
    }
    return roles.includes(message.role) ? [] : [`message ${at} has the role '${message.role}'; this model's template knows ${roles.join(", ")}`];
  });
}

/** The text of one answer, token by token: complete characters only, and no part of a stop string. */
export class TextStream {
  stopped = false;
  private readonly ids: number[] = [];
  private given = 0; // characters of the decoded text that were taken already

  constructor(private readonly text: Text, private readonly stops: readonly string[]) {}

  /** Add one token; returns the text that is now final. */
  push(id: number): string {
    this.ids.push(id);
    const whole = this.text.decode(this.ids).replace(/\ufffd+$/, "");
    const ends = this.stops.map((stop) => whole.indexOf(stop, this.given)).filter((at) => at >= 0);
    if (ends.length) {
      this.stopped = true;
      return this.take(whole, Math.min(...ends));
    }
    return this.take(whole, whole.length - this.undecided(whole));
  }

  /** The rest of the text, once no more tokens follow. */
  flush(): string {
    if (this.stopped) return "";
    const whole = this.text.decode(this.ids).replace(/\ufffd+$/, "");
    return this.take(whole, whole.length);
  }

  private take(whole: string, end: number): string {
    const piece = whole.slice(this.given, Math.max(end, this.given));
    this.given += piece.length;
    return piece;
  }

  /** Length of the longest end that could become a stop string. */
  private undecided(whole: string): number {
    const longest = Math.max(0, ...this.stops.map((stop) => stop.length - 1));
    for (let size = Math.min(longest, whole.length - this.given); size > 0; size--) {
      if (this.stops.some((stop) => stop.startsWith(whole.slice(-size)))) return size;
    }
    return 0;
  }
}
