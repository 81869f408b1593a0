/**
 * The provider behind the gateways of a benchmark. It lives in the process of those who call, so that two cores are enough: one for
 * both ends, one for the server between them. Its answers are as cheap as possible: it reads the model's name in the first bytes only.
 */
import * as Http from "node:http"
import type { AddressInfo } from "node:net"

const sentence = "An answer of some length. "
const textOf = (length: number): string => sentence.repeat(Math.ceil(length / sentence.length)).slice(0, length)
const usage = { input_tokens: 500, output_tokens: 350 }
const message = { id: "msg_1", type: "message", role: "assistant", model: "claude-sonnet-5", stop_reason: "end_turn" }
const wholeOf = (length: number): Buffer =>
  Buffer.from(JSON.stringify({ ...message, content: [{ type: "text", text: textOf(length) }], usage }))
const wholes: Readonly<Record<string, Buffer>> = { "claude-whole": wholeOf(3_750), "claude-small": wholeOf(40) }

const event = ({ type, ...more }: { readonly type: string } & Readonly<Record<string, unknown>>): Buffer =>
  Buffer.from(`event: ${type}\ndata: ${JSON.stringify({ type, ...more })}\n\n`)
const delta = (text: string): Buffer =>
  event({ type: "content_block_delta", index: 0, delta: { type: "text_delta", text } })
const first = [
  event({ type: "message_start", message: { ...message, content: [], usage } }),
  event({ type: "content_block_start", index: 0, content_block: { type: "text", text: "" } })
]
const last = [
  event({ type: "message_delta", delta: { stop_reason: "end_turn" }, usage }),
  event({ type: "message_stop" })
]
/** The pieces of a paced answer, and the pause after each, as in the benchmark "On the Bench". */
export const pieces = 64
const paceMillis = 20
const paced = [...first, ...Array.from({ length: pieces }, (_, n) => delta(`word ${n} `)), ...last]
const streamed = [
  ...first,
  ...textOf(1_400)
    .match(/.{1,140}/gs)!
    .map(delta),
  ...last
]

/** Writes one event after the other, with a pause after each. */
const pause = async (response: Http.ServerResponse, events: ReadonlyArray<Buffer>, millis: number): Promise<void> => {
  for (const each of events) {
    response.write(each)
    await new Promise((resolve) => setTimeout(resolve, millis))
  }
  response.end()
}

const answer = (model: string, response: Http.ServerResponse): void => {
  const whole = wholes[model]
  if (whole !== undefined) {
    response.writeHead(200, { "content-type": "application/json", "content-length": whole.length }).end(whole)
    return
  }
  response.writeHead(200, { "content-type": "text/event-stream" })
  if (model === "claude-spread") return void pause(response, streamed, 1)
  if (model === "claude-paced") return void pause(response, paced, paceMillis)
  for (const each of model === "claude-endless" ? streamed.slice(0, 3) : streamed) response.write(each)
  if (model !== "claude-endless") response.end()
}

export interface Upstream {
  readonly url: string
  readonly close: () => void
}

/** Answers in the shape that the model's name names: whole, small, spread, burst, paced, or endless. */
export const start = async (): Promise<Upstream> => {
  const server = Http.createServer((request, response) => {
    let model: string | undefined
    request.on("data", (chunk: Buffer) => {
      model ??= /"model":"([^"]+)"/.exec(chunk.toString("latin1", 0, 200))?.[1]
    })
    request.on("end", () => answer(model ?? "claude-whole", response))
  })
  server.keepAliveTimeout = 120_000
  await new Promise<void>((resolve) => server.listen({ port: 0, host: "127.0.0.1", backlog: 4_096 }, resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () => {
      server.close()
      server.closeAllConnections()
    }
  }
}
