// Stock @grpc/grpc-js clients, made from the .proto files alone, against every service of a running mesh.
import assert from "node:assert/strict";
import path from "node:path";
import * as grpc from "@grpc/grpc-js";
import { stockClient } from "../support/grpc-js.ts";
import { eventually } from "../support/mesh-process.ts";

interface Options {
  ports: { scheduler: number; registry: number; grail: number };
  pkiDirectory: string;
}

interface JobRow {
  spec: { tasks: { name: string; workload: string }[] };
  tasks: { name: string; state: string; endpoint: string }[];
}

const findTaskMs = 180_000;

/** Calls one unary RPC on each service as the operator; health too; and once without any right. */
export async function callEveryService({ ports, pkiDirectory }: Options): Promise<void> {
  const client = (service: string, file: string, address: string, certificate?: string) =>
    stockClient({
      protoFile: path.join("covenant", file),
      service,
      address,
      pkiDirectory,
      ...(certificate === undefined ? {} : { certificate }),
    });
  const schedulerAddress = `127.0.0.1:${ports.scheduler}`;
  const scheduler = client(
    "covenant.basilica.v1.Scheduler",
    "basilica/v1/jobs.proto",
    schedulerAddress,
    "operator",
  );
  const endpointOf = (workload: string) =>
    eventually(`a running ${workload}`, findTaskMs, async () => {
      // The first calls may meet a scheduler that is still starting.
      const { jobs } = (await scheduler.call("listJobs", { pageSize: 50 }).catch(() => ({
        jobs: [],
      }))) as { jobs: JobRow[] };
      return jobs
        .flatMap(({ spec, tasks }) =>
          tasks.filter(
            ({ name, endpoint }) =>
              endpoint !== "" &&
              spec.tasks.some((task) => task.name === name && task.workload === workload),
          ),
        )
        .at(0)?.endpoint;
    });

  const validator = client(
    "covenant.gauntlet.v1.Validator",
    "gauntlet/v1/validator.proto",
    await endpointOf("gauntlet-validator"),
    "operator",
  );
  const { run } = (await validator.call("getRun", {})) as { run: { runId: string } };
  assert.equal(run.runId, "tiny");

  const trainer = client(
    "covenant.templar.v1.Trainer",
    "templar/v1/trainer.proto",
    await endpointOf("templar-trainer"),
    "operator",
  );
  const { status } = (await trainer.call("getStatus", {})) as { status: { runId: string } };
  assert.equal(status.runId, "tiny");

  const registry = client(
    "covenant.registry.v1.CheckpointRegistry",
    "registry/v1/registry.proto",
    `127.0.0.1:${ports.registry}`,
    "operator",
  );
  const listed = await registry.call("listCheckpoints", { pageSize: 10 });
  assert.ok(Array.isArray(listed.checkpoints));

  const grail = client(
    "covenant.grail.v1.PostTraining",
    "grail/v1/grail.proto",
    `127.0.0.1:${ports.grail}`,
    "operator",
  );
  await assert.rejects(
    grail.call("evaluate", { checkpointRoot: Buffer.alloc(3), environment: "none", prompts: 1 }),
    (error: grpc.ServiceError) =>
      error.code === grpc.status.INVALID_ARGUMENT || error.code === grpc.status.NOT_FOUND,
  );

  const stranger = client(
    "covenant.basilica.v1.Scheduler",
    "basilica/v1/jobs.proto",
    schedulerAddress,
  );
  await assert.rejects(
    stranger.call("submitJob", { idempotencyKey: "x" }),
    (error: grpc.ServiceError) =>
      error.code === grpc.status.UNAUTHENTICATED || error.code === grpc.status.PERMISSION_DENIED,
  );
  for (const open of [scheduler, validator, trainer, registry, grail, stranger]) open.close();
}
