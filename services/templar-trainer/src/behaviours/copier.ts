import { philox4x32 } from "@covenant/contracts";
import { decode } from "@covenant/kernels";
import { bodyOf } from "@covenant/runs";
import {
  codecMode,
  committedBucket,
  type Payload,
  parsePayload,
  updateKey,
} from "@covenant/sparseloco";
import type { Behaviour, RoundWork } from "./behaviour.ts";
import { compressChange } from "./honest.ts";

const POLL_MS = 200;
/** Commitments looked at per poll. */
const VICTIMS_MAX = 64;

/** How a copy is disguised. */
export type Disguise = "verbatim" | "rescaled" | "renoised";

/**
 * Trains nothing: waits until another peer's update of the round can be read in the object store, and sends its body as its own,
 * verbatim or disguised. For tests and demonstrations of the judging.
 */
export function copier(disguise: Disguise): Behaviour {
  return {
    name: `copier (${disguise})`,
    async produceBody(work) {
      const victim = await waitForVictim(work);
      work.logger.info({ round: work.round, victim: victim.header.signature?.hotkey }, "copying");
      const body = await bodyOf(work.setup, victim.body);
      return disguise === "verbatim" ? body.slice() : disguised(work, body, disguise);
    },
  };
}

async function waitForVictim(work: RoundWork): Promise<Payload> {
  for (;;) {
    await work.beforeStep();
    work.signal.throwIfAborted();
    const commitments = await work.ledger.commitments(work.netuid);
    const others = [...commitments].filter(({ hotkey }) => hotkey !== work.hotkey);
    for (const { fields } of others.slice(0, VICTIMS_MAX)) {
      const bucket = committedBucket(fields);
      if (bucket === undefined) continue;
      const payload = await readPayload(work, bucket);
      if (payload !== undefined && payload.header.round === work.round) return payload;
    }
    await work.clock.sleep(POLL_MS, work.signal);
  }
}

async function readPayload(work: RoundWork, bucket: string): Promise<Payload | undefined> {
  const maxBytes = work.setup.payloadBytesMax;
  const key = updateKey(work.round);
  if ((await work.objects.head(bucket, key)) === undefined) return undefined;
  const parsed = parsePayload(await work.objects.get(bucket, key, { maxBytes }), maxBytes);
  return parsed.ok ? parsed.value : undefined;
}

/** Decodes the body, changes its values, and encodes it again: other bytes, the same idea. */
async function disguised(
  work: RoundWork,
  body: Uint8Array,
  disguise: Disguise,
): Promise<Uint8Array> {
  const outer = work.setup.run.outer!;
  const mode = codecMode(outer.codec);
  const tensors = work.setup.tensors;
  const { indices, values } = await decode(body, tensors, {
    keepPerChunk: outer.keepPerChunk,
    mode,
  });
  const current = new Float32Array(work.theta.length);
  for (const [i, index] of indices.entries()) {
    const random = philox4x32([work.round, 7], [i, 0, 0, 0])[0] / 2 ** 32;
    const factor = disguise === "rescaled" ? 0.8 : 0.6 + 0.8 * random;
    current[index] = -values[i]! * factor;
  }
  const zeros = new Float32Array(current.length);
  return compressChange(work, zeros, current, new Float32Array(current.length));
}
