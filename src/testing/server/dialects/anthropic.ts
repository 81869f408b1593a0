/** The Messages API itself, with message threads. */
import type { ContentBlock, Message, RawMessageStreamEvent } from "@anthropic-ai/sdk/resources/messages/messages"
import type { MessageCountTokensParams } from "@anthropic-ai/sdk/resources/messages/messages"
import type { Params } from "../../../LlmProvider.ts"
import { anthropic as protocol } from "../../../protocol/anthropic.ts"
import { at, nameOf } from "../../../protocol/json.ts"
import type { Route } from "../../../protocol/protocol.ts"
import { sseEvent } from "../../../protocol/refusal.ts"
import * as Headers from "../../headers.ts"
import * as Validity from "../../validity.ts"
import * as Request from "../request.ts"
import { type Body, type Dialect, type FindConversation, type ReadRequest, turnOf } from "./dialect.ts"

/** A request with the stored part of its thread, which includes the system prompt and the tools. */
const withThread = (body: Body, find: FindConversation): Body | undefined => {
  const id = nameOf(at(body, "thread", "previous_message_id"))
  if (at(body, "thread", "type") !== "continue" || id === undefined) return body
  const before = find(id)
  if (before === undefined) return undefined
  const { system, tools } = before
  const added = body["messages"]
  return {
    ...body,
    ...(system === undefined ? {} : { system }),
    ...(tools === undefined ? {} : { tools }),
    messages: Array.isArray(added) ? [...before.messages, ...added] : added
  }
}

const readWith =
  (problemOf: (body: unknown) => string | undefined): Dialect["read"] =>
  (given: Body, route: Route, find: FindConversation) => {
    const whole = withThread(given, find)
    if (whole === undefined) return Request.threadNotFound
    // Bedrock and Vertex AI have the model in the path.
    const body = route.model === undefined ? whole : { ...whole, model: route.model }
    const problem = problemOf(body)
    if (problem !== undefined) return Request.invalid(problem)
    const isThread = typeof at(given, "thread", "type") === "string"
    // The fields that the simulation reads were checked.
    return { params: body as unknown as Params & MessageCountTokensParams, stores: isThread }
  }

/** Removes `citations: null`, which the SDK's types require and Anthropic's JSON does not have. Strict readers refuse it. */
const uncited = <Block extends ContentBlock>(block: Block): Block => {
  if (block.type !== "text" || block.citations !== null) return block
  const { citations: _, ...rest } = block
  return rest as Block
}

const written = (event: RawMessageStreamEvent): RawMessageStreamEvent =>
  event.type === "content_block_start" ? { ...event, content_block: uncited(event.content_block) } : event

/** Writes the messages of the simulation as they are. */
export const anthropic: Dialect = {
  protocol,
  limitHeaders: "anthropic",
  requestIdHeader: "request-id",
  read: readWith(Validity.createProblem),
  readCount: readWith(Validity.countProblem),
  counted: (tokens) => ({ input_tokens: tokens }),
  whole: (message) => ({ ...message, content: message.content.map(uncited) }),
  stream: () => ({
    contentType: "text/event-stream; charset=utf-8",
    // A ping follows the first content, as from Anthropic.
    write: (event) =>
      sseEvent(event.type, written(event)) + (event.type === "content_block_start" ? protocol.keepAlive.stream : "")
  }),
  stored: (message: Message, { params, stores }: ReadRequest) => {
    const { messages, system, tools } = params
    return stores ? [[message.id, { messages: [...messages, turnOf(message)], system, tools }]] : []
  },
  failure: (failure, requestId) => ({ status: failure.status, body: Headers.errorBody(failure, requestId) })
}
