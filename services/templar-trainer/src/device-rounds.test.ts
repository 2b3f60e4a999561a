// Where a peer trains. Where there is no GPU the emulated CUDA library computes, with the same code.
import assert from "node:assert/strict";
import { test as anyTest, type TestContext } from "node:test";
import { hotkeyFromSeed } from "@covenant/contracts";
import { applyUpdate, initialParameters, stateRoot, type TrainableModel } from "@covenant/kernels";
import { emulateDevices } from "@covenant/kernels/testing";
import { type DeviceOptions, openModel } from "@covenant/models";
import { bodyOf } from "@covenant/runs";
import { systemClock } from "@covenant/runtime";
import { recordingLogger, temporaryDirectory } from "@covenant/runtime/testing";
import { codecMode, parsePayload } from "@covenant/sparseloco";
import { behaviourOf } from "./behaviours/index.ts";
import { Gate } from "./gate.ts";
import type { Peer } from "./peer.ts";
import { produceUpdate } from "./produce-update.ts";
import { StatusBoard } from "./status.ts";
import { tinyRun } from "./testing/tiny-run.ts";
import { StateFiles, type TrainerState } from "./trainer-state.ts";

const skip = emulateDevices(2) ?? false;
const test = (name: string, body: (t: TestContext) => void | Promise<void>) =>
  anyTest(name, { skip }, body);
const hotkey = hotkeyFromSeed(new Uint8Array(32).fill(5));
const { setup, source } = tinyRun(hotkey);

async function opened(options: Partial<DeviceOptions>) {
  const { logger, lines } = recordingLogger();
  const defaults: DeviceOptions = { device: "cpu", deviceLayout: "data-parallel", threads: 1 };
  const model = await openModel(setup.shape, { ...defaults, ...options }, { logger });
  return { model, lines };
}

/** What `produceUpdate` asks of a peer whose round stays open. */
async function peerWith(t: TestContext, model: TrainableModel): Promise<Peer> {
  const { runId } = setup.run;
  const { parameterCount } = setup;
  const owner = { runId, hotkey: hotkey.address, parameterCount };
  const stillOpen = (_round: number, _predicate: unknown, signal: AbortSignal) =>
    new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  return {
    setup,
    source,
    model,
    hotkey,
    behaviour: behaviourOf("honest"),
    files: new StateFiles(await temporaryDirectory(t), owner),
    feed: { waitFor: stillOpen },
    status: new StatusBoard({ hotkey: hotkey.address, runId }),
    gate: new Gate(),
    clock: systemClock,
    logger: recordingLogger().logger,
    signal: new AbortController().signal,
  } as unknown as Peer;
}

/** Rounds of a peer that is alone: its own update is what everybody applies. */
async function rounds(t: TestContext, options: Partial<DeviceOptions>, count: number) {
  const { model, lines } = await opened(options);
  const peer = await peerWith(t, model);
  const theta = initialParameters(setup.shape, 1n);
  const zeros = () => new Float32Array(theta.length);
  let state: TrainerState = {
    round: 0,
    stateRoot: await stateRoot(theta, setup.tensors),
    previousManifestSha256: undefined,
    theta,
    firstMoment: zeros(),
    secondMoment: zeros(),
    errorFeedback: zeros(),
    optimizerStepCount: 0,
  };
  const bodies: Buffer[] = [];
  const { codec, keepPerChunk, learningRate } = setup.run.outer!;
  for (let round = 0; round < count; round++) {
    const pending = await produceUpdate(peer, state, 0);
    const parsed = parsePayload(pending!.payload, setup.payloadBytesMax);
    assert.ok(parsed.ok);
    const body = await bodyOf(setup, parsed.value.body);
    bodies.push(Buffer.from(body));
    const next = state.theta.slice();
    const format = { mode: codecMode(codec), keepPerChunk };
    await applyUpdate(next, body, setup.tensors, -learningRate, format);
    state = { ...state, ...pending!, round: round + 1, theta: next };
    state.stateRoot = await stateRoot(next, setup.tensors);
  }
  model.close();
  return { bodies, state, lines, losses: peer.status.current.loss };
}

test("rounds on a device make the same bytes as on the CPU", async (t) => {
  const expected = await rounds(t, { device: "cpu" }, 3);
  assert.equal(new Set(expected.bodies.map(String)).size, 3);
  for (const options of [
    { device: "cuda" },
    { device: "auto" },
    { device: "cuda:1" },
    { device: "cuda:1,0", deviceLayout: "layer-split" },
  ] as const) {
    const found = await rounds(t, options, 3);
    assert.deepEqual(found.bodies, expected.bodies, options.device);
    assert.deepEqual(found.state, expected.state, options.device);
    assert.equal(found.lines.length, 1);
    assert.match(String(found.lines[0]?.msg), /^computing on CUDA: /);
  }
});

test("bf16 and replicas train as well, with bits of their own", async (t) => {
  const expected = await rounds(t, {}, 1);
  const others: Partial<DeviceOptions>[] = [
    { compute: "bf16" },
    { device: "cuda", compute: "bf16" },
    { device: "cuda:0,1" },
  ];
  for (const options of others) {
    const found = await rounds(t, options, 1);
    assert.ok(Math.abs(found.losses - expected.losses) < 0.05, JSON.stringify(options));
    assert.equal(found.bodies[0]?.length, expected.bodies[0]?.length);
    if (options.compute === "bf16") {
      assert.notDeepEqual(found.state.firstMoment, expected.state.firstMoment);
    }
  }
});
