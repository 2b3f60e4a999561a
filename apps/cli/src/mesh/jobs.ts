// The mesh's own work as jobs of the scheduler: validator and peers, rollout workers, the served model.
import { create } from "@bufbuild/protobuf";
import {
  type JobSpec,
  JobSpecSchema,
  type TaskSpec,
  TaskSpecSchema,
} from "@covenant/contracts/basilica";
import type { StoredHotkey, TlsFiles } from "./identities.ts";
import type { Layout, Ports } from "./layout.ts";
import type { PeerPlan, WorkerPlan } from "./preset.ts";

/** What every participant's configuration needs to know of the mesh. */
export interface Surroundings {
  layout: Layout;
  ports: Ports;
  netuid: number;
  runId: string;
  /** Address of the run's owner. */
  runOwner: string;
  coldkey: StoredHotkey;
  /** Server certificate of participants. */
  tls: TlsFiles;
  threads: number;
  /** Where models compute. */
  device: string;
}

const mebibyte = 1n << 20n;
const restartsMax = 20;
const gangWaitSeconds = 120;
/** 1000 TAO: the only stake in the show, so the validator is a quorum by itself. */
const validatorStakeRao = "1000000000000";

function task(
  name: string,
  workload: string,
  config: object,
  resources: { milliCpu: number; memoryBytes: bigint },
): TaskSpec {
  return create(TaskSpecSchema, {
    name,
    workload,
    configJson: JSON.stringify(config),
    resources,
    maxRestarts: restartsMax,
  });
}

function job(name: string, tasks: TaskSpec[]): JobSpec {
  return create(JobSpecSchema, { name, tasks, pendingTimeoutSeconds: gangWaitSeconds });
}

function participant(mesh: Surroundings, who: StoredHotkey) {
  return {
    listen: { host: "127.0.0.1", port: 0 },
    tls: mesh.tls,
    ledger: { url: `http://127.0.0.1:${mesh.ports.ledger}`, netuid: mesh.netuid },
    hotkeySeedFile: who.seedFile,
    coldkeySeedFile: mesh.coldkey.seedFile,
    dataDirectory: mesh.layout.dataOf(who.name),
    threads: mesh.threads,
    device: mesh.device,
  };
}

const registryUrl = (mesh: Surroundings) => `https://127.0.0.1:${mesh.ports.registry}`;

function trainingSide(mesh: Surroundings, who: StoredHotkey) {
  return {
    ...participant(mesh, who),
    objects: { root: mesh.layout.objects, bucket: `peer-${who.name}` },
    runId: mesh.runId,
    runOwner: mesh.runOwner,
    registryUrl: registryUrl(mesh),
  };
}

const behaviourOf = { honest: "honest", late: "honest", copier: "copier", noise: "noise" } as const;

function peerTask(mesh: Surroundings, plan: PeerPlan, who: StoredHotkey): TaskSpec {
  return task(
    plan.name,
    "templar-trainer",
    { ...trainingSide(mesh, who), behaviour: behaviourOf[plan.role] },
    { milliCpu: 200, memoryBytes: 400n * mebibyte },
  );
}

/** The gang of pre-training: validator and all peers that are there from the start. */
export function pretrainingJob(
  mesh: Surroundings,
  validator: StoredHotkey,
  peers: readonly { plan: PeerPlan; who: StoredHotkey }[],
): JobSpec {
  const validatorTask = task(
    "validator",
    "gauntlet-validator",
    { ...trainingSide(mesh, validator), stakeRao: validatorStakeRao },
    { milliCpu: 300, memoryBytes: 600n * mebibyte },
  );
  return job("pretraining", [
    validatorTask,
    ...peers.map(({ plan, who }) => peerTask(mesh, plan, who)),
  ]);
}

/** A peer that joins while the run is under way. */
export function lateJoinerJob(mesh: Surroundings, plan: PeerPlan, who: StoredHotkey): JobSpec {
  return job(`late-${plan.name}`, [peerTask(mesh, plan, who)]);
}

/** The gang of rollout workers. */
export function rolloutsJob(
  mesh: Surroundings,
  workers: readonly { plan: WorkerPlan; who: StoredHotkey }[],
): JobSpec {
  return job(
    "rollouts",
    workers.map(({ plan, who }) =>
      task(
        plan.name,
        "rollout-worker",
        {
          ...participant(mesh, who),
          runId: mesh.runId,
          registryUrl: registryUrl(mesh),
          grailUrl: `https://127.0.0.1:${mesh.ports.grail}`,
          behaviour: plan.behaviour,
        },
        { milliCpu: 200, memoryBytes: 400n * mebibyte },
      ),
    ),
  );
}

/** The replica that serves the released model. */
export function inferenceJob(
  mesh: Surroundings,
  replica: StoredHotkey,
  checkpointRoot: string,
): JobSpec {
  return job("inference", [
    task(
      "replica-1",
      "inference-replica",
      {
        ...participant(mesh, replica),
        runId: mesh.runId,
        registryUrl: registryUrl(mesh),
        checkpointRoot,
        model: `covenant-${mesh.runId}`,
      },
      { milliCpu: 300, memoryBytes: 400n * mebibyte },
    ),
  ]);
}
