import { randomBytes } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import type { CompletionPiece, CompletionSummary } from "@covenant/contracts/basilica";
import { CompleteRequestSchema } from "@covenant/contracts/basilica";
import type { InferenceRouter } from "../inference/router.ts";
import { invalidRequest, OpenAiError } from "./errors.ts";
import type { OpenAiRequest, Prompt } from "./request.ts";

/** Prompts of one request that are worked on at once. */
const promptsAtOnceMax = 16;

/** What happens while a request runs; `index` counts choices over all prompts. */
export type RunEvent =
  | { readonly type: "piece"; readonly index: number; readonly piece: CompletionPiece }
  | { readonly type: "summary"; readonly prompt: number; readonly summary: CompletionSummary };

/** Ids of one request: `chatcmpl-…` or `cmpl-…`, and one completion id for each prompt. */
export interface RunIds {
  readonly id: string;
  readonly completionIds: readonly string[];
}

/** Draws ids that nobody can guess. */
export function newRunIds(prefix: string, prompts: number): RunIds {
  const id = `${prefix}-${randomBytes(12).toString("hex")}`;
  const completionIds = Array.from({ length: prompts }, (_, i) => (i === 0 ? id : `${id}-${i}`));
  return { id, completionIds };
}

/**
 * Runs all prompts of a request, some at once, and yields what comes in. The first error ends the
 * run; ending the iteration cancels what still runs.
 */
export async function* runRequest(
  request: OpenAiRequest,
  ids: RunIds,
  router: InferenceRouter,
  signal: AbortSignal,
): AsyncGenerator<RunEvent> {
  const over = new AbortController();
  const runSignal = AbortSignal.any([signal, over.signal]);
  const active = new Map<number, Promise<{ prompt: number; next: IteratorResult<RunEvent> }>>();
  const runs: AsyncGenerator<RunEvent>[] = [];
  const advance = (prompt: number): void => {
    active.set(
      prompt,
      runs[prompt]!.next().then((next) => ({ prompt, next })),
    );
  };
  try {
    let started = 0;
    while (started < request.prompts.length || active.size > 0) {
      while (started < request.prompts.length && active.size < promptsAtOnceMax) {
        runs.push(runPrompt(request, ids, started, router, runSignal));
        advance(started);
        started += 1;
      }
      const { prompt, next } = await Promise.race(active.values());
      active.delete(prompt);
      if (next.done) continue;
      advance(prompt);
      yield next.value;
    }
  } finally {
    over.abort();
    for (const pending of active.values()) pending.catch(() => undefined);
  }
}

async function* runPrompt(
  request: OpenAiRequest,
  ids: RunIds,
  prompt: number,
  router: InferenceRouter,
  signal: AbortSignal,
): AsyncGenerator<RunEvent> {
  const message = create(CompleteRequestSchema, {
    model: request.model,
    ...promptFields(request.prompts[prompt]!),
    sampling: {
      temperature: request.temperature,
      topK: request.topK,
      topP: request.topP,
      maxNewTokens: request.maxTokens,
    },
    n: request.n,
    stop: [...request.stop],
    echo: request.echo,
    wantReceipt: request.wantReceipt,
    completionId: ids.completionIds[prompt]!,
    ...(request.seed !== undefined && { seed: request.seed }),
    ...(request.logProbs !== undefined && { logProbs: request.logProbs }),
  });
  let finished = false;
  for await (const { item } of router.complete(message, signal)) {
    if (item.case === "piece") {
      const index = prompt * request.n + item.value.choice;
      yield { type: "piece", index, piece: item.value };
    } else if (item.case === "summary") {
      finished = true;
      yield { type: "summary", prompt, summary: item.value };
    }
  }
  if (!finished) throw new OpenAiError(502, "the replica ended its answer too early");
}

function promptFields(prompt: Prompt) {
  switch (prompt.kind) {
    case "chat":
      return { messages: [...prompt.messages] };
    case "text":
      return { prompt: prompt.text };
    case "tokens": {
      const tooLarge = prompt.tokens.some((token) => token > 0xffffffff);
      if (tooLarge) throw invalidRequest("prompt: a token is out of range", "prompt");
      return { promptTokens: [...prompt.tokens] };
    }
  }
}
