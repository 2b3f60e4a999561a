import { rate } from "openskill";
import { plackettLuce } from "openskill/models";

/** A skill estimate: mean and standard deviation. */
export type Rating = { mu: number; sigma: number };

/** OpenSkill's start: sigma is a third of mu, so a newcomer's ordinal is 0. */
export const INITIAL_RATING: Rating = { mu: 25, sigma: 25 / 3 };

const BETA = 7;
const TAU = 0.1;
/** Standard deviations below the mean that a peer is trusted to be above. */
const ORDINAL_SIGMAS = 3;

/** One participant of a round's match; lower rank is better, equal ranks are a draw. */
export type Placement = { hotkey: string; rating: Rating; rank: number };

/** New ratings after one match by Plackett-Luce (beta 7, tau 0.1). A match of fewer than two changes nothing. */
export function rateMatch(placements: readonly Placement[]): Map<string, Rating> {
  if (placements.length < 2) return new Map(placements.map((p) => [p.hotkey, p.rating]));
  const ordered = [...placements].sort((a, b) => (a.hotkey < b.hotkey ? -1 : 1));
  const rated = rate(
    ordered.map(({ rating }) => [{ mu: rating.mu, sigma: rating.sigma }]),
    { rank: ordered.map(({ rank }) => rank), model: plackettLuce, beta: BETA, tau: TAU },
  );
  return new Map(
    ordered.map(({ hotkey }, index) => {
      const { mu, sigma } = rated[index]![0]!;
      return [hotkey, { mu, sigma }];
    }),
  );
}

/** mu - 3 sigma: skill that is almost certainly there. */
export function ordinalOf(rating: Rating): number {
  return rating.mu - ORDINAL_SIGMAS * rating.sigma;
}
