import { philox4x32, sha256 } from "@covenant/contracts";
import type { Behaviour, RoundWork } from "./behaviour.ts";
import { compressChange } from "./honest.ts";

/** Sends random numbers of a plausible size instead of training. For tests and demonstrations of the judging. */
export const noise: Behaviour = {
  name: "noise",
  async produceBody(work) {
    await work.beforeStep();
    const current = randomWalk(work);
    const scratch = new Float32Array(work.theta.length);
    return compressChange(work, work.theta, current, scratch);
  },
};

/**
 * Parameters displaced by Gaussian noise. A parameter moves by about a learning rate per AdamW step, and by the square root of the number
 * of steps when directions change, so this has the norm of honest training.
 */
function randomWalk(work: RoundWork): Float32Array {
  const inner = work.setup.run.inner!;
  const size = inner.peakLearningRate * Math.sqrt(inner.steps);
  const digest = sha256(new TextEncoder().encode(`noise ${work.hotkey} ${work.round}`));
  const key = new Uint32Array(digest.slice(0, 8).buffer);
  const current = work.theta.slice();
  for (let i = 0; i < current.length; i += 2) {
    const [a, b] = philox4x32([key[0]!, key[1]!], [i, 0, 0, 0]);
    const radius = size * Math.sqrt(-2 * Math.log((a + 0.5) / 2 ** 32));
    const angle = (2 * Math.PI * b) / 2 ** 32;
    current[i]! += radius * Math.cos(angle);
    if (i + 1 < current.length) current[i + 1]! += radius * Math.sin(angle);
  }
  return current;
}
