import assert from "node:assert/strict";
import { test } from "node:test";
import { Tokenizer, trainTokenizer } from "@covenant/models";
import fc from "fast-check";
import { SequenceText } from "./sequence-text.ts";

const tokenizer = Tokenizer.fromJson(
  trainTokenizer("the cat sat on the mat. ".repeat(10), { vocabSize: 270 }),
);

function run(tokens: readonly number[], stops: readonly string[]) {
  const sequence = new SequenceText({ tokenizer, stops });
  const pieces: string[] = [];
  const shown: number[] = [];
  for (const token of tokens) {
    const { text, tokens: visible, stopped } = sequence.add(token, -1);
    pieces.push(text);
    shown.push(...visible.map((entry) => entry.token));
    if (stopped) return { text: pieces.join(""), shown, stopped: true, pieces };
  }
  const rest = sequence.finish();
  shown.push(...rest.tokens.map((entry) => entry.token));
  return { text: pieces.join("") + rest.text, shown, stopped: false, pieces };
}

const token = fc.integer({ min: 0, max: tokenizer.vocabSize - 1 });

test("the pieces joined are the text of the tokens, and every token is shown once, in order", () => {
  fc.assert(
    fc.property(fc.array(token, { maxLength: 40 }), (tokens) => {
      const { text, shown } = run(tokens, []);
      assert.equal(text, tokenizer.decode(tokens, { skipSpecial: true }));
      assert.deepEqual(shown, tokens);
    }),
  );
});

test("with stop strings the text ends right before the first that appears", () => {
  const stop = fc.string({
    minLength: 1,
    maxLength: 4,
    unit: fc.constantFrom("a", "t", " ", "h", "e"),
  });
  const words = fc.array(fc.constantFrom("the", " cat", " sat", "a", "t", " t", "he"), {
    maxLength: 20,
  });
  fc.assert(
    fc.property(words, fc.array(stop, { maxLength: 3 }), (parts, stops) => {
      const full = parts.join("");
      const { text, stopped, pieces } = run([...tokenizer.encode(full)], stops);
      const found = stops.map((entry) => full.indexOf(entry)).filter((at) => at >= 0);
      assert.equal(stopped, found.length > 0);
      const expected = found.length > 0 ? full.slice(0, Math.min(...found)) : full;
      // With several stops the first to be complete ends the text; it may begin after another one.
      if (stops.length <= 1) assert.equal(text, expected);
      else assert.ok(full.startsWith(text) && text.length >= expected.length);
      assert.ok(stops.every((entry) => !pieces.join("").includes(entry)));
    }),
  );
});
