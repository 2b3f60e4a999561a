import { create } from "@bufbuild/protobuf";
import { type Round, RoundSchema } from "@covenant/contracts/gauntlet";
import { bitsPerByte } from "@covenant/models";
import type { RunSetup } from "@covenant/runs";
import type { RoundBook, StoredRound } from "./round-book.ts";

/** Fact that holds the held-out loss of the run's initial weights. */
export const INITIAL_LOSS_FACT = "initial-held-out-loss";

/** Puts together what outsiders see of a round. */
export async function viewRound(
  setup: RunSetup,
  book: RoundBook,
  stored: StoredRound,
): Promise<Round> {
  const { record, traceId, signed, heldOutLoss } = stored;
  const bytesPerToken = setup.run.data!.heldOutBytesPerToken;
  const bits = (loss: number | undefined) =>
    loss === undefined ? 0 : bitsPerByte(loss, bytesPerToken);
  const bundles = signed === undefined ? [] : await book.bundles(record.round);
  const initial = record.round === 0 ? await book.fact(INITIAL_LOSS_FACT) : undefined;
  return create(RoundSchema, {
    round: record.round,
    state: record.state,
    reason: record.reason,
    openBlock: BigInt(record.openBlock),
    deadlineBlock: BigInt(record.deadlineBlock),
    announced: record.announced.map(({ hotkey }) => hotkey),
    ...(signed === undefined ? {} : { signedManifest: signed }),
    heldOutLoss: heldOutLoss ?? 0,
    heldOutBitsPerByte: bits(heldOutLoss),
    verdicts: bundles.map(({ verdict }) => verdict!),
    appliedRoots: await book.appliedRoots(record.round),
    initialBitsPerByte: bits(initial === undefined ? undefined : Number(initial)),
    traceId,
  });
}
