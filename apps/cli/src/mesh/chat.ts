// Asks the served model one question through the public endpoint, as any user would, and checks the receipt.
import { fromBinary } from "@bufbuild/protobuf";
import { type Receipt, ReceiptSchema } from "@covenant/contracts/grail";
import { CovenantError } from "@covenant/runtime";

/** An answer and the receipt that came with it. */
export interface ChatAnswer {
  answer: string;
  receipt: Receipt;
}

const requestTimeoutMs = 30_000;
const maxTokens = 16;

interface ChatBody {
  choices?: { message?: { content?: string } }[];
  covenant?: { receipt_url?: string };
  error?: { message?: string };
}

/** @throws CovenantError COV_SERVING_FAILED when the endpoint does not answer as the OpenAI API does. */
export async function askWithReceipt(
  apiUrl: string,
  model: string,
  question: string,
): Promise<ChatAnswer> {
  const body = (await requestJson(`${apiUrl}/v1/chat/completions`, {
    model,
    messages: [{ role: "user", content: question }],
    max_tokens: maxTokens,
    temperature: 0,
    covenant: { receipt: true },
  })) as ChatBody;
  const answer = body.choices?.[0]?.message?.content;
  const receiptUrl = body.covenant?.receipt_url;
  if (answer === undefined || !receiptUrl) {
    throw servingFailed(body.error?.message ?? "the answer has no text or no receipt");
  }
  const response = await fetch(new URL(receiptUrl, apiUrl), {
    headers: { accept: "application/x-protobuf" },
    signal: AbortSignal.timeout(requestTimeoutMs),
  });
  if (!response.ok) throw servingFailed(`the receipt answered ${response.status}`);
  const bytes = new Uint8Array(await response.arrayBuffer());
  return { answer, receipt: fromBinary(ReceiptSchema, bytes) };
}

/** Ids of the models that are served now. */
export async function servedModels(apiUrl: string): Promise<string[]> {
  const response = await fetch(`${apiUrl}/v1/models`, {
    signal: AbortSignal.timeout(requestTimeoutMs),
  });
  const body = (await response.json()) as { data?: { id: string }[] };
  return (body.data ?? []).map(({ id }) => id);
}

async function requestJson(url: string, body: unknown): Promise<unknown> {
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(requestTimeoutMs),
  });
  return response.json();
}

function servingFailed(why: string): CovenantError {
  return new CovenantError("COV_SERVING_FAILED", `The model could not be asked: ${why}.`, {
    remedy: "Read the log of the task replica-1 (`covenant logs inference replica-1`).",
  });
}
