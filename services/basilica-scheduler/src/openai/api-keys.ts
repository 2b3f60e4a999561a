import { timingSafeEqual } from "node:crypto";
import { sha256 } from "@covenant/contracts";
import { readFileLimited } from "@covenant/runtime";
import { OpenAiError } from "./errors.ts";

const keysFileBytesMax = 1024 * 1024;

/** Lets a request pass or throws 401. */
export type KeyCheck = (authorization: string | undefined) => void;

/**
 * Reads API keys, one a line; empty lines and lines that begin with # do not count. Without a file
 * everybody passes. Only hashes stay in memory.
 */
export async function loadApiKeys(path: string | undefined): Promise<KeyCheck> {
  if (path === undefined) return () => undefined;
  const text = new TextDecoder().decode(await readFileLimited(path, keysFileBytesMax));
  const lines = text.split("\n").map((line) => line.trim());
  const keys = lines.filter((line) => line !== "" && !line.startsWith("#")).map(hash);
  return (authorization) => {
    const [, key] = /^Bearer (\S+)$/i.exec(authorization ?? "") ?? [];
    const given = hash(key ?? "");
    // Every key is compared, so that time tells nothing about which one is near.
    const matches = keys.filter((known) => timingSafeEqual(known, given));
    if (key !== undefined && matches.length > 0) return;
    const message = key === undefined ? "an API key is needed" : "the API key is not valid";
    throw new OpenAiError(401, message, { code: "invalid_api_key" });
  };
}

function hash(key: string): Uint8Array {
  return sha256(new TextEncoder().encode(key));
}
