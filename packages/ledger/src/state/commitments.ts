import { type BlockContext, emit, subnetOf } from "./context.ts";
import { ensure } from "./errors.ts";
import type { Address } from "./types.ts";

/** Most fields in one commitment. */
export const COMMITMENT_FIELDS_MAX = 3;

/**
 * Publishes up to three fields of up to 128 bytes under a hotkey, replacing its last commitment.
 * Space is counted per hotkey and epoch: at least the minimum cost for each commitment.
 */
export function setCommitment(
  context: BlockContext,
  hotkey: Address,
  args: { netuid: number; fields: readonly string[] },
): void {
  const subnet = subnetOf(context.state, args.netuid);
  const rules = subnet.hyperparameters;
  ensure(subnet.uids.has(hotkey), "AccountNotAllowedCommit", "hotkey is not registered");
  ensure(args.fields.length <= COMMITMENT_FIELDS_MAX, "TooManyFieldsInCommitmentInfo");
  let bytes = 0;
  for (const field of args.fields) bytes += field.length / 2;
  const costBytes = Math.max(rules.commitmentMinCostBytes, bytes);
  const space = subnet.commitmentSpace.get(hotkey);
  const usedBytes = space?.epoch === subnet.epochIndex ? space.usedBytes : 0;
  ensure(
    usedBytes + costBytes <= rules.commitmentMaxSpaceBytes,
    "SpaceLimitExceeded",
    `${usedBytes} of ${rules.commitmentMaxSpaceBytes} bytes used in this epoch`,
  );
  subnet.commitmentSpace.set(hotkey, {
    epoch: subnet.epochIndex,
    usedBytes: usedBytes + costBytes,
  });
  const index = context.extrinsic ?? 0;
  subnet.commitments.set(hotkey, { fields: [...args.fields], block: context.block, index });
  emit(context, "Commitment", { netuid: args.netuid, hotkey });
}
