/**
 * A scripted provider over real HTTP on loopback.
 */
import * as Effect from "effect/Effect"
import type * as Http from "node:http"
import * as HttpServer from "./httpServer.ts"

export type Handler = (response: Http.ServerResponse, request: Http.IncomingMessage) => void

/** A server whose handler answers each request, numbered from 1. */
export const serve = (handler: (attempt: number, body: string) => Handler) =>
  Effect.suspend(() => {
    const seen = { attempts: 0 }
    return Effect.map(
      HttpServer.serve((request, response, body) => handler(++seen.attempts, body)(response, request)),
      ({ close, url }) => ({ seen, close, url })
    )
  })

export const send =
  (status: number, body: string, headers: Record<string, string> = {}): Handler =>
  (response) => {
    response.writeHead(status, { "content-type": "application/json", "request-id": "req_test", ...headers })
    response.end(body)
  }

/** Anthropic's error body. */
export const error = (
  status: number,
  type: string,
  headers: Record<string, string> = {},
  errorCode?: string,
  message = "Something is wrong"
): Handler => {
  const details = errorCode === undefined ? null : { error_code: errorCode }
  return send(
    status,
    JSON.stringify({ type: "error", error: { type, message, details }, request_id: "req_test" }),
    headers
  )
}

/** An answer with this usage. */
export const message = (inputTokens: number, outputTokens: number, model = "claude-sonnet-5-20260901") => ({
  id: "msg_1",
  type: "message",
  role: "assistant",
  model,
  content: [{ type: "text", text: "Hello" }],
  stop_reason: "end_turn",
  stop_sequence: null,
  usage: { input_tokens: inputTokens, output_tokens: outputTokens }
})

export const answer: Handler = send(200, JSON.stringify(message(25, 12)))

export const event = (type: string, data: object = {}): string =>
  `event: ${type}\ndata: ${JSON.stringify({ type, ...data })}\n\n`

export const started =
  event("message_start", { message: { ...message(25, 1), content: [], stop_reason: null } }) + event("ping")

/** Twenty-seven characters: about ten tokens. */
export const content =
  event("content_block_start", { index: 0, content_block: { type: "text", text: "" } }) +
  event("content_block_delta", { index: 0, delta: { type: "text_delta", text: "abcdefghijklmnopqrstuvwxyz." } })

export const ended =
  event("content_block_stop", { index: 0 }) +
  event("message_delta", { delta: { stop_reason: "end_turn" }, usage: { output_tokens: 12 } }) +
  event("message_stop")

/** A stream of some events that then ends, breaks or hangs. */
export const stream =
  (text: string, then: "end" | "break" | "hang" = "end"): Handler =>
  (response) => {
    response.writeHead(200, { "content-type": "text/event-stream", "request-id": "req_test" })
    response.write(text, () => {
      if (then === "end") response.end()
      if (then === "break") response.destroy()
    })
  }
