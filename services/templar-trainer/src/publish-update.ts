import { sha256 } from "@covenant/contracts";
import { PeerPhase } from "@covenant/contracts/templar";
import { fromUnknown } from "@covenant/runtime";
import { commitmentMatches, parsePayload, updateCommitment, updateKey } from "@covenant/sparseloco";
import type { Peer } from "./peer.ts";
import { retry } from "./retry.ts";
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
  const taken = await Promise.all(
    peer.validators.all.map(async (validator, index) => {
      const where = `validator ${peer.validators.urls[index]}`;
      const options = { ...budget(peer, where), isFinal: (code: string) => FINAL_CODES.has(code) };
      try {
        await retry(() => validator.announceUpdate(announcement), options);
        return true;
      } catch (caught) {
        peer.signal.throwIfAborted();
        const { code, message } = fromUnknown(caught);
        peer.logger.warn({ code, round, where }, `announcement not taken: ${message}`);
        return false;
      }
    }),
  );
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
