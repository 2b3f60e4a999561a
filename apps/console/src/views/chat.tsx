// A question to the released model, its answer, and the receipt that says which model answered.
import { signal } from "@preact/signals";

interface Exchange {
  question: string;
  answer: string;
  receiptUrl: string | undefined;
  failed: boolean;
}

interface ChatCompletion {
  choices: { message: { content: string } }[];
  covenant?: { receipt_url?: string };
  error?: { message: string };
}

const exchanges = signal<readonly Exchange[]>([]);
const question = signal("");
const waiting = signal(false);

async function modelId(): Promise<string> {
  const response = await fetch("/v1/models");
  const body = (await response.json()) as { data?: { id: string }[] };
  const id = body.data?.[0]?.id;
  if (!id) throw new Error("No model is served yet; it appears when the run is released.");
  return id;
}

async function complete(text: string): Promise<Exchange> {
  const response = await fetch("/v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      model: await modelId(),
      messages: [{ role: "user", content: text }],
      max_tokens: 32,
      temperature: 0,
      covenant: { receipt: true },
    }),
  });
  const body = (await response.json()) as ChatCompletion;
  if (body.error) throw new Error(body.error.message);
  return {
    question: text,
    answer: body.choices[0]?.message.content ?? "",
    receiptUrl: body.covenant?.receipt_url,
    failed: false,
  };
}

async function ask(event: Event) {
  event.preventDefault();
  const text = question.value.trim();
  if (text === "" || waiting.value) return;
  waiting.value = true;
  const exchange = await complete(text).catch((error: unknown) => ({
    question: text,
    answer: error instanceof Error ? error.message : String(error),
    receiptUrl: undefined,
    failed: true,
  }));
  exchanges.value = [...exchanges.value, exchange];
  question.value = "";
  waiting.value = false;
}

export function Chat() {
  return (
    <div class="chat">
      <div aria-live="polite">
        {exchanges.value.map((exchange, index) => (
          <article key={index}>
            <p class="question">{exchange.question}</p>
            <p class={exchange.failed ? "answer bad" : "answer"}>
              {exchange.answer || "(nothing)"}
            </p>
            {exchange.receiptUrl && (
              <p class="quiet">
                <a href={exchange.receiptUrl} download>
                  receipt
                </a>{" "}
                — check it with <code>covenant verify</code>
              </p>
            )}
          </article>
        ))}
      </div>
      <form onSubmit={ask}>
        <label for="question">Ask the model (it was taught to add: try 3+4=)</label>
        <div class="row">
          <input
            id="question"
            value={question.value}
            maxLength={200}
            onInput={(event) => {
              question.value = event.currentTarget.value;
            }}
          />
          <button type="submit" disabled={waiting.value}>
            {waiting.value ? "…" : "Ask"}
          </button>
        </div>
      </form>
    </div>
  );
}
