// The OpenAI-compatible endpoint as its clients see it: real processes, a tiny random model.
import assert from "node:assert/strict";
import { once } from "node:events";
import { request as httpRequest } from "node:http";
import { after, before, test } from "node:test";
import { fromBinary, fromJson } from "@bufbuild/protobuf";
import { toHex } from "@covenant/contracts";
import { ProofReason, ReceiptSchema } from "@covenant/contracts/grail";
import type { InferenceMesh } from "../../services/basilica-scheduler/src/testing/inference.fixture.ts";
import {
  contextTokens,
  modelName as model,
  startInferenceMesh,
} from "../../services/basilica-scheduler/src/testing/inference.fixture.ts";
import { eventually } from "../../services/basilica-scheduler/src/testing/processes.fixture.ts";

let serving: InferenceMesh;

before(async () => {
  serving = await startInferenceMesh(2);
});

after(() => serving?.close());

// biome-ignore lint/suspicious/noExplicitAny: answers are read as a client without types reads them.
type Answer = any;

async function post(path: string, body: unknown, headers: Record<string, string> = {}) {
  const response = await fetch(`${serving.url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });
  return {
    status: response.status,
    headers: response.headers,
    body: (await response.json()) as Answer,
  };
}

async function complete(body: object): Promise<Answer> {
  const answer = await post("/completions", { model, ...body });
  assert.equal(answer.status, 200, JSON.stringify(answer.body));
  return answer.body;
}

/** Events of a stream, and whether it ended as it should. */
async function stream(path: string, body: object): Promise<{ chunks: Answer[]; done: boolean }> {
  const response = await fetch(`${serving.url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model, stream: true, ...body }),
  });
  assert.equal(response.status, 200);
  assert.match(response.headers.get("content-type") ?? "", /^text\/event-stream/);
  const events = (await response.text()).split("\n\n").filter((event) => event !== "");
  const data = events.map((event) => event.replace(/^data: /, ""));
  const done = data.at(-1) === "[DONE]";
  return { chunks: data.filter((text) => text !== "[DONE]").map((text) => JSON.parse(text)), done };
}

test("models are listed with the checkpoint they are served from", async () => {
  const list = (await (await fetch(`${serving.url}/models`)).json()) as Answer;
  assert.equal(list.object, "list");
  assert.deepEqual(
    list.data.map((entry: Answer) => [entry.id, entry.object, entry.covenant.checkpoint_root]),
    [[model, "model", toHex(serving.checkpointRoot)]],
  );
  const one = (await (await fetch(`${serving.url}/models/${model}`)).json()) as Answer;
  assert.equal(one.id, model);
  assert.equal((await fetch(`${serving.url}/models/other`)).status, 404);
});

test("a chat answer has OpenAI's shape", async () => {
  const messages = [
    { role: "user", content: "Hello" },
    { role: "assistant", content: [{ type: "text", text: "Hi" }] },
    { role: "user", content: "12 + 34 =" },
  ];
  const { status, body } = await post("/chat/completions", {
    model,
    messages,
    max_tokens: 6,
    seed: 1,
  });
  assert.equal(status, 200);
  assert.match(body.id, /^chatcmpl-/);
  assert.equal(body.object, "chat.completion");
  assert.equal(body.model, model);
  const [choice] = body.choices;
  assert.equal(choice.message.role, "assistant");
  assert.equal(typeof choice.message.content, "string");
  assert.equal(choice.logprobs, null);
  assert.ok(["stop", "length"].includes(choice.finish_reason));
  const { prompt_tokens, completion_tokens, total_tokens } = body.usage;
  assert.ok(completion_tokens >= 1 && completion_tokens <= 6);
  assert.equal(total_tokens, prompt_tokens + completion_tokens);
});

test("one seed gives one answer, from either replica, streamed or whole; choices differ", async () => {
  const body = { prompt: "The quick", max_tokens: 20, seed: 42, temperature: 1, n: 3 };
  const answers = await Promise.all([1, 2, 3, 4].map(() => complete(body)));
  const texts = answers.map((answer) => answer.choices.map((choice: Answer) => choice.text));
  for (const other of texts) assert.deepEqual(other, texts[0]);
  assert.equal(new Set(texts[0]).size, 3);
  const { chunks, done } = await stream("/completions", body);
  assert.ok(done);
  const streamed = ["", "", ""];
  for (const chunk of chunks)
    for (const choice of chunk.choices) streamed[choice.index] += choice.text;
  assert.deepEqual(streamed, texts[0]);
});

test("without a seed answers vary; temperature 0 does not", async () => {
  const free = await Promise.all(
    Array.from({ length: 6 }, () => complete({ prompt: "fox", max_tokens: 16, temperature: 1.2 })),
  );
  assert.ok(new Set(free.map((answer) => answer.choices[0].text)).size > 1);
  const greedy = await Promise.all(
    Array.from({ length: 3 }, () => complete({ prompt: "fox", max_tokens: 16, temperature: 0 })),
  );
  assert.equal(new Set(greedy.map((answer) => answer.choices[0].text)).size, 1);
});

test("a chat stream begins with the role, ends with the reason, usage when asked, and [DONE]", async () => {
  const messages = [{ role: "user", content: "Hello" }];
  const body = { messages, max_tokens: 8, seed: 3, stream_options: { include_usage: true } };
  const { chunks, done } = await stream("/chat/completions", body);
  assert.ok(done);
  assert.ok(chunks.every((chunk) => chunk.object === "chat.completion.chunk"));
  assert.equal(new Set(chunks.map((chunk) => chunk.id)).size, 1);
  assert.equal(chunks[0].choices[0].delta.role, "assistant");
  const last = chunks.at(-1);
  assert.deepEqual(last.choices, []);
  assert.ok(last.usage.completion_tokens >= 1);
  const finished = chunks.filter((chunk) => chunk.choices[0]?.finish_reason);
  assert.equal(finished.length, 1);
  const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
  const whole = await post("/chat/completions", { model, messages, max_tokens: 8, seed: 3 });
  assert.equal(text, whole.body.choices[0].message.content);
});

test("stop strings end the answer before them, and never show even in part", async () => {
  const body = { prompt: "The quick", max_tokens: 40, seed: 5, temperature: 1 };
  const full = (await complete(body)).choices[0].text as string;
  const characters = [...full];
  const stop = characters.slice(6, 9).join("");
  const expected = full.slice(0, full.indexOf(stop));
  const cut = await complete({ ...body, stop });
  assert.equal(cut.choices[0].text, expected);
  assert.equal(cut.choices[0].finish_reason, "stop");
  assert.ok(cut.usage.completion_tokens < (await complete(body)).usage.completion_tokens + 1);
  const { chunks } = await stream("/completions", { ...body, stop: ["never there", stop] });
  const streamed = chunks.map((chunk) => chunk.choices[0]?.text ?? "").join("");
  assert.equal(streamed, expected);
});

test("echo with log-probabilities and max_tokens 0 scores a text, as evaluation harnesses ask", async () => {
  const prompt = "The quick brown fox";
  const scored = await complete({ prompt, max_tokens: 0, echo: true, logprobs: 2, temperature: 0 });
  const [choice] = scored.choices;
  assert.equal(choice.text, prompt);
  const { tokens, token_logprobs, top_logprobs, text_offset } = choice.logprobs;
  const ids = serving.tokenizer.encode(prompt);
  assert.equal(tokens.length, ids.length);
  assert.equal(tokens.join(""), prompt);
  assert.equal(token_logprobs[0], null);
  assert.equal(top_logprobs[0], null);
  assert.ok(token_logprobs.slice(1).every((value: number) => value < 0));
  for (const [index, token] of tokens.entries()) {
    assert.equal(prompt.slice(text_offset[index]).startsWith(token), true);
    if (index === 0) continue;
    assert.equal(top_logprobs[index][token], token_logprobs[index]);
    const best = Math.max(...(Object.values(top_logprobs[index]) as number[]));
    assert.ok(best >= token_logprobs[index]);
  }
  assert.equal(scored.usage.completion_tokens, 0);
  // Asked by tokens, and with one generated token as other harnesses do, the numbers are the same.
  const again = await complete({
    prompt: [[...ids]],
    max_tokens: 1,
    echo: true,
    logprobs: 2,
    temperature: 0,
  });
  const { token_logprobs: others } = again.choices[0].logprobs;
  assert.equal(others.length, ids.length + 1);
  assert.deepEqual(others.slice(0, -1), token_logprobs);
});

test("greedy continuations are the most likely tokens by their own log-probabilities", async () => {
  const answer = await complete({ prompt: "lazy", max_tokens: 6, logprobs: 3, temperature: 0 });
  const { token_logprobs, top_logprobs } = answer.choices[0].logprobs;
  assert.equal(token_logprobs.length, answer.usage.completion_tokens);
  for (const [index, value] of token_logprobs.entries()) {
    assert.equal(Math.max(...(Object.values(top_logprobs[index]) as number[])), value);
  }
});

test("chat log-probabilities carry bytes and alternatives", async () => {
  const messages = [{ role: "user", content: "Größe" }];
  const body = { messages, max_tokens: 5, seed: 9, logprobs: true, top_logprobs: 4 };
  const whole = await post("/chat/completions", { model, ...body });
  const { content } = whole.body.choices[0].logprobs;
  assert.equal(content.length, whole.body.usage.completion_tokens);
  for (const entry of content) {
    assert.ok(entry.logprob <= 0);
    assert.equal(entry.top_logprobs.length, 4);
    assert.ok(entry.bytes.every((byte: number) => byte >= 0 && byte < 256));
  }
  const { chunks } = await stream("/chat/completions", body);
  const streamed = chunks.flatMap((chunk) => chunk.choices[0]?.logprobs?.content ?? []);
  assert.deepEqual(streamed, content);
});

test("several prompts and choices come back in order, with one usage", async () => {
  const prompts = ["The", "quick brown", "fox jumps"];
  const body = { prompt: prompts, n: 2, max_tokens: 4, seed: 7, echo: true };
  const answer = await complete(body);
  assert.deepEqual(
    answer.choices.map((choice: Answer) => choice.index),
    [0, 1, 2, 3, 4, 5],
  );
  for (const [index, choice] of answer.choices.entries()) {
    assert.ok(choice.text.startsWith(prompts[Math.floor(index / 2)]));
  }
  const expected = prompts.reduce((sum, text) => sum + serving.tokenizer.encode(text).length, 0);
  assert.equal(answer.usage.prompt_tokens, expected);
});

test("a receipt is offered, fetched in both forms, and verified by replay; a changed one is not", async () => {
  const messages = [{ role: "user", content: "12 + 34 =" }];
  for (const extra of [{}, { seed: 11 }, { stop: ["e", "a", "o"], temperature: 1.5 }]) {
    const body = { model, messages, max_tokens: 12, covenant: { receipt: true }, ...extra };
    const answer = await post("/chat/completions", body);
    const { receipt_id, receipt_url } = answer.body.covenant;
    assert.equal(receipt_id, answer.body.id);
    const base = new URL(serving.url).origin;
    const binary = await fetch(`${base}${receipt_url}`);
    assert.equal(binary.headers.get("content-type"), "application/x-protobuf");
    const receipt = fromBinary(ReceiptSchema, new Uint8Array(await binary.arrayBuffer()));
    const json = await fetch(`${base}${receipt_url}`, { headers: { accept: "application/json" } });
    assert.deepEqual(fromJson(ReceiptSchema, (await json.json()) as never), receipt);
    assert.equal(receipt.signature?.hotkey, serving.replicaAddress);
    assert.equal(receipt.commitment?.statement?.contractId, receipt_id);
    const shown = serving.tokenizer.decode(receipt.commitment?.completionTokens ?? [], {
      skipSpecial: true,
    });
    assert.ok(shown.startsWith(answer.body.choices[0].message.content));
    const good = await serving.mesh.inference.verifyReceipt({ receipt });
    assert.ok(good.verified, good.explanation);
    assert.equal(good.reason, ProofReason.VERIFIED);
    receipt.model = "another";
    const bad = await serving.mesh.inference.verifyReceipt({ receipt });
    assert.equal(bad.reason, ProofReason.BAD_SIGNATURE);
  }
  const unknown = await fetch(`${serving.url}/receipts/cmpl-unknown-0000`);
  assert.equal(unknown.status, 404);
});

test("streams offer receipts on their last chunk, one for each choice", async () => {
  const body = { prompt: "fox", max_tokens: 5, n: 2, covenant: { receipt: true } };
  const { chunks } = await stream("/completions", body);
  const { receipts } = chunks.at(-1).covenant;
  assert.equal(receipts.length, 2);
  for (const { receipt_url } of receipts) {
    const response = await fetch(`${new URL(serving.url).origin}${receipt_url}`);
    const receipt = fromBinary(ReceiptSchema, new Uint8Array(await response.arrayBuffer()));
    assert.ok((await serving.mesh.inference.verifyReceipt({ receipt })).verified);
  }
});

test("what is wrong is told in OpenAI's shape with the right status", async () => {
  const messages = [{ role: "user", content: "x" }];
  const cases: [string, unknown, number, string | null, string | null][] = [
    ["/chat/completions", "{not json", 400, null, null],
    ["/chat/completions", "[]", 400, null, null],
    ["/chat/completions", { model, messages: "hi" }, 400, "messages", null],
    ["/chat/completions", { model, messages: [] }, 400, "messages", null],
    ["/chat/completions", { messages }, 400, "model", null],
    ["/chat/completions", { model: "gpt-9", messages }, 404, "model", "model_not_found"],
    ["/chat/completions", { model, messages, temperature: "hot" }, 400, "temperature", null],
    ["/chat/completions", { model, messages, n: 100 }, 400, "n", null],
    ["/chat/completions", { model, messages, top_logprobs: 3 }, 400, "top_logprobs", null],
    ["/chat/completions", { model, messages, tools: [{}] }, 400, "tools", "unsupported_parameter"],
    ["/completions", { model, prompt: 5 }, 400, "prompt", null],
    ["/completions", { model, prompt: [999_999] }, 400, "prompt_tokens", null],
    ["/completions", { model, prompt: "x", max_tokens: 0 }, 400, "max_tokens", null],
    ["/completions", { model, prompt: "x", logprobs: true }, 400, "logprobs", null],
    [
      "/completions",
      { model, prompt: "x", presence_penalty: 1 },
      400,
      "presence_penalty",
      "unsupported_parameter",
    ],
  ];
  for (const [path, body, status, param, code] of cases) {
    const answer = await post(path, body);
    const what = JSON.stringify(body);
    assert.equal(answer.status, status, what);
    const { error } = answer.body;
    assert.deepEqual(Object.keys(error).sort(), ["code", "message", "param", "type"], what);
    assert.equal(error.type, "invalid_request_error", what);
    if (param !== null) assert.equal(error.param, param, what);
    assert.equal(error.code, code, what);
  }
  const long = "fox ".repeat(contextTokens);
  const tooLong = await post("/completions", { model, prompt: long });
  assert.equal(tooLong.status, 400);
  assert.equal(tooLong.body.error.code, "context_length_exceeded");
  const streamed = await post("/completions", { model, prompt: long, stream: true });
  assert.equal(streamed.status, 400, "an early error of a stream has a status of its own");
  const nowhere = await fetch(`${serving.url}/nowhere`, { method: "POST" });
  assert.equal(nowhere.status, 404);
});

test("oversized bodies, other content types and foreign pages are refused", async () => {
  const huge = await post("/completions", { model, prompt: "x".repeat(5 * 1024 * 1024) });
  assert.equal(huge.status, 413);
  const form = await post("/completions", "a=b", {
    "content-type": "application/x-www-form-urlencoded",
  });
  assert.equal(form.status, 415);
  const foreign = await post(
    "/completions",
    { model, prompt: "x" },
    { origin: "https://evil.example" },
  );
  assert.equal(foreign.status, 403);
  const local = { origin: "http://localhost:5173" };
  const preflight = await fetch(`${serving.url}/completions`, {
    method: "OPTIONS",
    headers: local,
  });
  assert.equal(preflight.status, 204);
  assert.equal(preflight.headers.get("access-control-allow-origin"), local.origin);
});

test("a client that goes away ends the generation, and the next request is served", async () => {
  const url = new URL(`${serving.url}/completions`);
  const body = JSON.stringify({ model, prompt: "fox", max_tokens: 120, n: 16, stream: true });
  for (let i = 0; i < 8; i += 1) {
    const call = httpRequest(url, {
      method: "POST",
      headers: { "content-type": "application/json" },
    });
    call.end(body);
    const [response] = await once(call, "response");
    await once(response, "data");
    call.destroy();
  }
  const answer = await eventually("an answer after the abandoned ones", async () => {
    const next = await post("/completions", { model, prompt: "fox", max_tokens: 2 });
    return next.status === 200 ? next.body : undefined;
  });
  assert.equal(answer.object, "text_completion");
});

test("a killed replica costs no request: the other one answers, and the scheduler restarts it", async () => {
  const { jobs } = await serving.mesh.scheduler.listJobs({});
  const job = jobs.find((entry) => entry.spec?.name === "serving");
  const [victim] = job?.tasks ?? [];
  assert.ok(job !== undefined && victim !== undefined);
  process.kill(victim.pid, "SIGKILL");
  const answers = await Promise.all(
    Array.from({ length: 10 }, (_, seed) => complete({ prompt: "fox", max_tokens: 3, seed })),
  );
  assert.equal(answers.length, 10);
  await eventually("the replica serves again", async () => {
    const now = (await serving.mesh.scheduler.getJob({ jobId: job.id })).job?.tasks[0];
    return now !== undefined && now.pid !== victim.pid && now.endpoint !== "";
  });
});
