import { bytesEqual } from "@covenant/contracts";
import type { AnnounceUpdateRequest } from "@covenant/contracts/gauntlet";
import { CovenantError } from "@covenant/runtime";
import { commitmentMatches } from "@covenant/sparseloco";
import type { Judge } from "./judge.ts";
import type { RoundLoop } from "./round-loop.ts";

const NAME_CHARS_MAX = 128;

/**
 * Takes an announcement: checks who announces what for which round and finds its commitment on the ledger; everything about the payload is
 * judged later, with a verdict. Returns the block of acceptance. Throws COV_UPDATE_REFUSED, COV_UPDATE_NOT_COMMITTED, COV_UPDATE_LATE.
 */
export async function takeAnnouncement(
  judge: Judge,
  loop: RoundLoop,
  request: AnnounceUpdateRequest,
  caller: string | undefined,
): Promise<number> {
  const { header, bucket, key, payloadSha256 } = request;
  const refuse = (message: string) => new CovenantError("COV_UPDATE_REFUSED", message);
  if (header === undefined) throw refuse("no header");
  const hotkey = header.signature?.hotkey;
  if (caller === undefined || hotkey !== caller) throw refuse("not signed by the caller's hotkey");
  if (header.runId !== judge.setup.run.runId) throw refuse(`this is run ${judge.setup.run.runId}`);
  if (payloadSha256.length !== 32) throw refuse("payload_sha256 must have 32 bytes");
  if (bucket === "" || key === "") throw refuse("bucket and key must be named");
  if (bucket.length > NAME_CHARS_MAX || key.length > NAME_CHARS_MAX) throw refuse("name too long");
  const limit = BigInt(judge.setup.payloadBytesMax);
  if (request.payloadBytes < 1n || request.payloadBytes > limit) {
    throw refuse(`payload has ${request.payloadBytes} bytes, at most ${limit} are taken`);
  }
  const known = await knownAnnouncement(judge, request, caller);
  if (known !== undefined) return known;
  const { netuid } = judge.config.ledger;
  const commitment = await judge.ledger.commitment(netuid, caller);
  const fields = commitment?.fields ?? [];
  if (!commitment || !commitmentMatches(fields, bucket, header.round, payloadSha256)) {
    throw new CovenantError(
      "COV_UPDATE_NOT_COMMITTED",
      `the ledger has no commitment of ${caller} to this payload in round ${header.round}`,
    );
  }
  const { block, index } = commitment;
  return loop.announce(request, { hotkey: caller, committedBlock: block, committedIndex: index });
}

/** The block at which the same announcement was taken before; a different one for the round is refused. */
async function knownAnnouncement(
  judge: Judge,
  request: AnnounceUpdateRequest,
  caller: string,
): Promise<number | undefined> {
  const announcements = await judge.book.announcements(request.header!.round);
  const known = announcements.find(({ announced }) => announced.hotkey === caller);
  if (known === undefined) return undefined;
  if (bytesEqual(known.request.payloadSha256, request.payloadSha256)) return known.acceptedBlock;
  throw new CovenantError("COV_UPDATE_REFUSED", "another update was announced for this round");
}
