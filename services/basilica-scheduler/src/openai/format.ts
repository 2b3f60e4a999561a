import type { TokenLogProb } from "@covenant/contracts/basilica";
import type { CharacterCounter } from "./token-text.ts";
import { tokenName } from "./token-text.ts";

/** Log-probabilities in the form of /v1/completions; the first prompt token has none. */
export interface CompletionLogProbs {
  tokens: string[];
  token_logprobs: (number | null)[];
  top_logprobs: (Record<string, number> | null)[] | null;
  text_offset: number[];
}

/** Tokens of the completions form; the counter carries on from piece to piece. */
export function completionLogProbs(
  tokens: readonly TokenLogProb[],
  counter: CharacterCounter,
  alternatives: number,
): CompletionLogProbs {
  const offsets = tokens.map((token) => {
    const { offset } = counter;
    counter.add(token.textBytes);
    return offset;
  });
  return {
    tokens: tokens.map(tokenName),
    token_logprobs: tokens.map((token) => token.logProb ?? null),
    top_logprobs: alternatives === 0 ? null : tokens.map(topLogProbs),
    text_offset: offsets,
  };
}

/** The most likely tokens by name, the token itself among them. */
function topLogProbs(token: TokenLogProb): Record<string, number> | null {
  if (token.logProb === undefined) return null;
  const entries = token.alternatives.map((entry) => [tokenName(entry), entry.logProb] as const);
  return Object.fromEntries([...entries, [tokenName(token), token.logProb]]);
}

/** Joins the log-probabilities of pieces of one choice. */
export function joinCompletionLogProbs(parts: readonly CompletionLogProbs[]): CompletionLogProbs {
  const tops = parts.map((part) => part.top_logprobs);
  return {
    tokens: parts.flatMap((part) => part.tokens),
    token_logprobs: parts.flatMap((part) => part.token_logprobs),
    top_logprobs: tops.includes(null) ? null : tops.flatMap((top) => top ?? []),
    text_offset: parts.flatMap((part) => part.text_offset),
  };
}

/** Log-probabilities in the form of /v1/chat/completions. */
export function chatLogProbs(tokens: readonly TokenLogProb[]) {
  const content = tokens.map((token) => ({
    token: tokenName(token),
    logprob: token.logProb ?? 0,
    bytes: [...token.textBytes],
    top_logprobs: token.alternatives.map((entry) => ({
      token: tokenName(entry),
      logprob: entry.logProb,
      bytes: [...entry.textBytes],
    })),
  }));
  return { content, refusal: null };
}

/** Token counts of a whole request. */
export function usageOf(promptTokens: number, completionTokens: number) {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
  };
}
