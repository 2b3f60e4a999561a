import { toHex } from "@covenant/contracts";
import { z } from "zod";
import { canonicalHash } from "./canonical-json.ts";
import {
  type Hyperparameters,
  hyperparametersSchema,
  PRESETS,
  raoSchema,
} from "./hyperparameters.ts";
import { isAddress } from "./registration.ts";
import type { Account, ChainState, SubnetState } from "./types.ts";

const addressSchema = z.string().refine(isAddress, "not an SS58 address of network 42");
const RAO_DECIMALS = 9;
const RAO_PER_TAO = 10n ** BigInt(RAO_DECIMALS);
/** Most accounts that a genesis may name. */
const ACCOUNTS_MAX = 65_536;
/** Most subnets of one chain. */
const SUBNETS_MAX = 128;
/** Substrate remembers this many block hashes; an extrinsic cannot live longer. */
const MAX_ERA_BLOCKS = 2400;

/** TAO as a number or decimal text with up to nine decimals, read as rao. */
const taoSchema = z
  .union([z.number().nonnegative().max(9_000_000).transform(String), z.string()])
  .pipe(z.string().regex(/^\d{1,9}(\.\d{1,9})?$/, "not an amount of TAO"))
  .transform((text) => {
    const [whole, decimals = ""] = text.split(".");
    return BigInt(whole!) * RAO_PER_TAO + BigInt(decimals.padEnd(RAO_DECIMALS, "0"));
  });

/** How a chain begins. Two chains with different genesis never accept each other's signatures. */
export const genesisSchema = z.strictObject({
  /** Tells chains with otherwise equal genesis apart. */
  name: z.string().min(1).max(64).default("covenant-development"),
  /** Unix milliseconds; block 0. */
  timeMs: z.number().int().nonnegative().default(0),
  sudo: addressSchema.optional(),
  /** TAO by address. */
  balances: z
    .record(addressSchema, taoSchema)
    .refine((balances) => Object.keys(balances).length <= ACCOUNTS_MAX, "too many accounts")
    .default({}),
  subnets: z
    .array(
      z.strictObject({
        netuid: z.number().int().min(1).max(65_535),
        /** Coldkey that may administer the subnet. */
        owner: addressSchema,
        /** Hotkey that receives the owner's cut; the owner's own address when absent. */
        ownerHotkey: addressSchema.optional(),
        preset: z.enum(["development", "subtensor"]).default("development"),
        hyperparameters: hyperparametersSchema.partial().default({}),
        /** True: emission begins with block 1; false: with the owner's startCall. */
        started: z.boolean().default(true),
      }),
    )
    .max(SUBNETS_MAX)
    .default([]),
  existentialDepositRao: raoSchema.default(500n),
  maxEraBlocks: z.number().int().min(8).max(65_536).default(MAX_ERA_BLOCKS),
  maxEpochsPerBlock: z.number().int().min(1).max(SUBNETS_MAX).default(2),
  roundPeriodMs: z.number().int().min(1).default(3000),
});

/** A checked genesis configuration. */
export type Genesis = z.output<typeof genesisSchema>;
/** A genesis configuration as people write it. */
export type GenesisInput = z.input<typeof genesisSchema>;

/** The state at block 0. Throws a RangeError when a subnet is named twice. */
export function genesisState(genesis: Genesis): ChainState {
  const genesisHash = toHex(canonicalHash(genesis));
  let genesisRao = 0n;
  const accounts = new Map<string, Account>();
  for (const [address, balanceRao] of Object.entries(genesis.balances)) {
    genesisRao += balanceRao;
    accounts.set(address, { balanceRao, nonce: 0 });
  }
  const subnets = new Map(genesis.subnets.map((subnet) => [subnet.netuid, genesisSubnet(subnet)]));
  if (subnets.size !== genesis.subnets.length) throw new RangeError("subnet named twice");
  const coldkeys = new Map<string, string>();
  for (const { owner, ownerHotkey } of genesis.subnets) {
    // An owner that is its own hotkey may still register that hotkey under any coldkey.
    if (ownerHotkey !== undefined && ownerHotkey !== owner) coldkeys.set(ownerHotkey, owner);
  }
  return {
    genesisHash,
    parameters: {
      existentialDepositRao: genesis.existentialDepositRao,
      maxEraBlocks: genesis.maxEraBlocks,
      maxEpochsPerBlock: genesis.maxEpochsPerBlock,
      roundGenesisMs: genesis.timeMs,
      roundPeriodMs: genesis.roundPeriodMs,
    },
    ...(genesis.sudo === undefined ? {} : { sudo: genesis.sudo }),
    head: { number: 0, hash: genesisHash, timeMs: genesis.timeMs },
    accounts,
    coldkeys,
    subnets,
    issuance: { genesisRao, emittedRao: 0n, recycledRao: 0n, burnedRao: 0n },
  };
}

function genesisSubnet(options: Genesis["subnets"][number]): SubnetState {
  const given = Object.entries(options.hyperparameters).filter(([, value]) => value !== undefined);
  const hyperparameters: Hyperparameters = {
    ...PRESETS[options.preset],
    ...Object.fromEntries(given),
  };
  return {
    netuid: options.netuid,
    ownerColdkey: options.owner,
    ownerHotkey: options.ownerHotkey ?? options.owner,
    createdAtBlock: 0,
    hyperparameters,
    ...(options.started ? { startedAtBlock: 0 } : {}),
    subtokenEnabled: options.started,
    emissionEnabled: true,
    burnRao: hyperparameters.initialBurnRao,
    registrationsThisBlock: 0,
    neurons: [],
    uids: new Map(),
    stakes: new Map(),
    commitments: new Map(),
    commitmentSpace: new Map(),
    weightCommits: new Map(),
    timelockedCommits: [],
    pendingServerRao: 0n,
    pendingValidatorRao: 0n,
    pendingOwnerRao: 0n,
    lastEpochBlock: 0,
    epochIndex: 0,
  };
}
