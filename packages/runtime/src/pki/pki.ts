/**
 * The mesh's own certificate authority for development and single-operator installations. The only
 * file that knows the X.509 library, which needs reflect-metadata before anything else of it.
 */
import "reflect-metadata";
import { createPrivateKey, randomBytes, webcrypto } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import * as x509 from "@peculiar/x509";
import { CovenantError } from "../errors/covenant-error.ts";
import { readFileLimited, writeFileAtomic } from "../files/files.ts";
import { SERVICE_URI_PREFIX } from "./names.ts";

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const PEM_BYTES_MAX = 64 * 1024;
const DAY_MS = 86_400_000;
const AUTHORITY_DAYS = 3650;
const LEAF_DAYS = 825;
const PRIVATE_MODE = 0o600;

/** Files of an authority. */
export interface AuthorityFiles {
  caFile: string;
  caKeyFile: string;
}

/** Files of a leaf, ready to be a `tls` section. */
export interface CertificateFiles {
  certFile: string;
  keyFile: string;
  caFile: string;
}

/** Makes an authority in `directory` (ca.crt, ca.key), or returns the one that is there. */
export async function createDevelopmentCa(directory: string): Promise<AuthorityFiles> {
  const files = authorityFiles(directory);
  if (await exists(files.caFile)) return files;
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const keys = await generateKeys();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(),
    name: "CN=Covenant Mesh development authority",
    ...validity(AUTHORITY_DAYS),
    signingAlgorithm: ALGORITHM,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(
        x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign,
        true,
      ),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  await writeFileAtomic(files.caKeyFile, await privatePem(keys.privateKey), { mode: PRIVATE_MODE });
  await writeFileAtomic(files.caFile, `${certificate.toString("pem")}\n`);
  return files;
}

/** What a certificate is valid for beyond its name. */
export interface CertificateOptions {
  /** Further DNS names; localhost is always there. */
  dnsNames?: string[];
  /** Further addresses; 127.0.0.1 and ::1 are always there. */
  addresses?: string[];
  /** Days from now; negative makes an expired certificate, for tests. */
  validDays?: number;
}

/**
 * Issues `<name>.crt` and `<name>.key` in the authority's directory: common name and the URI
 * covenant://service/<name>, for servers and clients. Names are lower-case words with hyphens.
 */
export async function issueCertificate(
  directory: string,
  name: string,
  options: CertificateOptions = {},
): Promise<CertificateFiles> {
  if (!/^[a-z0-9][a-z0-9-]{0,62}$/.test(name)) {
    throw new CovenantError("COV_INVALID_ARGUMENT", `"${name}" cannot be a certificate's name`, {
      remedy: "Use lower-case letters, digits and hyphens, at most 63.",
    });
  }
  const { caFile, caKeyFile } = authorityFiles(directory);
  const authority = new x509.X509Certificate(await readPem(caFile));
  const keys = await generateKeys();
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: `CN=${name}`,
    issuer: authority.subject,
    ...validity(options.validDays ?? LEAF_DAYS),
    signingAlgorithm: ALGORITHM,
    publicKey: keys.publicKey,
    signingKey: await importPrivate(await readPem(caKeyFile)),
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([
        x509.ExtendedKeyUsage.serverAuth,
        x509.ExtendedKeyUsage.clientAuth,
      ]),
      new x509.SubjectAlternativeNameExtension(alternativeNames(name, options)),
      await x509.AuthorityKeyIdentifierExtension.create(authority),
    ],
  });
  const certFile = join(directory, `${name}.crt`);
  const keyFile = join(directory, `${name}.key`);
  await writeFileAtomic(keyFile, await privatePem(keys.privateKey), { mode: PRIVATE_MODE });
  await writeFileAtomic(certFile, `${certificate.toString("pem")}\n`);
  return { certFile, keyFile, caFile };
}

function alternativeNames(name: string, options: CertificateOptions): x509.JsonGeneralNames {
  const dnsNames = ["localhost", ...(options.dnsNames ?? [])];
  const addresses = ["127.0.0.1", "::1", ...(options.addresses ?? [])];
  return [
    { type: "url", value: `${SERVICE_URI_PREFIX}${name}` },
    ...dnsNames.map((value) => ({ type: "dns" as const, value })),
    ...addresses.map((value) => ({ type: "ip" as const, value })),
  ];
}

function authorityFiles(directory: string): AuthorityFiles {
  return { caFile: join(directory, "ca.crt"), caKeyFile: join(directory, "ca.key") };
}

function generateKeys() {
  return webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
}

/** 16 random bytes; the first bit is cleared, for a serial number is a positive integer. */
function serialNumber(): string {
  const bytes = randomBytes(16);
  bytes[0]! &= 0x7f;
  return bytes.toString("hex");
}

/** Begins a day early: clocks of participants differ. */
function validity(days: number): { notBefore: Date; notAfter: Date } {
  const now = Date.now();
  return {
    notBefore: new Date(now + Math.min(-1, days - 1) * DAY_MS),
    notAfter: new Date(now + days * DAY_MS),
  };
}

async function privatePem(key: webcrypto.CryptoKey): Promise<string> {
  const bytes = await webcrypto.subtle.exportKey("pkcs8", key);
  return `${x509.PemConverter.encode(bytes, "PRIVATE KEY")}\n`;
}

function importPrivate(pem: string): Promise<webcrypto.CryptoKey> {
  const bytes = createPrivateKey(pem).export({ type: "pkcs8", format: "der" });
  return webcrypto.subtle.importKey("pkcs8", bytes, ALGORITHM, false, ["sign"]);
}

async function readPem(path: string): Promise<string> {
  return new TextDecoder().decode(await readFileLimited(path, PEM_BYTES_MAX));
}

async function exists(path: string): Promise<boolean> {
  try {
    await readFileLimited(path, PEM_BYTES_MAX);
    return true;
  } catch (error) {
    if (error instanceof CovenantError && error.code === "COV_FILE_NOT_FOUND") return false;
    throw error;
  }
}
