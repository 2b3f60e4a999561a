import { philox4x32, sha256 } from "@covenant/contracts";
import type { Environment, Episode, Score } from "./environment.ts";

/** One sum. */
interface Problem {
  text: string;
  answer: string;
}

const tensMax = 9;
/** One problem in this many is held out from training. */
const heldOutOneIn = 5;

/**
 * All problems, in a fixed order: a two-digit or one-digit number plus or minus a digit, where no
 * carry or borrow crosses the tens. Every digit fact occurs under several tens, so what is held out is
 * a new combination of facts that training has shown.
 */
function allProblems(): Problem[] {
  const problems: Problem[] = [];
  for (let tens = 0; tens <= tensMax; tens++) {
    for (let ones = 0; ones <= 9; ones++) {
      const left = tens * 10 + ones;
      for (let right = 0; right <= 9; right++) {
        if (ones + right <= 9) {
          problems.push({ text: `${left}+${right}=`, answer: String(left + right) });
        }
        if (ones >= right) {
          problems.push({ text: `${left}-${right}=`, answer: String(left - right) });
        }
      }
    }
  }
  return problems;
}

function isHeldOut(problem: Problem): boolean {
  const digest = sha256(new TextEncoder().encode(`arithmetic@1 ${problem.text}`));
  return digest[0]! % heldOutOneIn === 0;
}

const problems = allProblems();
const trainProblems = problems.filter((problem) => !isHeldOut(problem));
const heldOutProblems = problems.filter(isHeldOut);

/** How many different prompts training and evaluation draw from; the two sets share none. */
export const arithmeticPromptCounts = {
  train: trainProblems.length,
  heldOut: heldOutProblems.length,
};

function reset(seed: bigint): Episode {
  const low = Number(seed & 0xffff_ffffn);
  const high = Number((seed >> 32n) & 0xffff_ffffn);
  const [draw] = philox4x32([low, high], [0, 0, 0, 0]);
  const pool = high >>> 31 === 1 ? heldOutProblems : trainProblems;
  const problem = pool[Math.floor((draw * pool.length) / 2 ** 32)]!;
  return { messages: [{ role: "user", content: problem.text }], answer: problem.answer };
}

/**
 * Exact grading, no partial credit: whatever a wrong answer earned (for its form, its length, a right
 * digit) could be collected without solving anything.
 */
function score(episode: Episode, completionText: string): Score {
  const text = completionText.trim();
  const right = text === episode.answer;
  return {
    reward: right ? 1 : 0,
    metrics: { exact: right ? 1 : 0, is_number: /^\d+$/.test(text) ? 1 : 0 },
  };
}

/** Sums and differences of small numbers, `arithmetic@1`: reward 1 for the exact answer, else 0. */
export const arithmetic: Environment = { name: "arithmetic", version: 1, reset, score };
