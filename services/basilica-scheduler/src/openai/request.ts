import { z } from "zod";
import { invalidRequest } from "./errors.ts";

/** Bounds of one request. */
export const requestLimits = {
  choicesMax: 16,
  promptsMax: 128,
  alternativesMax: 20,
  stopsMax: 16,
  messagesMax: 1_024,
  newTokensMax: 32_768,
} as const;

/** New tokens when the request does not say, as in OpenAI's completions API. */
const completionTokensDefault = 16;
/** New tokens of a chat answer when the request does not say. */
const chatTokensDefault = 256;

/** What is asked about: a conversation, a text or tokens. */
export type Prompt =
  | { readonly kind: "chat"; readonly messages: readonly { role: string; content: string }[] }
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "tokens"; readonly tokens: readonly number[] };

/** A checked request of either endpoint. */
export interface OpenAiRequest {
  readonly model: string;
  readonly prompts: readonly Prompt[];
  readonly n: number;
  readonly maxTokens: number;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly seed: bigint | undefined;
  readonly stop: readonly string[];
  /** Alternatives per token; undefined when no log-probabilities are asked for. */
  readonly logProbs: number | undefined;
  readonly echo: boolean;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  readonly wantReceipt: boolean;
}

const nullable = <T extends z.ZodType>(schema: T) =>
  schema.nullish().transform((value) => value ?? undefined);
const stopSchema = z.union([
  z.string().transform((text) => [text]),
  z.array(z.string()).max(requestLimits.stopsMax),
]);

/** Fields that both endpoints share. Unknown fields are ignored, as clients send many. */
const sharedFields = {
  model: z.string().max(256),
  n: nullable(z.int().min(1).max(requestLimits.choicesMax)),
  temperature: nullable(z.number().min(0).max(2)),
  top_p: nullable(z.number().gt(0).max(1)),
  top_k: nullable(z.int().min(0)),
  seed: nullable(z.int()),
  stop: nullable(stopSchema),
  stream: nullable(z.boolean()),
  stream_options: nullable(z.object({ include_usage: nullable(z.boolean()) })),
  covenant: nullable(z.object({ receipt: nullable(z.boolean()) })),
};

const tokenList = z.array(z.int().min(0));
const completionSchema = z.object({
  ...sharedFields,
  prompt: z
    .union([
      z.string(),
      z.array(z.string()).min(1).max(requestLimits.promptsMax),
      tokenList.min(1),
      z.array(tokenList.min(1)).min(1).max(requestLimits.promptsMax),
    ])
    .nullish(),
  max_tokens: nullable(z.int().min(0).max(requestLimits.newTokensMax)),
  logprobs: nullable(z.int().min(0).max(requestLimits.alternativesMax)),
  echo: nullable(z.boolean()),
});

const contentSchema = z.union([
  z.string(),
  z
    .array(z.object({ type: z.literal("text"), text: z.string() }))
    .transform((parts) => parts.map((part) => part.text).join("")),
]);
const chatSchema = z.object({
  ...sharedFields,
  messages: z
    .array(z.object({ role: z.string().regex(/^[a-z_]{1,32}$/), content: contentSchema }))
    .min(1)
    .max(requestLimits.messagesMax),
  max_tokens: nullable(z.int().min(1).max(requestLimits.newTokensMax)),
  max_completion_tokens: nullable(z.int().min(1).max(requestLimits.newTokensMax)),
  logprobs: nullable(z.boolean()),
  top_logprobs: nullable(z.int().min(0).max(requestLimits.alternativesMax)),
});

/** Reads the body of POST /v1/completions; throws what the client is told. */
export function readCompletionRequest(body: unknown): OpenAiRequest {
  refuseUnsupported(body, ["suffix", "best_of"]);
  const request = check(completionSchema, body);
  const echo = request.echo ?? false;
  const maxTokens = request.max_tokens ?? completionTokensDefault;
  if (maxTokens === 0 && !echo) {
    throw invalidRequest("max_tokens 0 needs echo: there would be nothing to answer", "max_tokens");
  }
  return {
    ...readShared(request),
    prompts: readPrompts(request.prompt ?? ""),
    maxTokens,
    logProbs: request.logprobs,
    echo,
  };
}

/** Reads the body of POST /v1/chat/completions; throws what the client is told. */
export function readChatRequest(body: unknown): OpenAiRequest {
  refuseUnsupported(body, ["tools", "functions", "audio", "prediction"]);
  refuseResponseFormat(body);
  const request = check(chatSchema, body);
  if (request.top_logprobs !== undefined && request.logprobs !== true) {
    throw invalidRequest("top_logprobs needs logprobs to be true", "top_logprobs");
  }
  const logProbs = request.logprobs === true ? (request.top_logprobs ?? 0) : undefined;
  return {
    ...readShared(request),
    prompts: [{ kind: "chat", messages: request.messages }],
    maxTokens: request.max_completion_tokens ?? request.max_tokens ?? chatTokensDefault,
    logProbs,
    echo: false,
  };
}

type Shared = z.output<z.ZodObject<typeof sharedFields>>;

function readShared(request: Shared) {
  return {
    model: request.model,
    n: request.n ?? 1,
    temperature: request.temperature ?? 1,
    topP: request.top_p ?? 1,
    topK: request.top_k ?? 0,
    // Negative seeds are as good as others; the mesh counts them modulo 2^64.
    seed: request.seed === undefined ? undefined : BigInt.asUintN(64, BigInt(request.seed)),
    stop: (request.stop ?? []).filter((text) => text !== ""),
    stream: request.stream ?? false,
    includeUsage: request.stream_options?.include_usage ?? false,
    wantReceipt: request.covenant?.receipt ?? false,
  };
}

function readPrompts(prompt: string | readonly (string | number | readonly number[])[]): Prompt[] {
  if (typeof prompt === "string") return [{ kind: "text", text: prompt }];
  if (typeof prompt[0] === "number")
    return [{ kind: "tokens", tokens: prompt as readonly number[] }];
  return (prompt as readonly (string | readonly number[])[]).map((entry) =>
    typeof entry === "string" ? { kind: "text", text: entry } : { kind: "tokens", tokens: entry },
  );
}

/** Parameters that would change the answer and that this server does not implement. */
const neutral: Readonly<Record<string, unknown>> = {
  presence_penalty: 0,
  frequency_penalty: 0,
  best_of: 1,
  suffix: "",
};

function refuseUnsupported(body: unknown, fields: readonly string[]): void {
  if (typeof body !== "object" || body === null) return;
  const all = [...fields, "presence_penalty", "frequency_penalty", "logit_bias"];
  for (const [field, value] of Object.entries(body)) {
    if (!all.includes(field) || value === null || value === undefined) continue;
    if (value === neutral[field]) continue;
    if (typeof value === "object" && Object.keys(value).length === 0) continue;
    throw invalidRequest(`${field} is not supported`, field, "unsupported_parameter");
  }
}

function refuseResponseFormat(body: unknown): void {
  const format = (body as { response_format?: { type?: unknown } | null } | null)?.response_format;
  if (format === undefined || format === null || format.type === "text") return;
  throw invalidRequest("only the response format text is supported", "response_format");
}

function check<T extends z.ZodType>(schema: T, body: unknown): z.output<T> {
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    throw invalidRequest("the body must be a JSON object");
  }
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const param = issue?.path.join(".") ?? "";
  throw invalidRequest(`${param === "" ? "body" : param}: ${issue?.message ?? "is wrong"}`, param);
}
