/**
 * Serves the example page, the built package and ONNX Runtime, with the headers that threads in browsers need:
 * `node serve.mjs MODEL [PORT]`.
 */

import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { dirname, extname, join, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
const TYPES = {
  ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css",
  ".json": "application/json", ".wasm": "application/wasm",
};

/** Start a server: / the example, /package/ dist, /ort/ onnxruntime-web, /model/ and /files/ the given folder. */
export async function serve(folder, port = 0) {
  const roots = {
    "": join(HERE, "../../examples/web"),
    package: join(HERE, "dist"),
    ort: join(HERE, "node_modules/onnxruntime-web/dist"),
    files: resolve(folder),
    model: resolve(folder),
  };
  let silent = false;
  const server = createServer((request, response) => {
    if (silent) return request.socket.destroy();
    const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    const [, first = "", ...others] = path.split("/");
    const [name, rest] = others.length && first in roots ? [first, others.join("/")] : ["", path.slice(1)];
    const file = join(roots[name], rest || "index.html");
    const headers = {
      "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp",
      "content-type": TYPES[extname(file)] ?? "application/octet-stream", "cache-control": "no-cache",
    };
    if (path === "/test.html") return response.writeHead(200, { ...headers, "content-type": TYPES[".html"] }).end("<!doctype html>");
    if (!file.startsWith(roots[name] + sep) || !existsSync(file) || !statSync(file).isFile()) return response.writeHead(404, headers).end();
    response.writeHead(200, { ...headers, "content-length": statSync(file).size });
    createReadStream(file).pipe(response);
  });
  await new Promise((ready) => server.listen(port, "127.0.0.1", ready));
  return {
    url: `http://localhost:${server.address().port}/`,
    offline: (value) => {
      silent = value;
      if (value) server.closeAllConnections();
    },
    close: () => new Promise((done) => {
      server.closeAllConnections();
      server.close(done);
    }),
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { url } = await serve(process.argv[2] ?? ".", Number(process.argv[3] ?? 8123));
  console.log(`the page is at ${url}`);
}
