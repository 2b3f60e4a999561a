import { bytesEqual, canonicalBytes, sha256 } from "@covenant/contracts";
import { type AnnounceUpdateRequest, VerdictReason } from "@covenant/contracts/gauntlet";
import { type SparseUpdate, SparseUpdateSchema } from "@covenant/contracts/templar";
import { reasonOfProblem, type UpdateFingerprint } from "@covenant/gauntlet";
import { decode } from "@covenant/kernels";
import type { ObjectStore } from "@covenant/objects";
import { bodyOf, type RunSetup } from "@covenant/runs";
import { type Clock, fromUnknown, hasCode, retry } from "@covenant/runtime";
import {
  type Announced,
  assignedSamples,
  checkHeader,
  codecMode,
  parsePayload,
} from "@covenant/sparseloco";
import type { Participants } from "./participants.ts";

/** An announcement with its place on the ledger. */
export type Announcement = { announced: Announced; request: AnnounceUpdateRequest };

/** An update that passed the cheap checks. */
export type SoundUpdate = {
  announcement: Announcement;
  body: Uint8Array;
  samples: Uint32Array;
  fingerprint: UpdateFingerprint;
};

/** A refusal by the cheap checks. */
export type Refusal = { announcement: Announcement; reason: VerdictReason; explanation: string };

/** What the checks work with. */
export type FetchModules = {
  setup: RunSetup;
  objects: ObjectStore;
  participants: Participants;
  clock: Clock;
  fetchBudgetMs: number;
};

/**
 * Fetches an announced payload and runs every cheap check on it, in order: fetch, size, hash, framing, header, decoding. A fault of
 * this validator's own link or disk is its own, and said so.
 */
export async function fetchUpdate(
  modules: FetchModules,
  round: number,
  baseRoot: Uint8Array,
  announcement: Announcement,
  signal: AbortSignal,
): Promise<SoundUpdate | Refusal> {
  const { setup, participants } = modules;
  const { request, announced } = announcement;
  const refuse = (reason: VerdictReason, explanation: string): Refusal => {
    return { announcement, reason, explanation };
  };
  const neuron = participants.neuron(announced.hotkey);
  if (neuron === undefined) {
    return refuse(VerdictReason.NOT_REGISTERED, "the hotkey is not registered in the subnet");
  }
  const fetched = await fetchPayload(modules, request, signal);
  if (!(fetched instanceof Uint8Array)) return refuse(fetched.reason, fetched.explanation);
  if (!bytesEqual(sha256(fetched), request.payloadSha256)) {
    return refuse(VerdictReason.HASH_MISMATCH, "the stored payload is not the announced one");
  }
  const parsed = parsePayload(fetched, setup.payloadBytesMax);
  if (!parsed.ok) return refuse(reasonOfProblem(parsed.problem.code), parsed.problem.detail);
  const { header, body: sent } = parsed.value;
  // A manifest names payloads by hash alone; an announcement also carries the header.
  if (request.header !== undefined && !sameHeader(header, request.header)) {
    return refuse(VerdictReason.HASH_MISMATCH, "the payload's header is not the announced one");
  }
  const peer = { uid: neuron.uid, hotkey: announced.hotkey };
  const samples = assignedSamples(setup.assignment, round, peer);
  const { run, tensorTableRoot } = setup;
  const expected = { run, round, baseRoot, tensorTableRoot, samples };
  const problem = checkHeader(header, expected, announced.hotkey);
  if (problem !== undefined) return refuse(reasonOfProblem(problem.code), problem.detail);
  return decoded(setup, sent, { announcement, samples });
}

function sameHeader(a: SparseUpdate, b: SparseUpdate): boolean {
  const [left, right] = [a, b].map((header) => canonicalBytes(SparseUpdateSchema, header));
  return bytesEqual(left!, right!);
}

async function fetchPayload(
  modules: FetchModules,
  request: AnnounceUpdateRequest,
  signal: AbortSignal,
): Promise<Uint8Array | { reason: VerdictReason; explanation: string }> {
  const { objects, clock, fetchBudgetMs, setup } = modules;
  const maxBytes = Math.min(setup.payloadBytesMax, Number(request.payloadBytes));
  const what = `${request.bucket}/${request.key}`;
  try {
    return await retry(() => objects.get(request.bucket, request.key, { maxBytes }), {
      what,
      signal,
      clock,
      budgetMs: fetchBudgetMs,
    });
  } catch (caught) {
    signal.throwIfAborted();
    const { code, message } = fromUnknown(caught);
    const own = { reason: VerdictReason.VALIDATOR_FAULT, explanation: `${code}: ${message}` };
    if (hasCode(caught, "COV_OBJECT_NOT_FOUND")) {
      return {
        reason: VerdictReason.MISSING,
        explanation: `${what} was announced but is not there`,
      };
    }
    if (hasCode(caught, "COV_OBJECT_TOO_LARGE")) {
      return { reason: VerdictReason.MALFORMED, explanation: `${what} is larger than announced` };
    }
    if (hasCode(caught, "COV_OBJECT_BAD_NAME")) {
      return { reason: VerdictReason.MALFORMED, explanation: `${what} is not a usable name` };
    }
    return own;
  }
}

async function decoded(
  setup: RunSetup,
  sent: Uint8Array,
  sound: Omit<SoundUpdate, "fingerprint" | "body">,
): Promise<SoundUpdate | Refusal> {
  const outer = setup.run.outer!;
  const { hotkey, committedBlock, committedIndex } = sound.announcement.announced;
  try {
    const body = await bodyOf(setup, sent);
    const { indices, values } = await decode(body, setup.tensors, {
      keepPerChunk: outer.keepPerChunk,
      mode: codecMode(outer.codec),
    });
    const fingerprint = { hotkey, committedBlock, committedIndex, indices, values };
    return { ...sound, body, fingerprint };
  } catch (error) {
    const explanation = `body does not decode: ${(error as Error).message}`;
    return { announcement: sound.announcement, reason: VerdictReason.MALFORMED, explanation };
  }
}
