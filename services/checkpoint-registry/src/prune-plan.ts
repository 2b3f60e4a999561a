// Which checkpoints a prune removes. Pure: decides on rows, touches nothing.
import { CheckpointKind, CheckpointStage } from "@covenant/contracts/registry";

/** What the decision needs to know of a checkpoint. */
export interface PruneCandidate {
  /** Hexadecimal. */
  root: string;
  /** Hexadecimal; empty without a parent. */
  parentRoot: string;
  kind: CheckpointKind;
  stage: CheckpointStage;
  sequence: number;
  pinned: boolean;
}

/**
 * Checkpoints to remove, oldest first. Kept are the pinned, the released, the `keepNewest` newest of each stage
 * (policies are many and must not push out the pretrained), and every checkpoint a kept delta is rebuilt from.
 */
export function planPrune(
  checkpoints: readonly PruneCandidate[],
  keepNewest: number,
): PruneCandidate[] {
  const byRoot = new Map(checkpoints.map((checkpoint) => [checkpoint.root, checkpoint]));
  const newestFirst = [...checkpoints].sort((a, b) => b.sequence - a.sequence);
  const perStage = new Map<CheckpointStage, number>();
  const kept = new Set<string>();
  for (const checkpoint of newestFirst) {
    const rank = perStage.get(checkpoint.stage) ?? 0;
    perStage.set(checkpoint.stage, rank + 1);
    const released = checkpoint.stage === CheckpointStage.RELEASE;
    if (!checkpoint.pinned && !released && rank >= keepNewest) continue;
    let needed: PruneCandidate | undefined = checkpoint;
    while (needed && !kept.has(needed.root)) {
      kept.add(needed.root);
      const isDelta: boolean = needed.kind === CheckpointKind.DELTA;
      needed = isDelta ? byRoot.get(needed.parentRoot) : undefined;
    }
  }
  return newestFirst.filter(({ root }) => !kept.has(root)).reverse();
}
