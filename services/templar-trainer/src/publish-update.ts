import type { MessageInitShape } from "@bufbuild/protobuf";
import { sha256 } from "@covenant/contracts";
import type { AnnounceUpdateRequestSchema, Round } from "@covenant/contracts/gauntlet";
import { PeerPhase } from "@covenant/contracts/templar";
import { fromUnknown, retry } from "@covenant/runtime";
import { commitmentMatches, parsePayload, updateCommitment, updateKey } from "@covenant/sparseloco";
import type { Peer } from "./peer.ts";
import type { PendingUpdate } from "./trainer-state.ts";

/** Answers that end the attempt to announce: saying the same again cannot change them. */
const FINAL_CODES = new Set(["COV_UPDATE_LATE", "COV_UPDATE_REFUSED", "COV_PERMISSION_DENIED"]);

/**
 * Publishes a pending update in the order that protects its author: commitment on the ledger, then the payload in the object store, then
 * the announcement. Every step may be repeated, so a restarted peer begins here again. Returns false when no validator took it.
 */
export async function publishUpdate(peer: Peer, pending: PendingUpdate): Promise<boolean> {
  const { round, payload } = pending;
  const key = updateKey(round);
  const payloadSha256 = sha256(payload);
  peer.status.update({ phase: PeerPhase.PUBLISHING, round, reason: "" });
  await retry(() => commit(peer, round, payloadSha256), budget(peer, "the ledger"));
  await retry(() => peer.objects.put(peer.bucket, key, payload), budget(peer, "the object store"));
  const parsed = parsePayload(payload, peer.setup.payloadBytesMax);
  if (!parsed.ok) throw new Error(`own payload: ${parsed.problem.detail}`);
  const announcement = {
    header: parsed.value.header,
    bucket: peer.bucket,
    key,
    payloadSha256,
    payloadBytes: BigInt(payload.length),
  };
  return announceToAll(peer, round, announcement);
}

/**
 * Tells every validator. A validator that restarts comes back at another address, so each attempt asks the ledger anew; what is still
 * unanswered when the round is signed no longer matters.
 */
async function announceToAll(
  peer: Peer,
  round: number,
  announcement: MessageInitShape<typeof AnnounceUpdateRequestSchema>,
): Promise<boolean> {
  const done = new AbortController();
  const signal = AbortSignal.any([peer.signal, done.signal]);
  const isSigned = (seen: Round) => seen.signedManifest !== undefined;
  peer.feed.waitFor(round, isSigned, signal).then(
    () => done.abort(new Error(`round ${round} is signed`)),
    () => {},
  );
  const taken = await Promise.all(
    peer.validators.names.map(async (name) => {
      const where = `validator ${name}`;
      const isFinal = (code: string) => FINAL_CODES.has(code);
      let isFirst = true;
      const attempt = async () => {
        if (!isFirst) await peer.validators.refresh();
        isFirst = false;
        await peer.validators.named(name).announceUpdate(announcement, { signal });
      };
      try {
        await retry(attempt, { ...budget(peer, where), signal, isFinal });
        return true;
      } catch (caught) {
        peer.signal.throwIfAborted();
        const { code, message } = fromUnknown(caught);
        peer.logger.warn({ code, round, where }, `announcement not taken: ${message}`);
        return false;
      }
    }),
  );
  done.abort(new Error("every validator has been told"));
  return taken.includes(true);
}

async function commit(peer: Peer, round: number, payloadSha256: Uint8Array): Promise<void> {
  const { ledger, netuid, hotkey, bucket } = peer;
  const present = await ledger.commitment(netuid, hotkey.address);
  if (present && commitmentMatches(present.fields, bucket, round, payloadSha256)) return;
  const fields = updateCommitment(bucket, round, payloadSha256);
  const { block } = await ledger.setCommitment({ netuid, hotkey, fields });
  await ledger.waitForBlock(block, peer.signal);
}

/** Retry options that keep the peer's status honest about what it waits for. */
export function budget(peer: Peer, what: string) {
  return {
    what,
    signal: peer.signal,
    clock: peer.clock,
    budgetMs: peer.retryBudgetMs,
    onWait: (target: string, error: string, delayMs: number) => {
      peer.status.update({ reason: `waiting for ${target}: ${error}` });
      peer.logger.warn({ waitsFor: target, delayMs }, `waiting for ${target}: ${error}`);
    },
  };
}
