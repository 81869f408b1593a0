/**
 * Ollama's own API: `/api/chat` and `/api/generate`.
 *
 * Sources: https://docs.ollama.com/api and https://github.com/ollama/ollama/blob/main/docs/api.md (2026-11).
 */
import type {
  ContentBlockParam,
  Message,
  MessageParam,
  RawMessageStreamEvent
} from "@anthropic-ai/sdk/resources/messages/messages"
import { at, isRecord, listOf, nameOf, parseJson, textOf } from "../../../protocol/json.ts"
import { ollama as protocol } from "../../../protocol/ollama.ts"
import type { Route } from "../../../protocol/protocol.ts"
import * as Request from "../request.ts"
import { addition, type AnswerContext, type Body, type Dialect, type StreamWriter, unlimited } from "./dialect.ts"
import * as OpenAi from "./openai.ts"

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

const imagesOf = (images: unknown): ReadonlyArray<ContentBlockParam> =>
  listOf(images).map(() => ({ type: "image", source: { type: "url", url: "" } }))

const turnOf = (message: unknown): MessageParam => {
  const text = textOf(at(message, "content")) ?? ""
  if (at(message, "role") === "tool") return OpenAi.resultOf(at(message, "tool_name"), text)
  const calls = listOf(at(message, "tool_calls")).map((call) =>
    OpenAi.callOf(undefined, at(call, "function", "name"), JSON.stringify(at(call, "function", "arguments") ?? {}))
  )
  const content = [...OpenAi.contentOf(text), ...imagesOf(at(message, "images")), ...calls]
  return { role: at(message, "role") === "assistant" ? "assistant" : "user", content }
}

/** Its limit on the output, which is none if it is negative. */
const maxTokensOf = (body: Body): number => {
  const limit = at(body, "options", "num_predict")
  return typeof limit === "number" && limit > 0 ? limit : unlimited
}

const isChat = ({ path }: Route): boolean => path.endsWith("/chat")

const read = (body: Body, route: Route) => {
  if (route.operation === "embed") return Request.notFound("POST", route.path)
  const model = nameOf(body["model"])
  if (model === undefined) return Request.invalid("model is required")
  const asked = { model, max_tokens: maxTokensOf(body), tools: OpenAi.toolsOf(body) }
  if (!isChat(route)) {
    const prompt = { role: "user" as const, content: textOf(body["prompt"]) ?? "" }
    const messages = [turnOf({ ...prompt, images: body["images"] })]
    return { params: { ...asked, system: textOf(body["system"]) ?? "", messages }, stores: false }
  }
  const problem = OpenAi.listProblem(body["messages"], "messages")
  if (problem !== undefined) return problem
  const messages = listOf(body["messages"])
  const isSystem = (message: unknown): boolean => at(message, "role") === "system"
  const system = OpenAi.textOfAll(messages.filter(isSystem).map((message) => at(message, "content")))
  const turns = messages.filter((message) => !isSystem(message)).map(turnOf)
  return { params: { ...asked, system, messages: turns }, stores: false }
}

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

interface Call {
  readonly function: { readonly name: string; readonly arguments: unknown }
}

/** A part of an answer in the form of the endpoint. Only chats have calls of tools. */
const partOf = ({ body }: AnswerContext, text: string, calls: ReadonlyArray<Call> = []) =>
  body["messages"] === undefined
    ? { response: text }
    : { message: { role: "assistant", content: text, ...(calls.length === 0 ? {} : { tool_calls: calls }) } }

const headOf = ({ body, createdAt }: AnswerContext) => ({
  model: body["model"],
  created_at: new Date(1_000 * createdAt).toISOString()
})

const nanosPerMilli = 1_000_000

/** The fields of the last object of an answer. Times are in nanoseconds; the model is always loaded. */
const endOf = (message: Pick<Message, "stop_reason" | "usage">, { elapsed }: AnswerContext) => {
  const { input, output } = OpenAi.usageOf(message)
  const { outputMillis, promptMillis, totalMillis } = elapsed()
  return {
    done: true,
    done_reason: message.stop_reason === "max_tokens" ? "length" : "stop",
    total_duration: Math.round(totalMillis * nanosPerMilli),
    load_duration: 0,
    prompt_eval_count: input,
    prompt_eval_duration: Math.round(promptMillis * nanosPerMilli),
    eval_count: output,
    eval_duration: Math.round(outputMillis * nanosPerMilli)
  }
}

const whole = (message: Message, context: AnswerContext) => {
  const text = message.content.flatMap((block) => (block.type === "text" ? [block.text] : [])).join("")
  const calls = message.content.flatMap((block) =>
    block.type === "tool_use" ? [{ function: { name: block.name, arguments: block.input } }] : []
  )
  return { ...headOf(context), ...partOf(context, text, calls), ...endOf(message, context) }
}

/** An object on each line. */
const stream = (context: AnswerContext): StreamWriter => {
  let message: Message | undefined
  /** The call of a tool that is being written. It is sent when it is complete. */
  let call: { readonly name: string; text: string } | undefined
  const line = (part: unknown, end: unknown = { done: false }): string =>
    `${JSON.stringify({ ...headOf(context), ...(isRecord(part) && part), ...(isRecord(end) && end) })}\n`
  const write = (event: RawMessageStreamEvent): string => {
    switch (event.type) {
      case "message_start":
        message = event.message
        return ""
      case "content_block_start":
        if (event.content_block.type === "tool_use") call = { name: event.content_block.name, text: "" }
        return ""
      case "content_block_delta": {
        const text = addition(event.delta)
        if (call === undefined) return line(partOf(context, text))
        call.text += text
        return ""
      }
      case "content_block_stop": {
        if (call === undefined) return ""
        const { name, text } = call
        call = undefined
        return line(partOf(context, "", [{ function: { name, arguments: parseJson(text) ?? {} } }]))
      }
      case "message_delta": {
        const usage = { ...message!.usage, output_tokens: event.usage.output_tokens }
        return line(partOf(context, ""), endOf({ stop_reason: event.delta.stop_reason, usage }, context))
      }
      case "message_stop":
        return ""
    }
  }
  return { contentType: "application/x-ndjson", write }
}

/** Writes the messages of the simulation as Ollama's answers. */
export const ollama: Dialect = {
  protocol,
  limitHeaders: undefined,
  requestIdHeader: undefined,
  read,
  readCount: () => Request.invalid("Ollama does not count tokens"),
  counted: (tokens) => ({ input_tokens: tokens }),
  whole,
  stream,
  stored: () => [],
  failure: ({ message, status }) => ({ status: status === 529 ? 503 : status, body: { error: message } })
}
