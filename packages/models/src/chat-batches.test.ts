import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { trainTokenizer } from "./bpe-trainer.ts";
import { completionText, encodeChat, packChats, stopTokens } from "./chat-batches.ts";
import { Tokenizer } from "./tokenizer.ts";

const tokenizer = Tokenizer.fromJson(trainTokenizer("hello there hello there", { vocabSize: 270 }));
const say = (role: string, content: string) => ({ role, content });

test("loss falls on the assistant's words and its closing token, and on nothing else", () => {
  const chat = [
    say("user", "hello"),
    say("assistant", "there"),
    say("user", "a"),
    say("assistant", "b"),
  ];
  const { tokens, learned } = encodeChat(tokenizer, chat);
  const text = tokenizer.decode([...tokens].filter((_, i) => learned[i] === 1));
  assert.equal(text, "there<|end|>b<|end|>");
  assert.equal(tokenizer.decode(tokens), tokenizer.renderChat(chat));
});

test("a template whose turns cannot be told apart is refused", () => {
  const config = { ...tokenizer.config, chat_template: "{{ messages | length }}" };
  const odd = Tokenizer.fromJson(tokenizer.json, config);
  assert.throws(() => encodeChat(odd, [say("user", "x"), say("assistant", "y")]), RangeError);
});

test("packing keeps every learned token as a target of the token before it", () => {
  const words = fc.string({ unit: "grapheme-ascii", maxLength: 12 });
  const chats = fc.array(fc.tuple(words, words), { minLength: 1, maxLength: 12 });
  fc.assert(
    fc.property(chats, (pairs) => {
      const encoded = pairs.map(([question, answer]) =>
        encodeChat(tokenizer, [say("user", question), say("assistant", answer)]),
      );
      const options = { sequenceLength: 24, batchSize: 2, padId: tokenizer.eosId };
      const { batches, skippedCount, learnedTokens } = packChats(encoded, options);
      const fitting = encoded.filter(({ tokens }) => tokens.length <= 24);
      assert.equal(skippedCount, encoded.length - fitting.length);
      const expected = fitting.flatMap(({ tokens, learned }) =>
        [...tokens].filter((_, i) => learned[i] === 1),
      );
      const targets = batches.flatMap((batch) => [...batch.targets]).filter((id) => id >= 0);
      assert.deepEqual(targets, expected);
      assert.equal(learnedTokens, expected.length);
      for (const { tokens, sequences, sequenceLength } of batches) {
        assert.equal(tokens.length, sequences * sequenceLength);
        assert.ok(sequences <= 2);
      }
    }),
  );
});

test("a completion's text has no stop token", () => {
  const ids = [...tokenizer.encode("hello"), ...stopTokens(tokenizer)];
  assert.equal(completionText(tokenizer, ids), "hello");
});
