/**
 * Protocols of the simulated provider. A protocol converts requests to the form of the Messages API, which the simulation uses, and
 * answers to its own form.
 */
import type {
  ContentBlockParam,
  Message,
  MessageParam,
  RawMessageStreamEvent
} from "@anthropic-ai/sdk/resources/messages/messages"
import type { Params } from "../../../LlmProvider.ts"
import type * as Limits from "../../../Limits.ts"
import type { Protocol, Route } from "../../../protocol/protocol.ts"
import type { ApiError } from "../request.ts"

/** A parsed body. */
export type Body = Readonly<Record<string, unknown>>

/** A conversation that the provider stores under the id of an answer. */
export interface Conversation {
  readonly messages: ReadonlyArray<MessageParam>
  readonly system?: Params["system"]
  readonly tools?: Params["tools"]
}

/** A request in the form of the simulation. */
export interface ReadRequest {
  readonly params: Params
  /** Whether the provider stores the conversation, so that a later request can continue it. */
  readonly stores: boolean
  /** The stored conversation to which the answer is added, if the request names one. */
  readonly conversation?: string | undefined
}

/** A conversation that begins without an answer. */
export interface Begun {
  readonly id: string
  readonly conversation: Conversation
  /** The body of the response. */
  readonly body: unknown
}

/** How long a call has taken so far, in milliseconds of the caller's time. */
interface Elapsed {
  readonly totalMillis: number
  /** From the beginning of the work on it to its first token. */
  readonly promptMillis: number
  readonly outputMillis: number
}

/** The facts from which an answer is written, in addition to the message. */
export interface AnswerContext {
  readonly body: Body
  readonly requestId: string
  /** Seconds since the epoch. */
  readonly createdAt: number
  readonly elapsed: () => Elapsed
}

/** Writes a stream. */
export interface StreamWriter {
  readonly contentType: string
  /** The text of one event; empty if the protocol has no such event. */
  readonly write: (event: RawMessageStreamEvent) => string
}

/** An error, and for a rejection the limit and the wait. */
export interface DialectFailure extends ApiError {
  readonly errorCode?: string | undefined
  /** The limit that was reached, per minute of the caller's time. */
  readonly limit?: { readonly dimension: Limits.Dimension; readonly perMinute: number } | undefined
  /** How long the caller should wait, in milliseconds of its own time. */
  readonly retryAfterMillis?: number | undefined
}

/** A protocol of the simulated provider. */
export interface Dialect {
  readonly protocol: Protocol
  /** The family of rate limit headers; undefined if the protocol has none. */
  readonly limitHeaders: "anthropic" | "openai" | undefined
  /** The header that names a request. */
  readonly requestIdHeader: string | undefined
  /** Reads a request for an answer; an {@link ApiError} says what is wrong with it. */
  readonly read: (body: Body, route: Route, find: FindConversation) => ReadRequest | ApiError
  /** Reads a request that counts tokens. */
  readonly readCount: (body: Body, route: Route, find: FindConversation) => ReadRequest | ApiError
  readonly counted: (tokens: number) => unknown
  /** The body of an answer that is not streamed. */
  readonly whole: (message: Message, exchange: AnswerContext) => unknown
  /** Writes the events of one stream. */
  readonly stream: (exchange: AnswerContext, query: URLSearchParams) => StreamWriter
  /** Begins a conversation to which answers are added, if the protocol has conversations. Returns an {@link ApiError} if it is invalid. */
  readonly begin?: (
    body: Body,
    route: Route,
    exchange: Omit<AnswerContext, "body" | "elapsed">
  ) => Begun | ApiError | undefined
  /** The ids under which an answer's conversation is stored, and what each of them holds. */
  readonly stored: (
    message: Message,
    before: ReadRequest
  ) => ReadonlyArray<readonly [id: string, conversation: Conversation]>
  /** An error, with the status that this provider gives it. */
  readonly failure: (failure: DialectFailure, requestId: string) => { readonly status: number; readonly body: unknown }
}

/** Finds the conversation that is stored under an id. */
export type FindConversation = (id: string) => Conversation | undefined

/** The output is not limited by the request. */
export const unlimited = Infinity

/** Whether a request was read without an error. */
export const isRead = (read: ReadRequest | ApiError): read is ReadRequest => "params" in read

/** An answer as the assistant's turn of a conversation. */
export const turnOf = ({ content }: Pick<Message, "content">): MessageParam => ({
  role: "assistant",
  content: content as Array<ContentBlockParam>
})

/** The part of an answer that one event adds. */
export type Delta = Extract<RawMessageStreamEvent, { readonly type: "content_block_delta" }>["delta"]

/** The text that a delta adds to a text or to a tool's input. */
export const addition = (delta: Delta): string => {
  if (delta.type === "text_delta") return delta.text
  return delta.type === "input_json_delta" ? delta.partial_json : ""
}
