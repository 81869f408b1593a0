/** OpenAI's Responses, with conversations that continue by `previous_response_id` or have their own id. */
import type {
  ContentBlock,
  Message,
  MessageParam,
  RawMessageStreamEvent,
  TextBlock,
  ToolUseBlock
} from "@anthropic-ai/sdk/resources/messages/messages"
import { at, listOf, nameOf, textOf } from "../../../protocol/json.ts"
import { openaiResponses as protocol } from "../../../protocol/openaiResponses.ts"
import type { Route } from "../../../protocol/protocol.ts"
import { sseEvent } from "../../../protocol/refusal.ts"
import * as Request from "../request.ts"
import {
  addition,
  type Begun,
  type Body,
  type Conversation,
  type Dialect,
  type AnswerContext,
  type FindConversation,
  type ReadRequest,
  turnOf,
  type StreamWriter
} from "./dialect.ts"
import * as OpenAi from "./openai.ts"

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

const turnsOf = (item: unknown, find: FindConversation): ReadonlyArray<MessageParam> | Request.ApiError => {
  switch (at(item, "type")) {
    case "function_call": {
      const call = OpenAi.callOf(at(item, "call_id"), at(item, "name"), at(item, "arguments"))
      return [{ role: "assistant", content: [call] }]
    }
    case "function_call_output":
      return [OpenAi.resultOf(at(item, "call_id"), at(item, "output"))]
    case "item_reference": {
      const id = nameOf(at(item, "id")) ?? ""
      return find(id)?.messages ?? Request.itemNotFound(id)
    }
    case "reasoning":
      return []
    default: {
      const role = at(item, "role") === "assistant" ? "assistant" : "user"
      return [{ role, content: OpenAi.contentOf(at(item, "content")) }]
    }
  }
}

const inputOf = (input: unknown, find: FindConversation): ReadonlyArray<MessageParam> | Request.ApiError => {
  if (typeof input === "string") return [{ role: "user", content: input }]
  const problem = OpenAi.listProblem(input, "input")
  if (problem !== undefined) return problem
  const messages: Array<MessageParam> = []
  for (const item of listOf(input)) {
    const turns = turnsOf(item, find)
    if (!("length" in turns)) return turns
    messages.push(...turns)
  }
  return messages
}

/** The id of the conversation that a request names, as a text or in an object. */
const conversationOf = (body: Body): string | undefined =>
  nameOf(body["conversation"]) ?? nameOf(at(body, "conversation", "id"))

/** The stored answer or conversation that a request continues. */
const beforeOf = (body: Body, find: FindConversation): Conversation | Request.ApiError => {
  const previous = nameOf(body["previous_response_id"])
  const conversation = conversationOf(body)
  if (previous !== undefined && conversation !== undefined) {
    return Request.invalid("Mutually exclusive parameters: ['previous_response_id', 'conversation']")
  }
  if (previous !== undefined) return find(previous) ?? Request.responseNotFound(previous)
  if (conversation !== undefined) return find(conversation) ?? Request.conversationNotFound(conversation)
  return { messages: [] }
}

const read = (body: Body, route: Route, find: FindConversation): ReadRequest | Request.ApiError => {
  const model = route.model ?? nameOf(body["model"])
  if (model === undefined) return Request.invalid("model: expected a string")
  const before = beforeOf(body, find)
  if (!("messages" in before)) return before
  const input = inputOf(body["input"], find)
  if (!("length" in input)) return input
  const maxTokens = OpenAi.maxTokensOf(body, "max_output_tokens")
  if (typeof maxTokens !== "number") return maxTokens
  const params = {
    model,
    max_tokens: maxTokens,
    // The instructions of an earlier answer are not carried over.
    system: textOf(body["instructions"]) ?? "",
    messages: [...before.messages, ...input],
    tools: OpenAi.toolsOf(body)
  }
  return { params, stores: body["store"] !== false, conversation: conversationOf(body) }
}

/** `POST /v1/conversations` begins a conversation with its items, if it has any. */
const begin = (body: Body, { path }: Route, { createdAt, requestId }: Omit<AnswerContext, "body" | "elapsed">) => {
  if (!path.endsWith("/conversations")) return undefined
  const items = listOf(body["items"])
  const messages = items.length === 0 ? [] : inputOf(items, () => undefined)
  if (!("length" in messages)) return messages
  const id = OpenAi.idOf(requestId, "conv")
  const begun: Begun = {
    id,
    conversation: { messages },
    body: { id, object: "conversation", created_at: createdAt, metadata: body["metadata"] ?? {} }
  }
  return begun
}

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

type ResponseStatus = "in_progress" | "completed" | "incomplete"
type Output = TextBlock | ToolUseBlock

const isOutput = (block: ContentBlock): block is Output => block.type === "text" || block.type === "tool_use"

/** The id of an item of an answer, which is its message or a function call. */
const itemIdOf = (messageId: string, block: Output, index: number): string =>
  block.type === "text" ? `${messageId}_${index}` : OpenAi.idOf(block.id, "fc")

const partOf = (text: string) => ({ type: "output_text", annotations: [], logprobs: [], text })

const itemOf = (messageId: string, block: Output, index: number, status: ResponseStatus, written?: string) => {
  const id = itemIdOf(messageId, block, index)
  if (block.type === "text") {
    const content = written === "" ? [] : [partOf(written ?? block.text)]
    return { id, type: "message", status, role: "assistant", content }
  }
  const { id: callId, input, name } = block
  return { id, type: "function_call", status, call_id: callId, name, arguments: written ?? JSON.stringify(input) }
}

const usageOf = (message: Pick<Message, "usage">) => {
  const { cached, input, output, total, written } = OpenAi.usageOf(message)
  return {
    input_tokens: input,
    input_tokens_details: { cached_tokens: cached, cache_write_tokens: written },
    output_tokens: output,
    output_tokens_details: { reasoning_tokens: 0 },
    total_tokens: total
  }
}

/** The response object, which a stream repeats in three states. */
const responseOf = (
  message: Message,
  { body, createdAt }: AnswerContext,
  status: ResponseStatus,
  output: ReadonlyArray<unknown>
) => ({
  id: OpenAi.idOf(message.id, "resp"),
  object: "response",
  created_at: createdAt,
  status,
  background: false,
  error: null,
  incomplete_details: status === "incomplete" ? { reason: "max_output_tokens" } : null,
  instructions: body["instructions"] ?? null,
  max_output_tokens: body["max_output_tokens"] ?? null,
  metadata: body["metadata"] ?? {},
  model: message.model,
  output,
  parallel_tool_calls: true,
  previous_response_id: body["previous_response_id"] ?? null,
  ...(conversationOf(body) === undefined ? {} : { conversation: { id: conversationOf(body) } }),
  reasoning: { effort: null, summary: null },
  store: body["store"] !== false,
  temperature: 1,
  text: { format: { type: "text" } },
  tool_choice: body["tool_choice"] ?? "auto",
  tools: body["tools"] ?? [],
  top_p: 1,
  truncation: "disabled",
  usage: status === "in_progress" ? null : usageOf(message)
})

const endOf = (message: Pick<Message, "stop_reason">): ResponseStatus =>
  OpenAi.endOf<ResponseStatus>(message.stop_reason, { max_tokens: "incomplete" }, "completed")

const whole = (message: Message, exchange: AnswerContext) => {
  const items = message.content.filter(isOutput)
  const output = items.map((block, index) => itemOf(message.id, block, index, "completed"))
  return responseOf(message, exchange, endOf(message), output)
}

const stream = (exchange: AnswerContext): StreamWriter => {
  let message: Message | undefined
  let number = 0
  /** The blocks so far, with the text that was written of each. */
  const blocks: Array<{ readonly block: Output; text: string }> = []
  const send = (type: string, data: object): string => sseEvent(type, { type, sequence_number: number++, ...data })
  const started = (): Message => message!
  const place = (index: number) => ({
    item_id: itemIdOf(started().id, blocks[index]!.block, index),
    output_index: index
  })
  const inText = (index: number) => ({ ...place(index), content_index: 0 })
  const item = (index: number, status: ResponseStatus) => {
    const { block, text } = blocks[index]!
    return { output_index: index, item: itemOf(started().id, block, index, status, text) }
  }
  const begin = (index: number): string => {
    const added = send("response.output_item.added", item(index, "in_progress"))
    const isText = blocks[index]!.block.type === "text"
    return isText ? added + send("response.content_part.added", { ...inText(index), part: partOf("") }) : added
  }
  const add = (index: number, delta: string): string => {
    const current = blocks[index]!
    current.text += delta
    return current.block.type === "text"
      ? send("response.output_text.delta", { ...inText(index), delta, logprobs: [] })
      : send("response.function_call_arguments.delta", { ...place(index), delta })
  }
  const end = (index: number): string => {
    const { block, text } = blocks[index]!
    const done = send("response.output_item.done", item(index, "completed"))
    if (block.type === "tool_use") {
      const call = { ...place(index), name: block.name, arguments: text }
      return send("response.function_call_arguments.done", call) + done
    }
    return (
      send("response.output_text.done", { ...inText(index), text, logprobs: [] }) +
      send("response.content_part.done", { ...inText(index), part: partOf(text) }) +
      done
    )
  }
  const write = (event: RawMessageStreamEvent): string => {
    switch (event.type) {
      case "message_start": {
        message = event.message
        const response = responseOf(message, exchange, "in_progress", [])
        return send("response.created", { response }) + send("response.in_progress", { response })
      }
      case "content_block_start":
        if (!isOutput(event.content_block)) return ""
        blocks.push({ block: event.content_block, text: "" })
        return begin(event.index)
      case "content_block_delta":
        return add(event.index, addition(event.delta))
      case "content_block_stop":
        return end(event.index)
      case "message_delta": {
        const { stop_reason } = event.delta
        message = { ...started(), stop_reason, usage: { ...started().usage, output_tokens: event.usage.output_tokens } }
        return ""
      }
      case "message_stop": {
        const status = endOf(started())
        const output = blocks.map((_, index) => item(index, "completed").item)
        return send(`response.${status}`, { response: responseOf(started(), exchange, status, output) })
      }
    }
  }
  return { contentType: "text/event-stream; charset=utf-8", write }
}

/** Stores an answer under its id, each of its items under the item's id, and its conversation under the conversation's id. */
const stored: Dialect["stored"] = (message, { conversation, params, stores }) => {
  const whole: Conversation = { messages: [...params.messages, turnOf(message)] }
  const added = conversation === undefined ? [] : [[conversation, whole] as const]
  if (!stores) return added
  const items = message.content
    .filter(isOutput)
    .map((block, index) => [itemIdOf(message.id, block, index), { messages: [turnOf({ content: [block] })] }] as const)
  return [[OpenAi.idOf(message.id, "resp"), whole], ...items, ...added]
}

/** Writes the messages of the simulation as Responses. */
export const openaiResponses: Dialect = {
  ...OpenAi.common,
  protocol,
  read,
  readCount: read,
  counted: (tokens) => ({ object: "response.input_tokens", input_tokens: tokens }),
  whole,
  stream,
  begin,
  stored
}
