/** A stored row of weights or bonds: neuron uid and u16 value. */
export type StoredRow = readonly (readonly [uid: number, value: number])[];

/** Parameters of the consensus, in Subtensor's own units. */
export interface YumaParameters {
  /** Bonds as an exponential average per pair (true) or normalised per column (false, Yuma 2). */
  yuma3: boolean;
  /** Per-pair smoothing by agreement with the consensus; only with yuma3. */
  liquidAlpha: boolean;
  /** u16 proportions. */
  alphaLow: number;
  alphaHigh: number;
  /** Steepness of the liquid alpha sigmoid in hundredths. */
  alphaSigmoidSteepness: number;
  /** Millionths of the old bond kept per epoch. */
  bondsMovingAverage: number;
  /** u16 proportion by which weight above the consensus is taken out of bonds. */
  bondsPenalty: number;
  /** Majority, u16 proportion. */
  kappa: number;
  maxValidators: number;
  /** Blocks without an update after which a neuron's stake stops counting. */
  activityCutoffBlocks: number;
  /** Stake below this many rao counts as none. */
  stakeThresholdRao: bigint;
}

/** One subnet as it stands when its epoch begins. All lists are indexed by uid. */
export interface YumaInput {
  block: number;
  /** Bonds to neurons registered at or after this block are dropped. */
  lastEpochBlock: number;
  stakesRao: readonly bigint[];
  lastUpdateBlocks: readonly number[];
  registeredAtBlocks: readonly number[];
  validatorPermits: readonly boolean[];
  weights: readonly StoredRow[];
  bonds: readonly StoredRow[];
  /** Exempt from the stake threshold and the permits, and keeps its weight on itself. */
  ownerUid?: number;
  /** With commit-reveal on: block of each validator's oldest live commitment. */
  oldestCommitBlocks?: readonly (number | undefined)[];
  parameters: YumaParameters;
}

/** What an epoch stores and pays. Lists are indexed by uid; u16 where nothing else is said. */
export interface YumaResult {
  active: boolean[];
  stakeWeight: number[];
  consensus: number[];
  incentive: number[];
  dividends: number[];
  validatorTrust: number[];
  validatorPermit: boolean[];
  bonds: StoredRow[];
  /** Proportions of the epoch's emission as I32F32, for `emissionOf`. */
  serverShares: bigint[];
  validatorShares: bigint[];
  combinedShares: bigint[];
}
