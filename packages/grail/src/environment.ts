/** One message of a chat; `role` names the special token that opens it. */
export interface ChatMessage {
  role: "user" | "assistant";
  content: string;
}

/** One episode: the prompt and what the grader needs to know. */
export interface Episode {
  messages: readonly ChatMessage[];
  /** The right answer, as text. */
  answer: string;
}

/** What a completion is worth. */
export interface Score {
  /** In [0, 1]. */
  reward: number;
  /** Named figures for reports; never used for training. */
  metrics: Record<string, number>;
}

/**
 * A task that grades itself. Equal seeds give equal episodes on every machine, so that anyone can
 * recompute a reward. Seeds with the top bit set are held out: see `trainSeed` and `evaluationSeed`.
 */
export interface Environment {
  readonly name: string;
  readonly version: number;
  /** Begins the episode of a seed. */
  reset(seed: bigint): Episode;
  /** Grades a completion's text, without the stop token. */
  score(episode: Episode, completionText: string): Score;
}

const heldOutBit = 1n << 63n;
const seedMask = heldOutBit - 1n;

/** Seed number `index` of the training episodes. */
export function trainSeed(index: bigint): bigint {
  return index & seedMask;
}

/** Seed number `index` of the episodes that are never trained on. */
export function evaluationSeed(index: bigint): bigint {
  return (index & seedMask) | heldOutBit;
}

/** Whether a seed belongs to the episodes that are never trained on. */
export function isEvaluationSeed(seed: bigint): boolean {
  return (seed & heldOutBit) !== 0n;
}

/** Name with version, as contracts carry it: "arithmetic@1". */
export function environmentId(environment: Environment): string {
  return `${environment.name}@${environment.version}`;
}

/** The episode with its right answer as the assistant's message: an example for supervised tuning. */
export function workedExample(environment: Environment, seed: bigint): ChatMessage[] {
  const episode = environment.reset(seed);
  return [...episode.messages, { role: "assistant", content: episode.answer }];
}
