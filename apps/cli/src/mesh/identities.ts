// Keys and certificates of a development mesh: made on first start, kept afterwards.
import { randomBytes } from "node:crypto";
import { access } from "node:fs/promises";
import path from "node:path";
import { type Hotkey, toHex } from "@covenant/contracts";
import {
  createDevelopmentCa,
  issueCertificate,
  readHotkeyFile,
  writeFileAtomic,
} from "@covenant/runtime";
import type { Layout } from "./layout.ts";

/** Certificate files of one service. */
export interface TlsFiles {
  certFile: string;
  keyFile: string;
  caFile: string;
}

/** A participant's key and where it lies. */
export interface StoredHotkey {
  name: string;
  seedFile: string;
  hotkey: Hotkey;
}

const certificateNames = [
  "checkpoint-registry",
  "grail-rl",
  "basilica-scheduler",
  "operator",
  "console",
  // Participants serve with this one; it gives them no rights as callers.
  "participant",
] as const;
export type CertificateName = (typeof certificateNames)[number];

/** Creates the development certificate authority and every service's certificate, unless they exist. */
export async function prepareCertificates(
  layout: Layout,
): Promise<Record<CertificateName, TlsFiles>> {
  await createDevelopmentCa(layout.pki);
  const entries: [CertificateName, TlsFiles][] = [];
  for (const name of certificateNames)
    entries.push([name, await issueCertificate(layout.pki, name)]);
  return Object.fromEntries(entries) as Record<CertificateName, TlsFiles>;
}

/** Loads the named hotkey, or makes one on first use. Seed files hold 64 hex digits and are readable by the owner alone. */
export async function storedHotkey(layout: Layout, name: string): Promise<StoredHotkey> {
  const seedFile = path.join(layout.identities, `${name}.seed`);
  const exists = await access(seedFile).then(
    () => true,
    () => false,
  );
  if (!exists) {
    await writeFileAtomic(seedFile, Buffer.from(`${toHex(randomBytes(32))}\n`), { mode: 0o600 });
  }
  return { name, seedFile, hotkey: await readHotkeyFile(seedFile) };
}
