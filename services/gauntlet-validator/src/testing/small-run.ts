// A run small enough for tests, with honest updates made by the kernels.
import { create } from "@bufbuild/protobuf";
import { hotkeyFromSeed, sha256, signMessage } from "@covenant/contracts";
import { AnnounceUpdateRequestSchema } from "@covenant/contracts/gauntlet";
import { DataSetSchema, RunConfigSchema } from "@covenant/contracts/templar";
import { compress, initialParameters, Model, stateRoot, tensorTable } from "@covenant/kernels";
import type { Neuron } from "@covenant/ledger";
import { modelConfigOf, SampleSource } from "@covenant/models";
import type { ObjectStore } from "@covenant/objects";
import { setupOf } from "@covenant/runs";
import { type Clock, CovenantError } from "@covenant/runtime";
import {
  assignedSamples,
  buildHeader,
  createRunConfig,
  framePayload,
  updateKey,
} from "@covenant/sparseloco";
import { Evaluator } from "../evaluator.ts";
import type { Announcement } from "../fetch-updates.ts";
import { Participants } from "../participants.ts";

const vocabSize = 32;
const sequenceLength = 16;
const sampleCount = 256;
const codec = { keepPerChunk: 64, mode: "2bit" as const };

const shape = {
  vocabSize,
  hiddenSize: 16,
  intermediateSize: 32,
  layerCount: 1,
  headCount: 2,
  kvHeadCount: 2,
  maxPositions: 16,
  ropeTheta: 10_000,
  rmsNormEps: 1e-5,
  tieWordEmbeddings: true,
};

/** Hotkey number n of the test. */
export const testKey = (n: number) => hotkeyFromSeed(new Uint8Array(32).fill(n));

/** A clock whose sleeps pass at once. */
export function quickClock(): Clock {
  let now = 0;
  return {
    nowMs: () => now,
    async sleep(ms, signal) {
      signal?.throwIfAborted();
      now += ms;
    },
  };
}

/** An object store in memory; `broken` buckets answer with a fault of the reader's own disk. */
export class MemoryStore implements ObjectStore {
  readonly objects = new Map<string, Uint8Array>();
  readonly broken = new Set<string>();

  async put(bucket: string, key: string, data: Uint8Array) {
    this.objects.set(`${bucket}/${key}`, data);
    return { sha256: sha256(data) };
  }

  async get(bucket: string, key: string, { maxBytes }: { maxBytes: number }) {
    if (this.broken.has(bucket)) throw new CovenantError("COV_UNAVAILABLE", "the link is down");
    const found = this.objects.get(`${bucket}/${key}`);
    if (found === undefined) throw new CovenantError("COV_OBJECT_NOT_FOUND", `${bucket}/${key}`);
    if (found.length > maxBytes) throw new CovenantError("COV_OBJECT_TOO_LARGE", "too large");
    return found;
  }

  async head() {
    return undefined;
  }

  async list() {
    return { keys: [], more: false };
  }

  async remove() {}
}

/** A text with a rule to learn: each token follows from the one before, with some noise. */
function ruleSamples(): Uint8Array {
  const tokens = new Uint16Array(sampleCount * (sequenceLength + 1));
  let state = 7;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  for (let i = 0; i < tokens.length; i += 1) {
    const follows = ((tokens[i - 1] ?? 0) * 5 + 3) % vocabSize;
    tokens[i] = random() < 0.2 ? Math.floor(random() * vocabSize) : follows;
  }
  return new Uint8Array(tokens.buffer);
}

/** Everything a scoring test needs. */
export async function smallRun() {
  const shard = ruleSamples();
  const parameters = initialParameters(shape, 42n);
  const baseRoot = await stateRoot(parameters, tensorTable(shape));
  const described = { key: "train/0", sha256: sha256(shard), sampleCount };
  const run = createRunConfig({
    runId: "small",
    model: modelConfigOf(shape),
    data: create(DataSetSchema, {
      bucket: "run-small",
      train: [described],
      heldOut: [described],
      sequenceLength,
      tokenizerKey: "tokenizer.json",
      tokenizerSha256: sha256(shard),
      heldOutBytesPerToken: 1,
    }),
    genesisStateRoot: baseRoot,
    inner: { steps: 8, batchSize: 4, warmupSteps: 1, peakLearningRate: 1e-2 },
  });
  run.signature = signMessage(RunConfigSchema, run, testKey(1));
  const setup = setupOf(run);
  const options = { sequenceLength, vocabSize };
  const source = new SampleSource([{ data: shard, ...described }], options);
  const model = await Model.create(shape, { threads: 1 });
  const objects = new MemoryStore();
  return { setup, parameters, baseRoot, source, model, objects };
}

/** The run of a test. */
export type SmallRun = Awaited<ReturnType<typeof smallRun>>;

/** Participants with the given hotkeys under ascending uids. */
export async function participantsOf(count: number): Promise<Participants> {
  const neurons = Array.from({ length: count }, (_, uid): Neuron => {
    return {
      uid,
      hotkey: testKey(10 + uid).address,
      coldkey: testKey(1).address,
      stakeRao: 0n,
      validatorPermit: false,
      active: true,
      stakeWeight: 0,
      consensus: 0,
      incentive: 0,
      dividends: 0,
      validatorTrust: 0,
      emissionRao: 0n,
      lastUpdateBlock: 0,
      registeredAtBlock: 0,
    };
  });
  const ledger = { metagraph: async () => neurons } as never;
  const participants = new Participants({ netuid: 1 }, { ledger });
  await participants.refresh();
  return participants;
}

/** Trains honestly on the assigned samples of a uid; returns the body of the update. */
export async function trainedBody(small: SmallRun, uid: number): Promise<Uint8Array> {
  const { setup, parameters, source, model } = small;
  const samples = samplesOf(small, uid);
  model.parameters.set(parameters);
  model.firstMoment.fill(0);
  model.secondMoment.fill(0);
  model.gradients.fill(0);
  model.optimizerStepCount = 0;
  const { steps, batchSize } = setup.run.inner!;
  for (let step = 0; step < steps; step += 1) {
    const batch = source.batch(samples.subarray(step * batchSize, (step + 1) * batchSize));
    await model.trainStep(batch, {
      learningRate: 1e-2,
      beta1: 0.9,
      beta2: 0.95,
      epsilon: 1e-8,
      weightDecay: 0,
      gradientClip: 1,
    });
  }
  return bodyOf(small, model.parameters);
}

/** Compresses the way from the base to other parameters. */
export function bodyOf(small: SmallRun, current: Float32Array): Promise<Uint8Array> {
  const { parameters: base, setup } = small;
  const errorFeedback = new Float32Array(base.length);
  return compress({
    base,
    current,
    errorFeedback,
    tensors: setup.tensors,
    errorDecay: 0.95,
    ...codec,
  });
}

/** Assigned samples of a uid in round 0. */
export function samplesOf({ setup }: SmallRun, uid: number): Uint32Array {
  return assignedSamples(setup.assignment, 0, { uid, hotkey: testKey(10 + uid).address });
}

/** Stores a body as the update of a uid and returns its announcement; `change` spoils it before it is signed. */
export async function announce(
  small: SmallRun,
  uid: number,
  body: Uint8Array,
  change: { baseRoot?: Uint8Array; round?: number } = {},
): Promise<Announcement> {
  const { setup, objects } = small;
  const hotkey = testKey(10 + uid);
  const expected = {
    run: setup.run,
    round: 0,
    baseRoot: small.baseRoot,
    tensorTableRoot: setup.tensorTableRoot,
    samples: samplesOf(small, uid),
    ...change,
  };
  const header = buildHeader(expected, body, hotkey);
  const payload = framePayload(header, body);
  const bucket = `peer-${uid}`;
  await objects.put(bucket, updateKey(0), payload);
  const request = create(AnnounceUpdateRequestSchema, {
    header,
    bucket,
    key: updateKey(0),
    payloadSha256: sha256(payload),
    payloadBytes: BigInt(payload.length),
  });
  const announced = { hotkey: hotkey.address, committedBlock: 100 + uid, committedIndex: 0 };
  return { announced, request };
}

/** An evaluator over the run's samples. */
export function evaluatorOf(small: SmallRun): Evaluator {
  const { setup, model, source } = small;
  return new Evaluator({ setup, evaluationScale: 1, batchSize: 16 }, { model, source });
}
