/** OpenAI's Chat Completions. */
import type { Message, MessageParam, RawMessageStreamEvent } from "@anthropic-ai/sdk/resources/messages/messages"
import { at, listOf, nameOf } from "../../../protocol/json.ts"
import { openaiChat as protocol } from "../../../protocol/openaiChat.ts"
import type { Route } from "../../../protocol/protocol.ts"
import { sseEvent } from "../../../protocol/refusal.ts"
import * as Request from "../request.ts"
import { addition, type Body, type Dialect, type AnswerContext, type StreamWriter } from "./dialect.ts"
import * as OpenAi from "./openai.ts"

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

const turnOf = (message: unknown): MessageParam => {
  const content = OpenAi.contentOf(at(message, "content"))
  switch (at(message, "role")) {
    case "assistant": {
      const calls = listOf(at(message, "tool_calls")).map((call) =>
        OpenAi.callOf(at(call, "id"), at(call, "function", "name"), at(call, "function", "arguments"))
      )
      return { role: "assistant", content: [...content, ...calls] }
    }
    case "tool":
    case "function":
      return OpenAi.resultOf(at(message, "tool_call_id"), at(message, "content"))
    default:
      return { role: "user", content }
  }
}

const roles: ReadonlyArray<unknown> = ["system", "developer", "user", "assistant", "tool", "function"]

const isInstruction = (message: unknown): boolean => {
  const role = at(message, "role")
  return role === "system" || role === "developer"
}

const problemOf = (body: Body, model: string | undefined): Request.ApiError | undefined => {
  if (model === undefined) return Request.invalid("model: expected a string")
  const problem = OpenAi.listProblem(body["messages"], "messages")
  if (problem !== undefined) return problem
  const wrong = listOf(body["messages"]).findIndex((message) => !roles.includes(at(message, "role")))
  if (wrong >= 0) return Request.invalid(`messages.${wrong}.role: expected one of ${roles.join(", ")}`)
  if (typeof body["n"] === "number" && body["n"] !== 1) return Request.invalid("n: only 1 is simulated")
  return undefined
}

const read = (body: Body, route: Route) => {
  const model = route.model ?? nameOf(body["model"])
  const problem = problemOf(body, model)
  if (problem !== undefined) return problem
  const maxTokens = OpenAi.maxTokensOf(body, "max_completion_tokens", "max_tokens")
  if (typeof maxTokens !== "number") return maxTokens
  const messages = listOf(body["messages"])
  const params = {
    model: model!,
    max_tokens: maxTokens,
    system: OpenAi.textOfAll(messages.filter(isInstruction).map((message) => at(message, "content"))),
    messages: messages.filter((message) => !isInstruction(message)).map(turnOf),
    tools: OpenAi.toolsOf(body)
  }
  return { params, stores: false }
}

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

const finishOf = (message: Pick<Message, "stop_reason">): string =>
  OpenAi.endOf(message.stop_reason, { tool_use: "tool_calls", max_tokens: "length" }, "stop")

const usageOf = (message: Pick<Message, "usage">) => {
  const { cached, input, output, total, written } = OpenAi.usageOf(message)
  return {
    prompt_tokens: input,
    completion_tokens: output,
    total_tokens: total,
    prompt_tokens_details: {
      cached_tokens: cached,
      ...(written > 0 && { cache_write_tokens: written }),
      audio_tokens: 0
    },
    completion_tokens_details: { reasoning_tokens: 0, audio_tokens: 0 }
  }
}

const whole = (message: Message, { createdAt }: AnswerContext) => {
  const calls = message.content.flatMap((block) =>
    block.type === "tool_use"
      ? [{ id: block.id, type: "function", function: { name: block.name, arguments: JSON.stringify(block.input) } }]
      : []
  )
  const text = message.content.flatMap((block) => (block.type === "text" ? [block.text] : [])).join("")
  return {
    id: OpenAi.idOf(message.id, "chatcmpl"),
    object: "chat.completion",
    created: createdAt,
    model: message.model,
    choices: [
      {
        index: 0,
        message: {
          role: "assistant",
          content: text === "" && calls.length > 0 ? null : text,
          refusal: null,
          annotations: [],
          ...(calls.length === 0 ? {} : { tool_calls: calls })
        },
        logprobs: null,
        finish_reason: finishOf(message)
      }
    ],
    usage: usageOf(message),
    service_tier: "default"
  }
}

const stream = ({ body, createdAt }: AnswerContext): StreamWriter => {
  const asksUsage = at(body, "stream_options", "include_usage") === true
  let message: Message | undefined
  /** The places of tool calls among all blocks, in order. */
  const calls: Array<number> = []
  const chunk = (choices: ReadonlyArray<unknown>, usage: unknown = null): string =>
    sseEvent(undefined, {
      id: OpenAi.idOf(message?.id ?? "", "chatcmpl"),
      object: "chat.completion.chunk",
      created: createdAt,
      model: message?.model,
      choices,
      ...(asksUsage ? { usage } : {})
    })
  const choice = (delta: unknown, finishReason: string | null = null): string =>
    chunk([{ index: 0, delta, logprobs: null, finish_reason: finishReason }])
  const write = (event: RawMessageStreamEvent): string => {
    switch (event.type) {
      case "message_start":
        message = event.message
        return choice({ role: "assistant", content: "", refusal: null })
      case "content_block_start": {
        const { content_block: block, index } = event
        if (block.type !== "tool_use") return ""
        const call = { id: block.id, type: "function", function: { name: block.name, arguments: "" } }
        return choice({ tool_calls: [{ index: calls.push(index) - 1, ...call }] })
      }
      case "content_block_delta": {
        const text = addition(event.delta)
        const index = calls.indexOf(event.index)
        return choice(index < 0 ? { content: text } : { tool_calls: [{ index, function: { arguments: text } }] })
      }
      case "message_delta": {
        const end = choice({}, finishOf(event.delta))
        const usage = { ...message!.usage, output_tokens: event.usage.output_tokens }
        return asksUsage ? end + chunk([], usageOf({ usage })) : end
      }
      case "message_stop":
        return "data: [DONE]\n\n"
      default:
        return ""
    }
  }
  return { contentType: "text/event-stream; charset=utf-8", write }
}

/** Writes the messages of the simulation as Chat Completions. */
export const openaiChat: Dialect = {
  ...OpenAi.common,
  protocol,
  read,
  readCount: () => Request.invalid("Chat Completions does not count tokens"),
  counted: (tokens) => ({ input_tokens: tokens }),
  whole,
  stream
}
