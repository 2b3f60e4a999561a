// The endpoint as OpenAI clients and evaluation harnesses use it.
import assert from "node:assert/strict";

interface Completion {
  choices: {
    text: string;
    logprobs: { tokens: string[]; token_logprobs: (number | null)[] };
  }[];
  usage: { prompt_tokens: number };
}

/** Lists, completes, scores with echo, streams, and gets a clear refusal for an unknown model. */
export async function useEndpoint(baseUrl: string): Promise<void> {
  const post = (url: string, body: unknown) =>
    fetch(`${baseUrl}${url}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: typeof body === "string" ? body : JSON.stringify(body),
    });
  const models = (await (await fetch(`${baseUrl}/v1/models`)).json()) as { data: { id: string }[] };
  const model = models.data[0]!.id;

  // Log-likelihood of a text, the way evaluation harnesses ask for it.
  const scored = (await (
    await post("/v1/completions", {
      model,
      prompt: "To be, or not to be",
      max_tokens: 0,
      echo: true,
      logprobs: 1,
    })
  ).json()) as Completion;
  const { tokens, token_logprobs: logProbs } = scored.choices[0]!.logprobs;
  assert.equal(tokens.join(""), "To be, or not to be");
  assert.equal(logProbs[0], null);
  assert.ok(logProbs.slice(1).every((value) => typeof value === "number" && value <= 0));
  assert.equal(scored.usage.prompt_tokens, tokens.length);

  const streamed = await post("/v1/chat/completions", {
    model,
    messages: [{ role: "user", content: "1+1=" }],
    max_tokens: 8,
    stream: true,
  });
  assert.match(streamed.headers.get("content-type") ?? "", /text\/event-stream/);
  const events = (await streamed.text()).split("\n\n").filter((line) => line.startsWith("data: "));
  assert.equal(events.at(-1), "data: [DONE]");
  assert.ok(events.length >= 2);

  const unknown = await post("/v1/chat/completions", {
    model: "nobody",
    messages: [{ role: "user", content: "hello" }],
  });
  assert.equal(unknown.status, 404);
  const garbage = await post("/v1/chat/completions", "{ not json");
  assert.equal(garbage.status, 400);
}
