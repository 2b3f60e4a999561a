// Chat: rendering conversations by the tokenizer's own Jinja template.
import { Template } from "@huggingface/jinja";
import { DataError } from "./errors.ts";
import type { TokenizerConfig } from "./tokenizer-json.ts";

/** One turn of a conversation. */
export interface ChatMessage {
  role: string;
  content: string;
}

/** Options of rendering a conversation. */
export interface RenderOptions {
  /** End with the opening of the assistant's turn, so that a model continues as the assistant. */
  addGenerationPrompt?: boolean;
}

const MESSAGES_MAX = 4096;
const RENDERED_CHARS_MAX = 16 << 20;
/** Roles end up inside special tokens, so they are names and nothing else. */
const ROLE = /^[a-z_]{1,32}$/;

/** Compiles the template once; the returned function renders conversations as text. */
export function compileChatTemplate(
  config: TokenizerConfig,
): (messages: readonly ChatMessage[], options?: RenderOptions) => string {
  let template: Template;
  try {
    template = new Template(config.chat_template);
  } catch (error) {
    const reason = (error as Error).message;
    throw new DataError("COV_TOKENIZER_INVALID", `Chat template does not compile: ${reason}`);
  }
  return (messages, options = {}) => {
    if (messages.length > MESSAGES_MAX) throw new RangeError(`More than ${MESSAGES_MAX} messages`);
    if (messages.some(({ role }) => !ROLE.test(role))) throw new RangeError("A role is not a name");
    const text = template.render({
      messages: messages.map(({ role, content }) => ({ role, content })),
      add_generation_prompt: options.addGenerationPrompt ?? false,
      eos_token: config.eos_token,
      bos_token: "",
    });
    if (text.length > RENDERED_CHARS_MAX) throw new RangeError("Rendered conversation is too long");
    return text;
  };
}
