// Between an environment's text and the model's tokens: one way in, one way out, used by everybody.
import { type Environment, type TokenRow, workedExample } from "@covenant/grail";
import { encodeChat, stopTokens, type Tokenizer } from "@covenant/models";

/** Tokens of an episode's prompt, ending where the assistant begins. */
export function promptTokens(
  tokenizer: Tokenizer,
  environment: Environment,
  seed: bigint,
): Int32Array {
  const { messages } = environment.reset(seed);
  return tokenizer.applyChatTemplate([...messages], { addGenerationPrompt: true });
}

/**
 * Text of a completion for grading: without its stop token, but with any other special token spelled
 * out, so that what the grader skips is never something that the model learns from.
 */
export function gradedText(tokenizer: Tokenizer, tokens: ArrayLike<number>): string {
  const stops = new Set(stopTokens(tokenizer));
  const ids = Array.from(tokens);
  if (ids.length > 0 && stops.has(ids.at(-1)!)) ids.pop();
  return tokenizer.decode(ids);
}

/** Reward of a completion of an episode. */
export function rewardOf(
  tokenizer: Tokenizer,
  environment: Environment,
  seed: bigint,
  tokens: ArrayLike<number>,
): number {
  return environment.score(environment.reset(seed), gradedText(tokenizer, tokens)).reward;
}

/** A worked example as a row: loss on what the assistant says and on its closing token. */
export function exampleRow(tokenizer: Tokenizer, environment: Environment, seed: bigint): TokenRow {
  const { tokens, learned } = encodeChat(tokenizer, workedExample(environment, seed));
  return { tokens, scoredFrom: learned.indexOf(1) };
}
