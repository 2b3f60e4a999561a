import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { test } from "node:test";
import { temporaryDirectory } from "../testing.ts";
import { createDevelopmentCa, issueCertificate } from "./pki.ts";

test("a leaf is signed by the authority, names its service and serves this machine", async (t) => {
  const directory = await temporaryDirectory(t);
  const authority = await createDevelopmentCa(directory);
  const files = await issueCertificate(directory, "grail-rl", { dnsNames: ["grail.example"] });
  const ca = new X509Certificate(await readFile(authority.caFile));
  const leaf = new X509Certificate(await readFile(files.certFile));
  assert.ok(ca.ca && !leaf.ca);
  assert.ok(leaf.verify(ca.publicKey) && leaf.checkIssued(ca));
  assert.equal(leaf.subject, "CN=grail-rl");
  assert.equal(
    leaf.subjectAltName,
    "URI:covenant://service/grail-rl, DNS:localhost, DNS:grail.example, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1",
  );
  for (const file of [files.keyFile, authority.caKeyFile]) {
    assert.equal((await stat(file)).mode & 0o777, 0o600, `${file} is its owner's alone`);
  }
});

test("an authority that is there is kept", async (t) => {
  const directory = await temporaryDirectory(t);
  const { caFile } = await createDevelopmentCa(directory);
  const before = await readFile(caFile, "utf8");
  await createDevelopmentCa(directory);
  assert.equal(await readFile(caFile, "utf8"), before);
});

test("names that would not survive a URI or a path are refused", async (t) => {
  const directory = await temporaryDirectory(t);
  await createDevelopmentCa(directory);
  for (const name of [
    "",
    "../x",
    "A",
    "a b",
    "a,URI:covenant://service/operator",
    "x".repeat(64),
  ]) {
    await assert.rejects(issueCertificate(directory, name), { code: "COV_INVALID_ARGUMENT" });
  }
});
