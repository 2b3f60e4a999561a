import { z } from "zod";

const U16_MAX = 65_535;
const count = z.number().int().min(0).max(0xffff_ffff);
const positive = count.min(1);
const u16 = z.number().int().min(0).max(U16_MAX);

/** Rao (1e9 per TAO) as a bigint; configuration files may write a whole number or decimal text. */
export const raoSchema = z
  .union([
    z.bigint(),
    z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER),
    z.string().regex(/^\d{1,19}$/),
  ])
  .transform((value) => BigInt(value))
  .pipe(
    z
      .bigint()
      .min(0n)
      .max((1n << 63n) - 1n),
  );

/** Every rule of a subnet that can be set, with the bounds that the chain enforces. */
export const hyperparametersSchema = z.strictObject({
  /** Blocks from one epoch to the next. */
  tempo: positive,
  kappa: u16,
  maxUids: positive.max(4096),
  maxValidators: positive.max(4096),
  immunityPeriodBlocks: count,
  activityCutoffBlocks: count,
  stakeThresholdRao: raoSchema,
  yuma3: z.boolean(),
  liquidAlpha: z.boolean(),
  alphaLow: u16,
  alphaHigh: u16,
  /** Hundredths. */
  alphaSigmoidSteepness: z.number().int().min(-32_768).max(32_767),
  /** Millionths of the old bond kept per epoch. */
  bondsMovingAverage: z.number().int().min(0).max(1_000_000),
  bondsPenalty: u16,
  weightsRateLimitBlocks: count,
  weightsVersionKey: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER),
  minAllowedWeights: u16,
  maxWeightsLimit: u16,
  commitRevealEnabled: z.boolean(),
  revealPeriodEpochs: positive.max(100),
  registrationAllowed: z.boolean(),
  maxRegistrationsPerBlock: positive,
  initialBurnRao: raoSchema,
  minBurnRao: raoSchema,
  maxBurnRao: raoSchema,
  burnHalfLifeBlocks: positive,
  /** Millionths: 1 260 000 multiplies the price by 1.26 at each registration. */
  burnMultiplierMillionths: positive.min(1_000_000).max(100_000_000),
  servingRateLimitBlocks: count,
  allowLoopbackEndpoints: z.boolean(),
  commitmentMaxSpaceBytes: positive,
  commitmentMinCostBytes: positive,
  emissionPerBlockRao: raoSchema,
  /** u16 proportions. */
  ownerCut: u16,
  delegateTake: u16,
  /** What becomes of miner emission to the owner's own hotkeys: recycled (true) or burned. */
  recycleOwnerEmission: z.boolean(),
  startCallDelayBlocks: count,
  adminFreezeWindowBlocks: count,
});

/** The rules of one subnet. */
export type Hyperparameters = z.output<typeof hyperparametersSchema>;

/** Subtensor's defaults for a new subnet, where chain blocks take 12 s. */
export const SUBTENSOR_HYPERPARAMETERS: Hyperparameters = {
  tempo: 360,
  kappa: 32_767,
  maxUids: 256,
  maxValidators: 64,
  immunityPeriodBlocks: 5000,
  activityCutoffBlocks: 5000,
  stakeThresholdRao: 0n,
  yuma3: true,
  liquidAlpha: false,
  alphaLow: 45_875,
  alphaHigh: 58_982,
  alphaSigmoidSteepness: 1000,
  bondsMovingAverage: 900_000,
  bondsPenalty: U16_MAX,
  weightsRateLimitBlocks: 100,
  weightsVersionKey: 0,
  minAllowedWeights: 1,
  maxWeightsLimit: U16_MAX,
  commitRevealEnabled: false,
  revealPeriodEpochs: 1,
  registrationAllowed: true,
  maxRegistrationsPerBlock: 1,
  initialBurnRao: 100_000_000n,
  minBurnRao: 500_000n,
  maxBurnRao: 100_000_000_000n,
  burnHalfLifeBlocks: 360,
  burnMultiplierMillionths: 1_260_000,
  servingRateLimitBlocks: 50,
  allowLoopbackEndpoints: false,
  commitmentMaxSpaceBytes: 3100,
  commitmentMinCostBytes: 100,
  emissionPerBlockRao: 1_000_000_000n,
  ownerCut: 11_796,
  delegateTake: 11_796,
  recycleOwnerEmission: false,
  startCallDelayBlocks: 0,
  adminFreezeWindowBlocks: 10,
};

/** For blocks of about 250 ms on one machine: an epoch in 10 s, a commitment every few blocks. */
export const DEVELOPMENT_HYPERPARAMETERS: Hyperparameters = {
  ...SUBTENSOR_HYPERPARAMETERS,
  tempo: 40,
  weightsRateLimitBlocks: 4,
  maxRegistrationsPerBlock: 64,
  burnHalfLifeBlocks: 40,
  burnMultiplierMillionths: 1_050_000,
  servingRateLimitBlocks: 1,
  allowLoopbackEndpoints: true,
  commitmentMaxSpaceBytes: 65_536,
  adminFreezeWindowBlocks: 2,
};

/** Names of the presets that a genesis configuration may start from. */
export const PRESETS = {
  development: DEVELOPMENT_HYPERPARAMETERS,
  subtensor: SUBTENSOR_HYPERPARAMETERS,
} as const satisfies Record<string, Hyperparameters>;
