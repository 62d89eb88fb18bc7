/** Drafts the next tokens of an answer, which one run verifies together. A wrong draft costs time and changes no answer. */

import { DraftTable } from "../skills/draftTable.js";

const LONGEST = 4; // drafted tokens in a run
const LEAST = 0.6; // probability of a draft that is worth its share of a run

export class Drafter {
  drafted = 0;
  accepted = 0;
  private readonly context: number[];

  constructor(prompt: readonly number[], private readonly table: DraftTable, private readonly ends: ReadonlySet<number>) {
    this.context = [...prompt];
  }

  /** Tokens that may come next: as many as are likely to be right together. */
  propose(most: number): number[] {
    const found: number[] = [];
    let probability = 1;
    while (found.length < Math.min(most, LONGEST)) {
      const next = this.table.next([...this.context.slice(-this.table.order), ...found]);
      if (!next || this.ends.has(next[0]) || (probability *= next[1]) < LEAST) break;
      found.push(next[0]);
    }
    this.drafted += found.length;
    return found;
  }

  /** Add the next token of the answer. */
  accept(id: number): void {
    this.context.push(id);
  }
}
