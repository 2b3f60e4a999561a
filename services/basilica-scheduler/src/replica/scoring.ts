import { create } from "@bufbuild/protobuf";
import type { Alternative, TokenLogProb } from "@covenant/contracts/basilica";
import { AlternativeSchema, TokenLogProbSchema } from "@covenant/contracts/basilica";
import type { Model } from "@covenant/kernels";
import type { Tokenizer } from "@covenant/models";

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** Log-probabilities of a text's tokens; the first has none. */
export interface ScoredToken {
  readonly token: number;
  readonly logProb: number | undefined;
  readonly alternatives: readonly { readonly token: number; readonly logProb: number }[];
}

/** Scores every token but the first by one forward pass, with so many alternatives each. */
export async function scoreTokens(
  model: Pick<Model, "forward">,
  tokens: Int32Array,
  alternatives: number,
): Promise<ScoredToken[]> {
  if (tokens.length < 2) return Array.from(tokens, (token) => unscored(token));
  const inputs = tokens.slice(0, -1);
  const targets = tokens.slice(1);
  const batch = { tokens: inputs, targets, sequences: 1, sequenceLength: inputs.length };
  const result = await model.forward(batch, { topLogProbs: alternatives });
  const scored = Array.from(targets, (token, position) => ({
    token,
    logProb: result.logProbs[position]!,
    alternatives: Array.from({ length: alternatives }, (_, rank) => ({
      token: result.topTokens![position * alternatives + rank]!,
      logProb: result.topLogProbs![position * alternatives + rank]!,
    })),
  }));
  return [unscored(tokens[0]!), ...scored];
}

function unscored(token: number): ScoredToken {
  return { token, logProb: undefined, alternatives: [] };
}

/** A token as callers see it; `offset` counts bytes of prompt and completion. */
export function describeToken(
  tokenizer: Tokenizer,
  scored: ScoredToken,
  offset: number,
): TokenLogProb {
  const textBytes = tokenizer.decodeBytes([scored.token]);
  return create(TokenLogProbSchema, {
    token: scored.token,
    text: decoder.decode(textBytes),
    textBytes,
    textOffset: offset,
    alternatives: scored.alternatives.map((entry) => describeAlternative(tokenizer, entry)),
    ...(scored.logProb !== undefined && { logProb: finite(scored.logProb) }),
  });
}

function describeAlternative(
  tokenizer: Tokenizer,
  { token, logProb }: { token: number; logProb: number },
): Alternative {
  const textBytes = tokenizer.decodeBytes([token]);
  const text = decoder.decode(textBytes);
  return create(AlternativeSchema, { token, text, textBytes, logProb: finite(logProb) });
}

/** JSON has no infinity: a probability of 0 is told as one that nothing can tell from 0. */
function finite(logProb: number): number {
  return Number.isFinite(logProb) ? logProb : -1e4;
}
