import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { hotkeyFromSeed, sha256 } from "@covenant/contracts";
import { decode, initialParameters, Model, packUpdate } from "@covenant/kernels";
import type { SampleSource } from "@covenant/models";
import type { RunSetup } from "@covenant/runs";
import { createLogger, systemClock } from "@covenant/runtime";
import { assignedSamples, buildHeader, framePayload, updateCommitment } from "@covenant/sparseloco";
import { tinyRun } from "../testing/tiny-run.ts";
import type { RoundWork } from "./behaviour.ts";
import { BEHAVIOUR_NAMES, behaviourOf } from "./index.ts";

const codec = { keepPerChunk: 64, mode: "2bit" as const };
const victimKey = hotkeyFromSeed(new Uint8Array(32).fill(5));
let setup: RunSetup;
let source: SampleSource;
let model: Model;

before(async () => {
  ({ setup, source } = tinyRun(victimKey));
  model = await Model.create(setup.shape, { threads: 1 });
});
after(() => model.close());

/** Work of one round; the object store holds what `stored` says. */
function workOf(stored = new Map<string, Uint8Array>(), steps: number[] = []): RoundWork {
  const theta = initialParameters(setup.shape, 1n);
  model.parameters.set(theta);
  const fields = updateCommitment("victim", 0, new Uint8Array(32));
  return {
    round: 0,
    setup,
    theta,
    model,
    errorFeedback: new Float32Array(theta.length),
    samples: assignedSamples(setup.assignment, 0, { uid: 0, hotkey: "5Me" }),
    source,
    signal: new AbortController().signal,
    beforeStep: async () => {},
    onStep: ({ innerStep }) => steps.push(innerStep),
    ledger: {
      commitments: async () => [
        { hotkey: "5Me", fields, block: 1, index: 0 },
        { hotkey: victimKey.address, fields, block: 2, index: 0 },
      ],
    } as never,
    netuid: 1,
    objects: {
      head: async (bucket: string) => stored.get(bucket) && { sizeBytes: 1, modifiedAtMs: 0 },
      get: async (bucket: string) => stored.get(bucket)!,
    } as never,
    hotkey: "5Me",
    clock: systemClock,
    logger: createLogger({ service: "test", level: "silent" }),
  };
}

const decoded = (body: Uint8Array) => decode(body, setup.tensors, codec);

test("honest work takes every inner step and keeps an error to feed back", async () => {
  const steps: number[] = [];
  const work = workOf(new Map(), steps);
  const { indices } = await decoded(await behaviourOf("honest").produceBody(work));
  assert.deepEqual(steps, [1, 2]);
  assert.ok(indices.length > 0);
  assert.ok(work.errorFeedback.some((value) => value !== 0));
  assert.ok(work.theta.some((value, i) => value !== model.parameters[i]));
});

test("noise is a well-formed update that trains nothing and differs from peer to peer", async () => {
  const work = workOf();
  const body = await behaviourOf("noise").produceBody(work);
  const other = await behaviourOf("noise").produceBody({ ...work, hotkey: "5Other" });
  assert.ok((await decoded(body)).indices.length > 0);
  assert.notDeepEqual(Buffer.from(other), Buffer.from(body));
  assert.deepEqual(model.parameters, work.theta);
});

test("the copier waits for a payload it can read, and disguises it as asked", async () => {
  const work = workOf();
  const body = await behaviourOf("honest").produceBody(work);
  const expected = { ...setup, round: 0, baseRoot: sha256(body), samples: work.samples };
  const payload = framePayload(buildHeader(expected, body, victimKey), body);
  const stored = new Map<string, Uint8Array>();
  const waiting = behaviourOf("copier").produceBody(workOf(stored));
  stored.set("victim", payload);
  assert.deepEqual(Buffer.from(await waiting), Buffer.from(body));
  const packed = await packUpdate(body, setup.tensors, codec);
  stored.set("victim", framePayload(buildHeader(expected, packed, victimKey), packed));
  const fromPacked = await behaviourOf("copier").produceBody(workOf(stored));
  assert.deepEqual(Buffer.from(fromPacked), Buffer.from(body));
  const victim = await decoded(body);
  for (const name of ["copier-rescaled", "copier-renoised"] as const) {
    const copy = await behaviourOf(name).produceBody(workOf(stored));
    assert.notDeepEqual(Buffer.from(copy), Buffer.from(body), name);
    const { indices } = await decoded(copy);
    const known = new Set(victim.indices);
    const shared = indices.filter((index) => known.has(index)).length;
    assert.ok(shared > 0.9 * indices.length, `${name} shares ${shared} of ${indices.length}`);
  }
});

test("a copier without a victim ends with its round", async () => {
  const stop = new AbortController();
  const waiting = behaviourOf("copier").produceBody({ ...workOf(), signal: stop.signal });
  stop.abort(new Error("the round closed"));
  await assert.rejects(waiting, /the round closed/);
});

test("every configurable name is a behaviour", () => {
  for (const name of BEHAVIOUR_NAMES) assert.notEqual(behaviourOf(name).name, "");
});
