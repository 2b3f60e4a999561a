import type { IncomingMessage, ServerResponse } from "node:http";
import { toBinary, toJson } from "@bufbuild/protobuf";
import { toHex } from "@covenant/contracts";
import type { Model } from "@covenant/contracts/basilica";
import { ReceiptSchema } from "@covenant/contracts/grail";
import type { Clock } from "@covenant/runtime";
import type { InferenceRouter } from "../inference/router.ts";
import type { AnswerKind } from "./answer.ts";
import { Answer } from "./answer.ts";
import type { RunEvent } from "./completion-run.ts";
import { newRunIds, runRequest } from "./completion-run.ts";
import { OpenAiError } from "./errors.ts";
import { clientSignal, EventStream, readJsonBody, sendJson } from "./http-util.ts";
import { readChatRequest, readCompletionRequest } from "./request.ts";

/** What the handlers work with. */
export interface HandlerModules {
  readonly router: InferenceRouter;
  readonly clock: Clock;
}

/** GET /v1/models */
export async function listModels(
  response: ServerResponse,
  { router }: HandlerModules,
): Promise<void> {
  const models = await router.models();
  sendJson(response, 200, { object: "list", data: models.map(describeModel) });
}

/** GET /v1/models/{id} */
export async function getModel(
  id: string,
  response: ServerResponse,
  { router }: HandlerModules,
): Promise<void> {
  const model = (await router.models()).find((entry) => entry.id === id);
  if (model === undefined) {
    const code = "model_not_found";
    throw new OpenAiError(404, `model "${id}" is not being served`, { code, param: "model" });
  }
  sendJson(response, 200, describeModel(model));
}

function describeModel(model: Model): object {
  return {
    id: model.id,
    object: "model",
    created: Math.floor(Number(model.createdAtMs) / 1_000),
    owned_by: "covenant",
    covenant: {
      checkpoint_root: toHex(model.checkpointRoot),
      context_tokens: model.config?.maxPositionEmbeddings ?? 0,
    },
  };
}

/** POST /v1/chat/completions and POST /v1/completions */
export async function complete(
  kind: AnswerKind,
  request: IncomingMessage,
  response: ServerResponse,
  modules: HandlerModules & { readonly bodyBytesMax: number },
): Promise<void> {
  const signal = clientSignal(response);
  const body = await readJsonBody(request, modules.bodyBytesMax);
  const asked = kind === "chat" ? readChatRequest(body) : readCompletionRequest(body);
  await modules.router.requireModel(asked.model);
  const ids = newRunIds(kind === "chat" ? "chatcmpl" : "cmpl", asked.prompts.length);
  const answer = new Answer({ kind, request: asked, ids, nowMs: modules.clock.nowMs() });
  const events = runRequest(asked, ids, modules.router, signal);
  if (asked.stream) {
    await streamAnswer(events, answer, response);
  } else {
    for await (const event of events) answer.add(event);
    sendJson(response, 200, answer.whole());
  }
}

async function streamAnswer(
  events: AsyncGenerator<RunEvent>,
  answer: Answer,
  response: ServerResponse,
): Promise<void> {
  // Headers wait for the first event, so that early errors have their own status.
  let stream: EventStream | undefined;
  const begun = new Set<number>();
  for await (const event of events) {
    stream ??= new EventStream(response);
    if (event.type === "piece") {
      await stream.send(answer.chunk(event, !begun.has(event.index)));
      begun.add(event.index);
    } else {
      answer.add(event);
    }
  }
  stream ??= new EventStream(response);
  const last = answer.lastChunk();
  if (last !== undefined) await stream.send(last);
  await stream.send("[DONE]");
  stream.end();
}

/** GET /v1/receipts/{completion_id}: protobuf, or JSON when that is accepted. */
export async function getReceipt(
  completionId: string,
  choice: number,
  request: IncomingMessage,
  response: ServerResponse,
  { router }: HandlerModules,
): Promise<void> {
  if (!Number.isSafeInteger(choice) || choice < 0 || choice > 0xffff) {
    throw new OpenAiError(400, "choice must be a small whole number", { param: "choice" });
  }
  const { receipt } = await router.receipt(completionId, choice);
  if (receipt === undefined) throw new OpenAiError(502, "the replica sent no receipt");
  if ((request.headers.accept ?? "").includes("json")) {
    sendJson(response, 200, toJson(ReceiptSchema, receipt) as object);
    return;
  }
  const bytes = toBinary(ReceiptSchema, receipt);
  response.writeHead(200, {
    "content-type": "application/x-protobuf",
    "content-length": bytes.length,
    "content-disposition": `attachment; filename="${completionId}.receipt.pb"`,
  });
  response.end(bytes);
}
