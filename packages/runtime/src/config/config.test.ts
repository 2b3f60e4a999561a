import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { z } from "zod";
import { CovenantError } from "../errors/covenant-error.ts";
import { temporaryDirectory } from "../testing.ts";
import { EarlyExit, loadConfig } from "./load.ts";
import { editDistance, nearest } from "./nearest.ts";
import { listenSchema, tlsSchema } from "./schemas.ts";
import { parseBytes, parseDurationMs } from "./units.ts";

const schema = z.strictObject({
  listen: listenSchema,
  tls: tlsSchema.optional(),
  ledger: z.strictObject({
    url: z.string().describe("Where the ledger answers"),
    netuid: z.int().min(0).default(1),
  }),
  dataDirectory: z.string().default("data").describe("Everything that must survive"),
  pollMs: z.int().min(1).default(1000).describe("Time between looks"),
  cacheBytes: z.int().default(1024),
  behaviour: z.enum(["honest", "copy"]).default("honest"),
  verbose: z.boolean().default(false),
  peers: z.array(z.string()).default([]),
  apiToken: z.string().default("none"),
});

const service = "templar-trainer";
const load = (argv: string[], env: Record<string, string> = {}) =>
  loadConfig(schema, { service, argv, env });
const url = ["--ledger.url", "http://x"];

async function problems(argv: string[], env: Record<string, string> = {}): Promise<string> {
  const error = await load(argv, env).then(
    () => assert.fail("The configuration was accepted"),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof CovenantError && error.code === "COV_CONFIG_INVALID", String(error));
  return error.message;
}

test("defaults, file, environment and flags: the later wins, key by key", async (t) => {
  const file = join(await temporaryDirectory(t), "config.json");
  const content = { ledger: { url: "http://file", netuid: 2 }, pollMs: "5s", cacheBytes: "4 MiB" };
  await writeFile(file, JSON.stringify(content));
  const config = await load(["--config", file, "--ledger.url=http://flag", "--listen.port", "7"], {
    COVENANT_TEMPLAR_TRAINER_LEDGER_URL: "http://env",
    COVENANT_TEMPLAR_TRAINER_LEDGER_NETUID: "3",
    COVENANT_OTHER_SERVICE_LEDGER_NETUID: "9",
    COVENANT_READY_FILE: "x",
  });
  assert.deepEqual(config.ledger, { url: "http://flag", netuid: 3 });
  assert.equal(config.pollMs, 5000);
  assert.equal(config.cacheBytes, 4 * 1024 * 1024);
  assert.deepEqual(config.listen, { host: "127.0.0.1", port: 7 });
  assert.equal(config.dataDirectory, "data");
});

test("flags take every kind of value", async () => {
  const config = await load([
    ...url,
    "--data-directory",
    "d",
    "--verbose",
    "--peers",
    "a, b",
    "--poll-ms=2m",
    "--behaviour",
    "copy",
  ]);
  assert.equal(config.dataDirectory, "d");
  assert.equal(config.verbose, true);
  assert.deepEqual(config.peers, ["a", "b"]);
  assert.equal(config.pollMs, 120_000);
  assert.equal(config.behaviour, "copy");
});

test("all errors come at once, with path, fault, expectation and the nearest known key", async (t) => {
  const file = join(await temporaryDirectory(t), "config.json");
  const content = { ledger: { netuid: "two", urll: "http://x" }, pollms: 1, behaviour: "bad" };
  await writeFile(file, JSON.stringify(content));
  const argv = ["--config", file, "--data-dirctory", "d", "--poll-ms", "soon"];
  const text = await problems(argv, { COVENANT_TEMPLAR_TRAINER_VERBOS: "true" });
  for (const line of [
    /ledger\.url: Is missing \(a value of type string\)/,
    /ledger\.netuid: .*\(a value of type/,
    /ledger\.urll: Unknown key \(did you mean url\?\)/,
    /^ {2}pollms: Unknown key \(did you mean pollMs\?\)/m,
    /behaviour: .*\(one of honest, copy\)/,
    /--data-dirctory: Unknown flag \(did you mean --data-directory\?\)/,
    /pollMs: .*\(a duration such as "10s", or milliseconds\)/,
    /COVENANT_TEMPLAR_TRAINER_VERBOS: Unknown environment variable \(did you mean .*VERBOSE\?\)/,
  ]) {
    assert.match(text, line);
  }
});

test("files that are missing, broken or no object are explained", async (t) => {
  const directory = await temporaryDirectory(t);
  assert.match(await problems([...url, "--config", join(directory, "none")]), /does not exist/);
  const broken = join(directory, "broken.json");
  await writeFile(broken, "{");
  assert.match(await problems([...url, "--config", broken]), /Is no JSON/);
  const list = join(directory, "list.json");
  await writeFile(list, "[]");
  assert.match(await problems([...url, "--config", list]), /Is no JSON object/);
  assert.match(await problems([...url, "--config"]), /--config: Needs a value/);
});

test("--print-config shows the result with secrets hidden", async () => {
  const argv = [...url, "--api-token", "hunter2", "--print-config"];
  const exit = await load(argv).catch((reason: unknown) => reason);
  assert.ok(exit instanceof EarlyExit);
  const shown = JSON.parse(exit.output);
  assert.equal(shown.apiToken, "[hidden]");
  assert.equal(shown.ledger.url, "http://x");
  assert.ok(!exit.output.includes("hunter2"));
});

test("--help names every key with description, unit, default and variable", async () => {
  const exit = await load(["--help"]).catch((reason: unknown) => reason);
  assert.ok(exit instanceof EarlyExit);
  assert.match(exit.output, /--ledger\.url\n +Where the ledger answers\. \(string; required\)/);
  assert.match(exit.output, /--poll-ms\n.*\(milliseconds, or "10s"; default 1000\)/);
  assert.match(exit.output, /--behaviour\n.*honest \| copy; default "honest"/);
  assert.match(
    exit.output,
    /--tls\.cert-file\n.*optional\)\n +COVENANT_TEMPLAR_TRAINER_TLS_CERT_FILE/,
  );
});

test("keys that would reach into prototypes are only unknown keys", async (t) => {
  const file = join(await temporaryDirectory(t), "config.json");
  await writeFile(file, '{"__proto__": {"polluted": true}, "ledger": {"url": "x"}}');
  await load(["--config", file]).catch(() => undefined);
  assert.equal(({} as { polluted?: boolean }).polluted, undefined);
});

test("quantities are read with their units and nothing else is guessed", () => {
  assert.equal(parseDurationMs("250ms"), 250);
  assert.equal(parseDurationMs("1.5 h"), 5_400_000);
  assert.equal(parseBytes("4 MiB"), 4_194_304);
  assert.equal(parseBytes("2GB"), 2e9);
  for (const bad of ["", "10", "s", "10 parsecs", "-1s", "1s 2s", "5constructor"]) {
    assert.equal(parseDurationMs(bad), undefined);
    assert.equal(parseBytes(bad), undefined);
  }
});

test("the nearest word is near, or none", () => {
  assert.equal(editDistance("kitten", "sitting"), 3);
  assert.equal(nearest("ledgr", ["listen", "ledger"]), "ledger");
  assert.equal(nearest("xyz", ["listen", "ledger"]), undefined);
});
