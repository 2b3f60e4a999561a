// Every process of a running mesh is killed once, without warning; the run must end as if nothing had happened.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, it } from "node:test";
import type { Report } from "../../apps/cli/src/show/report.ts";
import { stockClient } from "../support/grpc-js.ts";
import { eventually, MeshProcess } from "../support/mesh-process.ts";

const waitMs = 600_000;
const findMs = 120_000;

/** What is killed when the show has printed a line. Tasks and base processes alike; each name once. */
const plan: { after: RegExp; kill: string[] }[] = [
  { after: /Round 0: /, kill: ["validator"] },
  { after: /Round 1: /, kill: ["ada", "magpie"] },
  { after: /Round 2: /, kill: ["ledger"] },
  { after: /Round 3: /, kill: ["node-agent"] },
  { after: /Round 4: /, kill: ["basilica-scheduler"] },
  { after: /Round 5: /, kill: ["checkpoint-registry", "barbara", "static"] },
  { after: /Round 6: /, kill: ["grace", "console"] },
  { after: /Round 7: /, kill: ["dorothy", "edsger"] },
  { after: /GRPO step 1: /, kill: ["grail-rl"] },
  { after: /GRPO step 2: /, kill: ["worker-1", "worker-3"] },
  { after: /GRPO step 3: /, kill: ["worker-2"] },
  { after: /The released model goes into service/, kill: ["replica-1"] },
];

interface JobRow {
  tasks: { name: string; pid: number }[];
}

async function pidOf(mesh: MeshProcess, name: string): Promise<number | undefined> {
  const read = (file: string) =>
    JSON.parse(readFileSync(path.join(mesh.meshDirectory, file), "utf8"));
  const base = (read("processes.json") as { name: string; pid: number }[]).find(
    (entry) => entry.name === name,
  );
  if (base) return base.pid;
  const scheduler = stockClient({
    protoFile: "covenant/basilica/v1/jobs.proto",
    service: "covenant.basilica.v1.Scheduler",
    address: `127.0.0.1:${(read("ports.json") as { scheduler: number }).scheduler}`,
    pkiDirectory: path.join(mesh.meshDirectory, "pki"),
    certificate: "operator",
  });
  try {
    const { jobs } = (await scheduler.call("listJobs", { pageSize: 50 })) as unknown as {
      jobs: JobRow[];
    };
    const task = jobs.flatMap(({ tasks }) => tasks).find((entry) => entry.name === name);
    return task && task.pid > 0 ? task.pid : undefined;
  } catch {
    // The scheduler itself may just have been killed.
    return undefined;
  } finally {
    scheduler.close();
  }
}

describe("killing every process once", { timeout: 1_150_000 }, () => {
  it("costs time, never the run: it completes with equal roots", async () => {
    const mesh = new MeshProcess(["--preset", "tiny", "--fresh", "--once"]);
    const killed: string[] = [];
    let isGood = false;
    try {
      for (const { after, kill } of plan) {
        await eventually(`the line ${after}`, waitMs, () => {
          if (after.test(mesh.output)) return true;
          if (mesh.hasEnded) assert.fail(`the mesh has ended:\n${mesh.output.slice(-4000)}`);
          return undefined;
        });
        for (const name of kill) {
          const pid = await eventually(`the process of ${name}`, findMs, () => pidOf(mesh, name));
          process.kill(pid, "SIGKILL");
          killed.push(name);
        }
      }
      const report = (await mesh.report(waitMs)) as unknown as Report;
      assert.deepEqual(report.problems, []);
      assert.equal(report.pretrain.stateRootsEqual, true);
      assert.equal(report.ok, true);
      assert.equal(await mesh.exited, 0);
      assert.equal(killed.length, plan.flatMap(({ kill }) => kill).length);
      isGood = true;
    } finally {
      if (!isGood) {
        const what = `Killed: ${killed.join(", ")}. Everything is kept in ${mesh.directory}`;
        process.stderr.write(`${what}\n${mesh.output.slice(-4000)}\n`);
      }
      await mesh.stop({ keep: !isGood });
    }
  });
});
