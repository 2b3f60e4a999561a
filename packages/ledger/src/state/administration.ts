import { type BlockContext, emit, subnetOf } from "./context.ts";
import { nextEpochBlock } from "./emission.ts";
import { ensure } from "./errors.ts";
import { hyperparametersSchema } from "./hyperparameters.ts";
import type { Address, SubnetState } from "./types.ts";

/** Bounds of the tempo that an owner may set on a chain of 12 s blocks; sudo may set any. */
const OWNER_TEMPO_MIN = 360;
const OWNER_TEMPO_MAX = 50_400;

/** Starts a subnet's emission, once, by its owner, after the start delay. */
export function startCall(context: BlockContext, signer: Address, args: { netuid: number }): void {
  const subnet = subnetOf(context.state, args.netuid);
  ensure(signer === subnet.ownerColdkey, "BadOrigin", "only the subnet's owner may start it");
  ensure(subnet.startedAtBlock === undefined, "FirstEmissionBlockNumberAlreadySet");
  const { startCallDelayBlocks } = subnet.hyperparameters;
  ensure(
    context.block >= subnet.createdAtBlock + startCallDelayBlocks,
    "NeedWaitingMoreBlocksToStarCall",
  );
  subnet.startedAtBlock = context.block;
  subnet.subtokenEnabled = true;
  emit(context, "FirstEmissionBlockNumberSet", { netuid: args.netuid });
}

/** Changes the tempo; outside the freeze window, by the owner within bounds or by sudo. */
export function setTempo(
  context: BlockContext,
  signer: Address,
  args: { netuid: number; tempo: number },
): void {
  const subnet = ensureAdministrator(context, signer, args.netuid);
  const isSudo = signer === context.state.sudo;
  const bounded = args.tempo >= OWNER_TEMPO_MIN && args.tempo <= OWNER_TEMPO_MAX;
  ensure(args.tempo > 0 && (isSudo || bounded), "TempoOutOfBounds");
  subnet.hyperparameters = { ...subnet.hyperparameters, tempo: args.tempo };
  emit(context, "TempoSet", { netuid: args.netuid, tempo: args.tempo });
}

/** Asks for an epoch after the freeze window, so that nobody's weights are caught unprepared. */
export function triggerEpoch(
  context: BlockContext,
  signer: Address,
  args: { netuid: number },
): void {
  const subnet = ensureAdministrator(context, signer, args.netuid);
  const { adminFreezeWindowBlocks } = subnet.hyperparameters;
  subnet.triggeredEpochBlock = context.block + Math.max(1, adminFreezeWindowBlocks);
  emit(context, "EpochTriggered", { netuid: args.netuid, block: subnet.triggeredEpochBlock });
}

/** Changes hyperparameters other than the tempo; outside the freeze window, by owner or sudo. */
export function setHyperparameters(
  context: BlockContext,
  signer: Address,
  args: { netuid: number; changes: Readonly<Record<string, unknown>> },
): void {
  const subnet = ensureAdministrator(context, signer, args.netuid);
  const changes = hyperparametersSchema.partial().safeParse(args.changes);
  ensure(changes.success, "InvalidValue");
  const isSudo = signer === context.state.sudo;
  const emissionNamed = "tempo" in args.changes || "emissionPerBlockRao" in args.changes;
  ensure(isSudo || !emissionNamed, "BadOrigin", "tempo and emission are set by other calls");
  const merged = { ...subnet.hyperparameters, ...changes.data };
  ensure(merged.minBurnRao <= merged.maxBurnRao, "InvalidValue", "minBurnRao above maxBurnRao");
  subnet.hyperparameters = merged;
  emit(context, "HyperparametersSet", { netuid: args.netuid, changes: args.changes });
}

/** Root: false takes the subnet out of emission and blocks staking. */
export function sudoSetSubtokenEnabled(
  context: BlockContext,
  signer: Address,
  args: { netuid: number; enabled: boolean },
): void {
  const subnet = ensureSudo(context, signer, args.netuid);
  subnet.subtokenEnabled = args.enabled;
  emit(context, "SubtokenEnabledSet", args);
}

/** Root: the pool side of emission. Recorded; without pools it moves no rao here. */
export function sudoSetSubnetEmissionEnabled(
  context: BlockContext,
  signer: Address,
  args: { netuid: number; enabled: boolean },
): void {
  const subnet = ensureSudo(context, signer, args.netuid);
  subnet.emissionEnabled = args.enabled;
  emit(context, "SubnetEmissionEnabledSet", args);
}

function ensureSudo(context: BlockContext, signer: Address, netuid: number): SubnetState {
  ensure(signer === context.state.sudo, "BadOrigin", "root call");
  return subnetOf(context.state, netuid);
}

function ensureAdministrator(context: BlockContext, signer: Address, netuid: number): SubnetState {
  const subnet = subnetOf(context.state, netuid);
  const isSudo = signer === context.state.sudo;
  ensure(isSudo || signer === subnet.ownerColdkey, "BadOrigin", "owner or root call");
  const remaining = nextEpochBlock(subnet) - context.block;
  ensure(
    isSudo || remaining > subnet.hyperparameters.adminFreezeWindowBlocks,
    "AdminActionProhibitedDuringWeightsWindow",
  );
  return subnet;
}
