import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import * as Retry from "floodgate/Retry"
import { rawAnswer, type RawRequest, serveRaw } from "../../../test/support/rawServer.ts"
import { ask, chat, completion } from "./world.ts"

// Kept connections that are reset when they are used again. These use raw connections, so they run on the real clock.

/** Any failed attempt would end its call. */
const once = Retry.make({ attempts: 1 })

/** The clock of a gateway, which a test can set forward. */
const shifted = Effect.map(Clock.Clock, (clock) => {
  let millis = 0
  const own: Clock.Clock = Object.assign(Object.create(clock) as Clock.Clock, {
    monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe() + BigInt(millis) * 1_000_000n
  })
  return { own, forward: (by: number) => void (millis += by) }
})

const world = Effect.fnUntraced(function* (answer: (request: RawRequest, forward: (millis: number) => void) => void) {
  const { forward, own } = yield* shifted
  const upstream = yield* serveRaw((request) => answer(request, forward))
  const context = yield* Layer.build(
    Governor.layer({ retry: once as never }).pipe(
      Layer.provideMerge(Budget.layer({ limits: { outputTokens: { total: 100_000 }, requests: { total: 1_000 } } }))
    )
  )
  const { url } = yield* Gateway.make({
    upstreams: { openai: upstream.url },
    drain: "20 millis",
    account: () => "own"
  }).pipe(Effect.provideContext(context), Effect.provideService(Clock.Clock, own))
  const { status } = Context.get(context, Budget.TokenBudget)
  const left = Effect.map(status, ({ pools }) => {
    const { dimensions } = Object.entries(pools).find(([name]) => name !== "default")![1]
    return { requests: dimensions.requests!.level, output: dimensions.outputTokens!.level }
  })
  return { upstream, url, left }
})

/** Serves one request on each connection, and resets it at the next one. */
const onceEach = ({ onConnection, socket }: RawRequest): void => {
  if (onConnection === 0) socket.write(rawAnswer(completion))
  else socket.resetAndDestroy()
}

/** Sends waves of requests, so that each finds the connections of the wave before. Returns how often each status came. */
const waves = Effect.fnUntraced(function* (url: string, init?: RequestInit) {
  const statuses: Record<number, number> = {}
  for (let wave = 0; wave < 10; wave++) {
    const all = yield* Effect.all(
      Array.from({ length: 10 }, () => ask(url, init)),
      { concurrency: "unbounded" }
    )
    for (const { status } of all) statuses[status] = (statuses[status] ?? 0) + 1
  }
  return statuses
})

describe("a kept connection that is reset at its next use", () => {
  it.live("costs a GET nothing", () =>
    Effect.gen(function* () {
      const { url } = yield* world(onceEach)
      assert.deepStrictEqual(yield* waves(`${url}/openai/v1/models`), { 200: 100 })
    })
  )

  it.live("costs a call nothing", () =>
    Effect.gen(function* () {
      const { left, upstream, url } = yield* world(onceEach)
      assert.deepStrictEqual(yield* waves(`${url}/openai/v1/chat/completions`, chat({ max_tokens: 50 })), { 200: 100 })
      // Each is charged once, for what its one answer says.
      assert.deepStrictEqual(yield* left, { requests: 900, output: 97_000 })
      const resets = upstream.requests.length - 100
      assert.isAbove(resets, 0)
      assert.strictEqual(upstream.connections(), 100)
    })
  )

  it.live("costs a call nothing whose body is changed and large", () =>
    Effect.gen(function* () {
      const { upstream, url } = yield* world(onceEach)
      const messages = [{ role: "user", content: "a".repeat(200_000) }]
      const large = chat({ messages, max_tokens: 50, stream: true })
      for (let at = 0; at < 2; at++) {
        assert.strictEqual((yield* ask(`${url}/openai/v1/chat/completions`, large)).status, 200)
      }
      const bodies = upstream.requests.map((text) => text.slice(text.indexOf("\r\n\r\n") + 4))
      assert.strictEqual(upstream.requests.length, 3)
      assert.deepStrictEqual(new Set(bodies).size, 1)
      assert.include(bodies[0], "include_usage")
    })
  )

  it.live("is told to the caller of any other request, which is not sent again", () =>
    Effect.gen(function* () {
      const { upstream, url } = yield* world(onceEach)
      const post = { method: "POST", body: "{}" }
      assert.strictEqual((yield* ask(`${url}/openai/v1/files`, post)).status, 200)
      const { headers, status } = yield* ask(`${url}/openai/v1/files`, post)
      assert.deepStrictEqual([status, headers.get("retry-after")], [502, "5"])
      assert.strictEqual(upstream.requests.length, 2)
    })
  )
})

describe("a call whose connection breaks", () => {
  const path = "/openai/v1/chat/completions"

  it.live("is not sent again by the transport on a new connection", () =>
    Effect.gen(function* () {
      const { upstream, url } = yield* world(({ socket }) => socket.resetAndDestroy())
      assert.strictEqual((yield* ask(`${url}${path}`, chat())).status, 502)
      assert.strictEqual(upstream.requests.length, 1)
    })
  )

  it.live("is not sent again if the provider had time to work on it", () =>
    Effect.gen(function* () {
      const { upstream, url } = yield* world(({ onConnection, socket }, forward) => {
        if (onConnection === 0) return void socket.write(rawAnswer(completion))
        forward(1_000)
        return void socket.resetAndDestroy()
      })
      assert.strictEqual((yield* ask(`${url}${path}`, chat())).status, 200)
      assert.strictEqual((yield* ask(`${url}${path}`, chat())).status, 502)
      assert.strictEqual(upstream.requests.length, 2)
    })
  )

  it.live("is not sent again once a response has begun", () =>
    Effect.gen(function* () {
      const { upstream, url } = yield* world(({ onConnection, socket }) => {
        if (onConnection === 0) return void socket.write(rawAnswer(completion))
        return void socket.write("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", () => socket.end())
      })
      assert.strictEqual((yield* ask(`${url}${path}`, chat())).status, 200)
      assert.strictEqual((yield* ask(`${url}${path}`, chat())).status, 502)
      assert.strictEqual(upstream.requests.length, 2)
    })
  )

  it.live("is sent a second time, and never a third", () =>
    Effect.gen(function* () {
      const { upstream, url } = yield* world(({ before, socket }) => {
        if (before === 0) socket.write(rawAnswer(completion))
        else socket.resetAndDestroy()
      })
      assert.strictEqual((yield* ask(`${url}${path}`, chat())).status, 200)
      assert.strictEqual((yield* ask(`${url}${path}`, chat())).status, 502)
      assert.strictEqual(upstream.requests.length, 3)
    })
  )
})
