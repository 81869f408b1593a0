/** Requests that are abandoned at a random stage, by their client or by the provider, through a real gateway. */
import { assert } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schedule from "effect/Schedule"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import { OnlyEffect } from "../../../src/domain/syncForm.ts"
import * as Retry from "floodgate/Retry"
import * as Net from "node:net"
import { setTimeout as pause } from "node:timers/promises"
import { event } from "../../../test/support/httpProvider.ts"
import { serve } from "../../../test/support/httpServer.ts"
import { mulberry } from "../../../test/support/random.ts"

const usage = { input_tokens: 100, output_tokens: 9 }
const answer = { id: "m", type: "message", role: "assistant", model: "claude-sonnet-5", stop_reason: "end_turn", usage }
const whole = JSON.stringify({ ...answer, content: [{ type: "text", text: "x".repeat(2_000) }] })
const events = [
  event("message_start", { message: { ...answer, content: [] } }),
  event("content_block_start", { index: 0, content_block: { type: "text", text: "" } }),
  event("content_block_delta", { index: 0, delta: { type: "text_delta", text: "Hi" } }),
  event("message_delta", { delta: { stop_reason: "end_turn" }, usage }),
  event("message_stop")
]

/** How far a request gets before its client or its provider abandons it. */
const stages = ["sends a part of its body", "leaves early", "reads a part", "reads all", "is cut off"] as const
type Stage = (typeof stages)[number]

const requestOf = (stage: Stage, stream: boolean): readonly [head: string, body: string] => {
  const messages = [{ role: "user", content: `${stage}. ${"Hello ".repeat(50)}` }]
  const body = JSON.stringify({ model: "claude-sonnet-5", max_tokens: 50, stream, messages })
  const head = ["POST /v1/messages HTTP/1.1", "host: localhost", "x-api-key: k", `content-length: ${body.length}`]
  return [`${head.join("\r\n")}\r\n\r\n`, body]
}

/** Makes one request, and abandons it. Returns whether it got a whole answer. */
const abandon = (url: string, stage: Stage, stream: boolean, random: () => number): Promise<boolean> =>
  new Promise((resolve) => {
    const [head, body] = requestOf(stage, stream)
    const socket = Net.connect(Number(new URL(url).port), "127.0.0.1")
    let got = ""
    socket.on("error", () => {}).on("close", () => resolve(/message_stop|end_turn/.test(got)))
    socket.write(head)
    if (stage === "sends a part of its body") {
      socket.write(body.slice(0, 100))
      void pause(1 + random() * 5).then(() => socket.destroy())
      return
    }
    socket.write(body)
    if (stage === "leaves early") void pause(random() * 8).then(() => socket.destroy())
    socket.on("data", (data) => {
      got += data.toString()
      const isOver = /message_stop|"end_turn"|^0\r\n/m.test(got) || /^HTTP\/1.1 [45]/.test(got)
      if (stage === "reads a part" || isOver) socket.destroy()
    })
    // A call whose provider cut the connection may wait for its retry.
    void pause(2_000).then(() => socket.destroy())
  })

/** Asserts that nothing is held once all requests were abandoned. With `inEffect` no call avoids Effect. */
export const nothingIsHeld = (count: number, seed: number, inEffect: boolean) =>
  Effect.gen(function* () {
    const random = mulberry(seed)
    const upstream = yield* serve((request, response, body) => {
      const isStream = body.includes('"stream":true')
      // Rarely before the first content, because several such failures in a row are an outage, which pauses all calls.
      const isCut = body.includes("is cut off") && (isStream || random() < 0.1)
      const send = async (): Promise<void> => {
        await pause(random() * 6)
        response.writeHead(200, { "content-type": isStream ? "text/event-stream" : "application/json" })
        const pieces = isStream ? events : [whole.slice(0, 900), whole.slice(900)]
        for (const [index, piece] of pieces.entries()) {
          if (isCut && index === pieces.length - 1) return void request.socket.destroy()
          response.write(piece)
          await pause(random() * 2)
        }
        response.end()
      }
      void send()
    })
    const layer = Governor.layer({ retry: Retry.make({ base: "2 millis", attempts: 2 }) }).pipe(
      Layer.provideMerge(Budget.layer({ concurrency: 12 })),
      Layer.provideMerge(Logger.layer([])),
      Layer.provideMerge(Layer.succeed(OnlyEffect, inEffect))
    )
    const context = yield* Layer.build(layer)
    const { url } = yield* Effect.provideContext(
      Gateway.make({ upstreams: { anthropic: upstream.url }, drain: "20 millis" }),
      context
    )
    const answered = yield* Effect.forEach(
      Array.from({ length: count }, (_, n) => n),
      (n) => Effect.promise(() => abandon(url, stages[n % stages.length]!, random() < 0.5, random)),
      { concurrency: 48 }
    )
    const { status } = Context.get(context, Budget.TokenBudget)
    const held = Effect.gen(function* () {
      const { pools } = yield* status
      const page = yield* Effect.promise(async () => (await fetch(`${url}/metrics`)).text())
      return {
        inFlight: Object.values(pools).reduce((sum, pool) => sum + pool.inFlight, 0),
        queued: Object.values(pools).reduce((sum, pool) => sum + pool.queued, 0),
        open: Number(/^floodgate_gateway_open (\d+)/m.exec(page)?.[1]),
        upstream: upstream.open()
      }
    })
    const isNothing = (each: object) => Object.values(each).every((value) => value === 0)
    yield* Effect.repeat(held, { schedule: Schedule.spaced("10 millis"), until: isNothing })
    // Some were sent, and some had their answer.
    assert.isAbove(upstream.requests.length, count / 20)
    assert.isAbove(answered.filter((isWhole) => isWhole).length, 0)
  })
