// The built page. Everything is read from one folder; names outside it do not exist.
import { readFile } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import path from "node:path";
import { fileURLToPath } from "node:url";

const pageFolder = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../dist");

const contentTypes: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
};

const securityHeaders = {
  "content-security-policy":
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
};

/** Sends a file of the page, or 404 in words. */
export async function serveStatic(
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  if (request.method !== "GET" && request.method !== "HEAD") {
    response.writeHead(405, { allow: "GET, HEAD" }).end("Only GET and HEAD are served here.\n");
    return;
  }
  const name = fileOf(request.url ?? "/");
  const bytes = name === undefined ? undefined : await readFile(name).catch(() => undefined);
  if (!name || !bytes) {
    response.writeHead(404, { "content-type": "text/plain" }).end("There is no such page.\n");
    return;
  }
  const immutable = name.includes(`${path.sep}assets${path.sep}`);
  response.writeHead(200, {
    ...securityHeaders,
    "content-type": contentTypes[path.extname(name)] ?? "application/octet-stream",
    "content-length": bytes.byteLength,
    // Names of assets carry their hash; the page itself may change at any start.
    "cache-control": immutable ? "public, max-age=31536000, immutable" : "no-cache",
  });
  response.end(request.method === "HEAD" ? undefined : bytes);
}

function fileOf(url: string): string | undefined {
  const pathname = url.split(/[?#]/, 1)[0] ?? "/";
  let decoded: string;
  try {
    decoded = decodeURIComponent(pathname);
  } catch {
    return undefined;
  }
  const file = path.resolve(pageFolder, `.${decoded === "/" ? "/index.html" : decoded}`);
  return file.startsWith(pageFolder + path.sep) ? file : undefined;
}
