/** Constants of the router, as manifests and lime.json state them. With one expert they have no effect. */

import { byCodePoint, JsonObject, Real } from "../common/json.js";
import { show } from "../common/show.js";

export interface Routing {
  experts: number; gamma: number; temperature: number; mode: string; top_k: number; theta: number; softness: number;
  window: number;
}

const WHOLE: Record<string, [number, number]> = { experts: [1, 64], top_k: [1, 64], window: [1, 16] };
const REAL: Record<string, [number, number]> = {
  gamma: [0, 1], theta: [0, 1], temperature: [1e-3, 1e3], softness: [1e-3, 1e3],
};
const MODES = ["hard", "soft", "auto", "auto_soft"];
const KEYS = ["experts", "gamma", "mode", "softness", "temperature", "theta", "top_k", "window"];

/** Every unknown, missing or invalid constant. */
export function routingFaults(values: JsonObject): string[] {
  const unknown = [...values.keys()].filter((key) => !KEYS.includes(key)).sort(byCodePoint);
  const missing = KEYS.filter((key) => !values.has(key));
  if (unknown.length || missing.length) {
    return [...unknown.map((key) => `unknown key ${show(key)}`), ...missing.map((key) => `missing key '${key}'`)];
  }
  const faults: string[] = [];
  for (const [name, [low, high]] of Object.entries({ ...WHOLE, ...REAL })) {
    const value = values.get(name)!;
    const real = value instanceof Real && !(name in WHOLE) ? value.value : value;
    if ((typeof real !== "number" && typeof real !== "bigint") || !(low <= real && real <= high)) {
      const what = name in WHOLE ? "a whole number" : "a number";
      const ends = [low, high].map((end) => (end === 1e3 ? "1000.0" : String(end)));
      faults.push(`${name} is ${show(value)}; expected ${what} from ${ends[0]} to ${ends[1]}`);
    }
  }
  const mode = values.get("mode");
  if (typeof mode !== "string" || !MODES.includes(mode)) {
    faults.push(`mode is ${show(mode)}; expected one of ${MODES.join(", ")}`);
  }
  return faults;
}
