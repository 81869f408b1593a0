import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Retry from "floodgate/Retry"
import type * as Http from "node:http"
import { geminiList } from "../../../test/protocol/fixtures.ts"
import { until } from "../../../test/support/gateway.ts"
import type { Handler } from "../../../test/support/httpServer.ts"
import { answers, ask, asksUsage, chat, completion, events, type Got, idle, json, ledger, world } from "./world.ts"

// These use real HTTP, so they run on the real clock. They wait for conditions, or for times of the gateway that are cut short.

const held = { silence: "30 millis", keepAlive: "10 millis" } as const

/** A gateway whose provider answers its first request when the test says so. */
const slow = Effect.fnUntraced(function* (answer: (response: Http.ServerResponse) => void) {
  const { promise: arrived, resolve } = Promise.withResolvers<Http.ServerResponse>()
  const here = yield* world((_, response) => resolve(response), held)
  return { ...here, answer: () => void arrived.then(answer) }
})

/** Asks, and calls `answer` once the gateway has kept the client alive twice. */
const askHeld = (url: string, init: RequestInit, answer: () => void): Effect.Effect<Got, unknown> =>
  Effect.tryPromise({
    try: async (signal) => {
      const { body, headers, status } = await fetch(url, { signal, ...init })
      const decoder = new TextDecoder()
      let pieces = 0
      let text = ""
      for await (const piece of body!) {
        text += decoder.decode(piece, { stream: true })
        if (++pieces === 2) answer()
      }
      return { status, headers, text }
    },
    catch: (thrown) => thrown
  })

describe("a gateway whose provider is slow", () => {
  it.live("keeps a call that is not streamed alive with white space", () =>
    Effect.gen(function* () {
      const { answer, url } = yield* slow((response) => json(response, 200, completion))
      const got = yield* askHeld(`${url}/v1/chat/completions`, chat(), answer)
      assert.strictEqual(got.status, 200)
      assert.strictEqual(got.headers.get("content-type"), "application/json")
      assert.match(got.text, /^ {2,}\{/)
      assert.strictEqual(got.text.trimStart(), completion)
    })
  )

  it.live("adds nothing to a file, and leaves it the provider's type, however long it takes", () =>
    Effect.gen(function* () {
      const file = "\u0001 no JSON"
      const here = yield* world((_, response) => {
        // No event shows that nothing was sent, so the provider takes ten times the silence.
        setTimeout(() => response.writeHead(200, { "content-type": "audio/mpeg" }).end(file), 300)
      }, held)
      const got = yield* ask(`${here.url}/v1/audio/speech`, chat({ model: "tts-1", input: "Hello" }))
      assert.deepStrictEqual([got.status, got.headers.get("content-type"), got.text], [200, "audio/mpeg", file])
      yield* idle(here)
    })
  )

  it.live.each(["text/event-stream", "Text/Event-Stream", "text/plain"])("keeps a stream of type %s alive", (type) =>
    Effect.gen(function* () {
      const { answer, url } = yield* slow((response) =>
        response.writeHead(200, { "content-type": type }).end(events.join(""))
      )
      const got = yield* askHeld(`${url}/v1/chat/completions`, chat(asksUsage), answer)
      assert.strictEqual(got.headers.get("content-type"), "text/event-stream")
      assert.match(got.text, /^(?:: keep-alive\n\n){2,}data/)
      assert.isTrue(got.text.endsWith(events.join("")))
    })
  )

  it.live("keeps a stream that is a JSON list alive with white space", () =>
    Effect.gen(function* () {
      const list = JSON.stringify(geminiList, undefined, 2)
      const here = yield* slow((response) => json(response, 200, list))
      const call = { method: "POST", headers: { "x-goog-api-key": "k" }, body: '{"contents":[]}' }
      const got = yield* askHeld(`${here.url}/v1beta/models/gemini-3:streamGenerateContent`, call, here.answer)
      assert.strictEqual(got.headers.get("content-type"), "application/json")
      assert.match(got.text, /^ {2,}\[/)
      assert.strictEqual(got.text.trimStart(), list)
      yield* idle(here)
    })
  )

  it.live("breaks the connection if an early answer that is not a stream fails", () =>
    Effect.gen(function* () {
      const { answer, url } = yield* slow((response) => json(response, 400, '{"error":{}}'))
      const exit = yield* Effect.exit(askHeld(`${url}/v1/chat/completions`, chat(), answer))
      assert.isTrue(Exit.isFailure(exit))
    })
  )

  it.live("ends an early stream that fails with an error in the provider's form", () =>
    Effect.gen(function* () {
      const { answer, url } = yield* slow((response) => json(response, 400, '{"error":{}}'))
      const init = {
        ...chat({ stream: true, max_tokens: 9 }),
        headers: { "x-api-key": "k", "anthropic-version": "2023-06-01" }
      }
      const got = yield* askHeld(`${url}/v1/messages`, init, answer)
      assert.strictEqual(got.status, 200)
      assert.match(got.text, /^(?:event: ping\ndata: \{"type":"ping"\}\n\n)+event: error\ndata: .*status 400/)
    })
  )

  it.live("refuses a call that would wait too long at once, so that the client comes back", () =>
    Effect.gen(function* () {
      const limits = { requests: { perMinute: 1 } }
      const here = yield* world(answers, { budget: { limits }, maxHold: "5 seconds" })
      const first = yield* ask(`${here.url}/v1/chat/completions`, chat())
      const second = yield* ask(`${here.url}/v1/chat/completions`, chat())
      assert.deepStrictEqual([first.status, second.status], [200, 429])
      const seconds = Number(second.headers.get("retry-after"))
      assert.isTrue(seconds >= 5 && seconds <= 59, String(seconds))
      assert.isNull(second.headers.get("x-should-retry"))
      assert.strictEqual(here.bodies.length, 1)
    })
  )

  it.live("refuses a call whose wait has become too long, while its response can still be a refusal", () =>
    Effect.gen(function* () {
      const pending: Array<() => void> = []
      let isClosed = false
      const here = yield* world(
        (_, response) => {
          const reject = () => json(response, 429, "{}", { "retry-after": "600" })
          if (isClosed) reject()
          else pending.push(reject)
        },
        { budget: { ...ledger, concurrency: 1 }, silence: "1 second", keepAlive: "1 second" }
      )
      const first = yield* Effect.forkChild(ask(`${here.url}/v1/chat/completions`, chat()))
      yield* until(
        Effect.sync(() => pending.length),
        (count) => count === 1
      )
      const others = yield* Effect.forEach([1, 2], (count) =>
        Effect.tap(Effect.forkChild(ask(`${here.url}/v1/chat/completions`, chat({ stream: true }))), () =>
          until(here.pool, ({ queued }) => queued === count)
        )
      )
      // The provider closes unexpectedly, and the next request may already have been sent.
      isClosed = true
      pending[0]!()
      const refused = yield* Fiber.join(others[1]!)
      assert.strictEqual(refused.status, 429)
      assert.isAtLeast(Number(refused.headers.get("retry-after")), 5)
      assert.isAtMost(Number(refused.headers.get("retry-after")), 59)
      assert.strictEqual((yield* Fiber.join(first)).status, 429)
      yield* idle(here)
    })
  )
})

describe("a gateway whose provider never accepts a call that the limits allow", () => {
  const message = "This request would exceed your organization's rate limit of 40,000 tokens per minute"
  const body = JSON.stringify({ type: "error", error: { type: "rate_limit_error", message } })
  const never: Handler = (_, response) => json(response, 429, body, { "retry-after": "1" })
  const init = (stream: boolean) => ({
    ...chat({ stream, max_tokens: 9 }),
    headers: { "x-api-key": "k", "anthropic-version": "2023-06-01" }
  })
  // It gives up only if it is told to, or after very many attempts.
  const retry = Retry.make({ base: "5 millis", attempts: 100 })

  /** A client that repeats rejected calls for ever, unless the response tells it not to. */
  const persistent = (url: string): Effect.Effect<Got, unknown> =>
    Effect.flatMap(ask(`${url}/v1/messages`, init(false)), (got) =>
      got.status === 429 && got.headers.get("x-should-retry") !== "false" ? persistent(url) : Effect.succeed(got)
    )

  it.live("ends it with the provider's error after maxHold, and tells the client not to repeat it", () =>
    Effect.gen(function* () {
      const here = yield* world(never, { budget: {}, retry, maxHold: "1500 millis" })
      const { status, text } = yield* persistent(here.url)
      assert.deepStrictEqual([status, text], [429, body])
      assert.isAtMost(here.bodies.length, 4)
      yield* idle(here)
    })
  )

  it.live("ends a response that has begun with an error event that quotes the provider", () =>
    Effect.gen(function* () {
      const here = yield* world(never, { ...held, budget: {}, retry, maxHold: "1500 millis" })
      const { text } = yield* ask(`${here.url}/v1/messages`, init(true))
      assert.match(text, /event: error\ndata: .*This request would exceed your organization's rate limit of 40,000/)
      assert.isAtMost(here.bodies.length, 4)
    })
  )
})
