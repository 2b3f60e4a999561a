// One run of the whole mesh as a user starts it: looked at while it runs, judged by its report, used afterwards.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import type { Report } from "../../apps/cli/src/show/report.ts";
import { cliEntry, eventually, MeshProcess, repository } from "../support/mesh-process.ts";
import { checkConsole } from "./console.ts";
import { callEveryService } from "./grpc-clients.ts";
import { useEndpoint } from "./openai.ts";

const runDeadlineMs = 600_000;

interface Ports {
  console: number;
  api: number;
  scheduler: number;
  registry: number;
  grail: number;
}

describe("the whole mesh", { timeout: 900_000 }, () => {
  let mesh: MeshProcess;
  let ports: Ports;
  let report: Report;

  before(async () => {
    mesh = new MeshProcess(["--preset", "tiny", "--fresh"]);
    ports = await eventually("ports and certificates", 120_000, () => {
      try {
        // The last certificate to be made: with it, all are there.
        readFileSync(path.join(mesh.meshDirectory, "pki", "participant.crt"));
        return JSON.parse(
          readFileSync(path.join(mesh.meshDirectory, "ports.json"), "utf8"),
        ) as Ports;
      } catch {
        return undefined;
      }
    });
  });
  after(async () => {
    const code = await mesh.stop();
    assert.equal(code, 0, "Ctrl-C after a finished run is a clean end");
  });

  it("answers stock gRPC clients on all five services while it runs", async () => {
    await callEveryService({ ports, pkiDirectory: path.join(mesh.meshDirectory, "pki") });
  });

  it("reports what it promised", async () => {
    report = (await mesh.report(runDeadlineMs)) as unknown as Report;
    assert.deepEqual(report.problems, []);
    assert.equal(report.ok, true);
    const { pretrain, handoff, postTraining, serve } = report;
    assert.equal(pretrain.stateRootsEqual, true);
    assert.ok(pretrain.heldOutBitsPerByteLast! < pretrain.heldOutBitsPerByteFirst!);
    assert.match(handoff!.root, /^[0-9a-f]{64}$/);
    assert.ok(handoff!.bytes > 0);
    assert.ok(postTraining!.sftLossAfter < postTraining!.sftLossBefore);
    assert.equal(postTraining!.honestGroupsRejected, 0);
    assert.equal(postTraining!.substitutedGroupsAccepted, 0);
    const rejected = Object.values(postTraining!.groupsRejected).reduce((sum, n) => sum + n, 0);
    assert.ok(rejected > 0, "the substituted model must have been tried and refused");
    assert.equal(serve!.receiptVerified, true);
    assert.ok(report.peakRssBytes < 6 * 2 ** 30);
  });

  it("rewards honest work and nothing else", () => {
    const shares = (roles: string[]) =>
      report.pretrain.weights.filter(({ role }) => roles.includes(role)).map(({ share }) => share);
    const lowestHonest = Math.min(...shares(["honest"]));
    assert.ok(lowestHonest > 0);
    for (const share of shares(["copier", "noise"])) assert.ok(share * 10 < lowestHonest);
    for (const { reasons } of report.pretrain.weights) assert.ok(reasons.length > 0);
  });

  it("shows the run in the console", async (context) => {
    await checkConsole(context, `http://127.0.0.1:${ports.console}`, report.pretrain.rounds);
  });

  it("serves the model to OpenAI clients", async () => {
    await useEndpoint(`http://127.0.0.1:${ports.api}`);
  });

  it("verifies its receipt from the command line, and refuses a forged one", () => {
    const verify = (file: string) =>
      spawnSync(process.execPath, [cliEntry, "verify", file, "--data", mesh.meshDirectory], {
        encoding: "utf8",
        cwd: repository,
      });
    const good = verify(path.join(mesh.meshDirectory, "receipt.pb"));
    assert.equal(good.status, 0, good.stderr);
    assert.match(good.stdout, /verified/i);
    const bad = verify(path.join(mesh.meshDirectory, "ports.json"));
    assert.notEqual(bad.status, 0);
    assert.match(bad.stderr, /COV_/);
  });
});
