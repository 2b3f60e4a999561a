/** What a verifier tolerates; each bound says what it lets pass and why. */
export interface ProofThresholds {
  /**
   * Positions where the bound uniform number lies closer than this to an edge of the claimed token's
   * interval are near ties: rounding may decide them, so they count neither way.
   */
  nearTieMargin: number;
  /**
   * Smallest share of the other positions where the replayed draw must be the claimed token. The
   * number of disagreements allowed is the floor of (1 - share) x positions.
   */
  minimumAgreement: number;
  /**
   * Largest root mean square difference between opened and replayed fingerprints, in int8 steps. An
   * honest fingerprint has a root mean square near 16 itself; zeros are at 16 and another hidden state
   * is near 23.
   */
  fingerprintDistanceMax: number;
  /** Largest absolute difference between an opened and the replayed log-probability, in nats. */
  logProbDriftMax: number;
  /** Largest difference between claimed and recomputed reward. */
  rewardToleranceMax: number;
}

/**
 * For provers and verifiers that run the engine's fp32 kernels on processors of any make: the
 * distributions agree to about 1e-5, and not one draw may differ outside near ties.
 */
export const exactThresholds: ProofThresholds = {
  nearTieMargin: 1e-4,
  minimumAgreement: 1,
  fingerprintDistanceMax: 1,
  logProbDriftMax: 0.01,
  rewardToleranceMax: 1e-9,
};

/**
 * For other number formats and devices on the two sides, where a draw may flip now and then: at most
 * one position in fifty disagrees.
 */
export const tolerantThresholds: ProofThresholds = {
  nearTieMargin: 2e-3,
  minimumAgreement: 0.98,
  fingerprintDistanceMax: 3,
  logProbDriftMax: 0.1,
  rewardToleranceMax: 1e-9,
};
