import type { ServiceImpl } from "@connectrpc/connect";
import { bytesEqual } from "@covenant/contracts";
import type { Round, Validator } from "@covenant/contracts/gauntlet";
import { scorecard, WEIGHT_RULES } from "@covenant/gauntlet";
import { CovenantError, principalOf } from "@covenant/runtime";
import { takeAnnouncement } from "../intake.ts";
import type { Judge } from "../judge.ts";
import type { RoundLoop } from "../round-loop.ts";
import { viewRound } from "../round-view.ts";
import { signForeignManifest } from "../sign-manifest.ts";

/** Size of one piece of a streamed merged update. */
const PIECE_BYTES = 256 * 1024;
/** Rounds read at once when a watcher starts in the past. */
const ROUNDS_PAGE = 64;

/** The Validator service. */
export function validatorService(judge: Judge, loop: RoundLoop): ServiceImpl<typeof Validator> {
  return { ...participantMethods(judge, loop), ...readMethods(judge, loop) };
}

function participantMethods(
  judge: Judge,
  loop: RoundLoop,
): Pick<ServiceImpl<typeof Validator>, "announceUpdate" | "reportApplied" | "signManifest"> {
  return {
    async announceUpdate(request, context) {
      const caller = principalOf(context).hotkey;
      return { acceptedBlock: BigInt(await takeAnnouncement(judge, loop, request, caller)) };
    },
    async reportApplied({ runId, round, stateRoot }, context) {
      const { hotkey } = principalOf(context);
      const stored = await judge.book.round(round);
      const manifest = stored?.signed?.manifest;
      if (hotkey === undefined || runId !== judge.setup.run.runId || manifest === undefined) {
        throw unknownRound(round);
      }
      await judge.book.saveApplied(round, hotkey, stateRoot);
      judge.broadcaster.changed(round);
      return { matches: bytesEqual(stateRoot, manifest.postStateRoot) };
    },
    signManifest: (request) => signForeignManifest(judge, loop, request),
  };
}

function readMethods(
  judge: Judge,
  loop: RoundLoop,
): Omit<ServiceImpl<typeof Validator>, "announceUpdate" | "reportApplied" | "signManifest"> {
  const { book, files, setup, broadcaster, weights } = judge;
  const view = async (number: number): Promise<Round | undefined> => {
    const stored = await book.round(number);
    return stored === undefined ? undefined : viewRound(setup, book, stored);
  };
  return {
    getRun: async () => ({ run: setup.run }),
    async getRound({ round }) {
      const found = await view(round);
      if (found === undefined) throw unknownRound(round);
      return { round: found };
    },
    async *watchRounds({ fromRound }, context) {
      const changes = broadcaster.watch(context.signal);
      let next = fromRound;
      for (;;) {
        const page = await book.rounds(next, ROUNDS_PAGE);
        for (const stored of page) yield { round: await viewRound(setup, book, stored) };
        if (page.length < ROUNDS_PAGE) break;
        next = page.at(-1)!.record.round + 1;
      }
      for await (const number of changes) {
        if (number < fromRound) continue;
        const round = await view(number);
        if (round !== undefined) yield { round };
      }
    },
    async *getMergedUpdate({ round }) {
      const manifest = (await book.round(round))?.signed?.manifest;
      if (manifest === undefined) throw unknownRound(round);
      if (manifest.mergedBytes === 0n) return;
      const merged = await files.loadMerged(round);
      for (let at = 0; at < merged.length; at += PIECE_BYTES) {
        yield { data: merged.subarray(at, at + PIECE_BYTES) };
      }
    },
    async getScorecard() {
      const rules = { ...WEIGHT_RULES, burnShare: judge.config.burnShare };
      const { scores } = scorecard(await book.gauntlet(), rules);
      return {
        round: Math.max(0, loop.newestRound),
        scores: scores.map((score) => ({
          ...score,
          reasons: [...score.reasons],
          uid: judge.participants.neuron(score.hotkey)?.uid ?? 0,
        })),
      };
    },
    async explainScore({ hotkey, round }) {
      const bundle = await book.bundle(round, hotkey);
      if (bundle === undefined) {
        throw new CovenantError("COV_VERDICT_UNKNOWN", `no verdict on ${hotkey} in round ${round}`);
      }
      return bundle;
    },
    async getWeights() {
      const shares = Object.fromEntries(await weights.shares());
      return { shares, setAtBlock: BigInt(await weights.setAtBlock()) };
    },
  };
}

function unknownRound(round: number): CovenantError {
  return new CovenantError("COV_ROUND_UNKNOWN", `there is no such round as ${round} yet`, {
    metadata: { round },
  });
}
