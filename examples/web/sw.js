/** Keeps the page, the package and ONNX Runtime for use without network; the model is kept by lime-edge-web itself. */

const CACHE = "lime-page-1";

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("message", (event) => event.waitUntil(keep(event.data)));
self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method === "GET" && url.origin === location.origin && ours(url)) event.respondWith(answer(event.request, url));
});

function ours({ pathname }) {
  const inside = pathname.slice(new URL("./", location.href).pathname.length);
  return /^(index\.html|[^/]*\.(js|css)|package\/.*|ort\/.*)?$/.test(inside);
}

/** The network first, so that a new version is used at once; what was kept if there is none. */
async function answer(request, url) {
  const cache = await caches.open(CACHE);
  const key = url.pathname;
  try {
    const response = await fetch(request);
    if (response.ok) await cache.put(key, response.clone());
    return response;
  } catch (error) {
    const kept = await cache.match(key);
    if (kept) return kept;
    throw error;
  }
}

/** Fetch again what the page loaded before this worker was there. */
async function keep(device) {
  const build = device === "webgpu" ? "ort-wasm-simd-threaded.asyncify" : "ort-wasm-simd-threaded";
  const files = ["./", "page.js", "style.css", "package/browser.js", "package/worker.js",
    `ort/ort.${device}.bundle.min.mjs`, `ort/${build}.mjs`, `ort/${build}.wasm`];
  const cache = await caches.open(CACHE);
  for (const file of files) {
    const url = new URL(file, location.href);
    if (await cache.match(url.pathname)) continue;
    const response = await fetch(url);
    if (response.ok) await cache.put(url.pathname, response);
  }
}
