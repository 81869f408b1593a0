/**
 * The own API of llama.cpp's server: `/completion`.
 *
 * Source: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md (2026-11).
 */
import type { Message, RawMessageStreamEvent } from "@anthropic-ai/sdk/resources/messages/messages"
import { nameOf, textOf } from "../../../protocol/json.ts"
import { llamaCpp as protocol } from "../../../protocol/llamaCpp.ts"
import type { Route } from "../../../protocol/protocol.ts"
import { sseEvent } from "../../../protocol/refusal.ts"
import * as Request from "../request.ts"
import { addition, type AnswerContext, type Body, type Dialect, type StreamWriter, unlimited } from "./dialect.ts"
import * as OpenAi from "./openai.ts"

/** The server has one model, so requests need not name it. */
const model = "default"

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

/** The characters that stand for a token of a prompt that is given in tokens, where a token has 4. */
const token = "xxxx"

/** The text of a prompt: a text, or a list of tokens and texts. */
const promptOf = (prompt: unknown): string | undefined => {
  if (!Array.isArray(prompt)) return textOf(prompt)
  return prompt.map((part) => (typeof part === "number" ? token : (textOf(part) ?? ""))).join("")
}

const read = (body: Body, { path }: Route) => {
  if (!path.endsWith("/completion")) return Request.notFound("POST", path)
  const prompt = promptOf(body["prompt"])
  if (prompt === undefined) return Request.invalid('"prompt" must be a string or a list of tokens and strings')
  const limit = body["n_predict"]
  const params = {
    model: nameOf(body["model"]) ?? model,
    max_tokens: typeof limit === "number" && limit >= 0 ? limit : unlimited,
    messages: [{ role: "user" as const, content: prompt }]
  }
  return { params, stores: false }
}

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

const timing = (name: "prompt" | "predicted", tokens: number, millis: number) => ({
  [`${name}_n`]: tokens,
  [`${name}_ms`]: millis,
  [`${name}_per_token_ms`]: tokens === 0 ? 0 : millis / tokens,
  [`${name}_per_second`]: millis === 0 ? 0 : (1_000 * tokens) / millis
})

/** The fields at the end of an answer, beside its text. */
const endOf = (message: Pick<Message, "model" | "stop_reason" | "usage">, { body, elapsed }: AnswerContext) => {
  const { cached, input, output } = OpenAi.usageOf(message)
  const { outputMillis, promptMillis } = elapsed()
  return {
    index: 0,
    id_slot: 0,
    tokens: [],
    stop: true,
    model: message.model,
    tokens_predicted: output,
    tokens_evaluated: input,
    generation_settings: { n_predict: body["n_predict"] ?? -1, stream: body["stream"] === true },
    prompt: promptOf(body["prompt"]),
    has_new_line: false,
    truncated: false,
    stop_type: message.stop_reason === "max_tokens" ? "limit" : "eos",
    stopping_word: "",
    tokens_cached: cached,
    timings: {
      cache_n: cached,
      ...timing("prompt", input - cached, promptMillis),
      ...timing("predicted", output, outputMillis)
    }
  }
}

const whole = (message: Message, context: AnswerContext) => ({
  content: message.content.flatMap((block) => (block.type === "text" ? [block.text] : [])).join(""),
  ...endOf(message, context)
})

const stream = (context: AnswerContext): StreamWriter => {
  let message: Message | undefined
  const write = (event: RawMessageStreamEvent): string => {
    switch (event.type) {
      case "message_start":
        message = event.message
        return ""
      case "content_block_delta": {
        const part = { index: 0, content: addition(event.delta), tokens: [], stop: false, id_slot: 0 }
        return sseEvent(undefined, part)
      }
      case "message_delta": {
        const usage = { ...message!.usage, output_tokens: event.usage.output_tokens }
        const end = { model: message!.model, stop_reason: event.delta.stop_reason, usage }
        return sseEvent(undefined, { content: "", ...endOf(end, context) })
      }
      default:
        return ""
    }
  }
  return { contentType: "text/event-stream", write }
}

// -----------------------------------------------------------------------------
// Errors
// -----------------------------------------------------------------------------

const types: Readonly<Record<number, string>> = {
  400: "invalid_request_error",
  401: "authentication_error",
  404: "not_found_error",
  503: "unavailable_error"
}

const failure: Dialect["failure"] = (failed) => {
  const code = failed.status === 529 ? 503 : failed.status
  return { status: code, body: { error: { code, message: failed.message, type: types[code] ?? "server_error" } } }
}

/** Writes the messages of the simulation as completions of llama.cpp. */
export const llamaCpp: Dialect = {
  ...OpenAi.common,
  protocol,
  read,
  readCount: () => Request.invalid("This endpoint does not count tokens"),
  counted: (tokens) => ({ input_tokens: tokens }),
  whole,
  stream,
  failure
}
