/** Bundles the package into dist/: one file for Node, one for the page and one for its Worker. */

import { build } from "esbuild";

const common = { bundle: true, format: "esm", target: "es2022", sourcemap: true, logLevel: "warning", legalComments: "linked" };
const external = ["onnxruntime-node", "onnxruntime-web", "onnxruntime-web/*"];

await build({ ...common, entryPoints: { node: "src/node.ts" }, outdir: "dist", platform: "node", external });
await build({ ...common, entryPoints: { browser: "src/browser.ts", worker: "src/worker.ts" }, outdir: "dist", external });
