/** What all peers of a run must compute alike: assignment, headers, manifests, rounds. Pure. */
export type { AssignedPeer, AssignmentRules } from "./assignment.ts";
export {
  assignedSamples,
  drawSamples,
  sampleCommitment,
  unassignedSamples,
} from "./assignment.ts";
export {
  CLIP_TO_MEDIAN_NORM,
  CODEC_1BIT,
  CODEC_2BIT,
  codecMode,
  ruleName,
} from "./codec.ts";
export { commitmentMatches, committedBucket, updateCommitment, updateKey } from "./commitment.ts";
export type { Payload } from "./framing.ts";
export {
  BODY_CHUNK_BYTES,
  bodyHashes,
  framePayload,
  HEADER_BYTES_MAX,
  PAYLOAD_OVERHEAD_BYTES,
  parsePayload,
} from "./framing.ts";
export type { HeaderExpectation } from "./header.ts";
export { buildHeader, checkHeader, shortHex } from "./header.ts";
export type { ManifestExpectation, ValidatorStake } from "./manifest.ts";
export {
  CONTRIBUTORS_MAX,
  checkManifest,
  isQuorum,
  manifestHash,
  signedStake,
  signManifest,
  verifyManifestSignature,
} from "./manifest.ts";
export type { Checked, Problem, ProblemCode } from "./result.ts";
export type {
  Announced,
  Attendance,
  RoundEffect,
  RoundEvent,
  RoundRecord,
  RoundRules,
  RoundStep,
} from "./round-machine.ts";
export {
  expectedPeers,
  missingPeers,
  openRound,
  stepRound,
  takesAnnouncements,
} from "./round-machine.ts";
export type { RunConfigChoices } from "./run-config.ts";
export {
  assignmentRules,
  createRunConfig,
  isCheckpointRound,
  learningRateSchedule,
  openRunConfig,
  PROTOCOL_VERSION,
  RUN_CONFIG_BYTES_MAX,
  RUN_CONFIG_KEY,
  runBucket,
  runConfigHash,
  runConfigProblems,
} from "./run-config.ts";
export type { LearningRateSchedule } from "./schedule.ts";
export { learningRateAt, learningRatesOfRound } from "./schedule.ts";
