import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as Events from "floodgate/Events"
import * as Fetch from "floodgate/fetch"
import * as Governor from "floodgate/Governor"
import { type Protocol, protocols } from "floodgate/protocol"
import * as Retry from "floodgate/Retry"
import { setImmediate } from "node:timers/promises"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { rejection } from "../support/rejection.ts"

const { openaiChat } = protocols

// Transports and callers that do everything at the worst moment. Waits are for conditions, never for times.

setFlagsFromString("--expose-gc")
const collect = Effect.sync(runInNewContext("gc") as () => void)

const governed = Effect.fnUntraced(function* (
  fetch: typeof globalThis.fetch,
  {
    around = Layer.empty,
    attempts = 1,
    observer = () => {},
    ...options
  }: Fetch.Options & {
    readonly around?: Layer.Layer<never, never, Governor.Governor>
    readonly attempts?: number
    readonly observer?: (event: Events.Event) => void
  } = {}
) {
  const retry = Retry.make({ base: "1 millis", attempts })
  const context = yield* Layer.build(
    around.pipe(
      Layer.provideMerge(Governor.layer({ retry: retry as never })),
      Layer.provideMerge(Budget.layer({ concurrency: 1 })),
      Layer.provideMerge(Layer.succeed(Events.Observer, observer))
    )
  )
  const ask = yield* Effect.provideContext(Fetch.make({ fetch, ...options }), context)
  const { status } = yield* Effect.provideContext(Budget.TokenBudget, context)
  const idle = Effect.repeat(status, {
    until: ({ pools }) => Object.values(pools).every(({ inFlight, queued }) => inFlight + queued === 0),
    schedule: Schedule.spaced("2 millis")
  })
  return { ask, idle }
})

const url = "https://api.test/v1/chat/completions"

const chat = (more: object = {}, signal?: AbortSignal): RequestInit => ({
  method: "POST",
  headers: { authorization: "Bearer one" },
  body: JSON.stringify({ model: "gpt-6", messages: [{ role: "user", content: "Hello" }], ...more }),
  ...(signal && { signal })
})

const completion = () =>
  Response.json({ choices: [{ message: { content: "Hi" } }], usage: { prompt_tokens: 9, completion_tokens: 1 } })

const answer = (body: ConstructorParameters<typeof Response>[0], status = 200, type = "application/json") =>
  new Response(body, { status, headers: { "content-type": type } })

const content = JSON.stringify({ choices: [{ index: 0, delta: { content: "Hi" } }] })

/** Never answers. It ends when its signal is aborted. */
const hangs = (signal: AbortSignal | null | undefined) =>
  new Promise<Response>((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason as Error)))

/** A layer around the governor that takes its time with an opened call. */
const slow = Layer.effect(
  Governor.Governor,
  Effect.map(Governor.Governor, (governor) => ({
    ...governor,
    open: ((...how) => Effect.tap(governor.open(...how), () => Effect.sleep("20 millis"))) as typeof governor.open
  }))
)

describe("a call", () => {
  for (const [which, before] of [
    ["the first call", 0],
    ["a later call", 1]
  ] as const) {
    it.live(`that its caller aborts while it is being sent ends: ${which}`, () =>
      Effect.gen(function* () {
        const controller = new AbortController()
        let sent = 0
        let signal: AbortSignal | null | undefined
        const here = yield* governed((_, init) => {
          if (sent++ < before) return Promise.resolve(completion())
          signal = init?.signal
          const answer = hangs(signal)
          controller.abort(new Error("enough"))
          return answer
        })
        for (let call = 0; call < before; call++) yield* Effect.promise(() => here.ask(url, chat()))
        const thrown = yield* rejection(() => here.ask(url, chat({}, controller.signal)))
        assert.strictEqual(thrown, controller.signal.reason)
        yield* here.idle
        assert.isTrue(signal?.aborted)
      })
    )
  }

  it.live("reads no more of an error than it may be large, even if the provider goes on", () =>
    Effect.gen(function* () {
      const chunk = new Uint8Array(64 * 1_024).fill(32)
      let pulled = 0
      const pull = (body: ReadableStreamDefaultController<Uint8Array>): void => {
        if (pulled++ < 1_000) body.enqueue(chunk)
        else body.close()
      }
      const here = yield* governed(async () => answer(new ReadableStream({ pull }, { highWaterMark: 0 }), 400))
      const response = yield* Effect.promise(() => here.ask(url, chat()))
      assert.strictEqual(response.status, 400)
      yield* here.idle
      yield* Effect.promise(() => setImmediate())
      assert.isBelow(pulled, 30)
    })
  )

  it.live("stops reading when its caller leaves, even if the provider does not notice", () =>
    Effect.gen(function* () {
      const controller = new AbortController()
      let pulled = 0
      const pull = async (body: ReadableStreamDefaultController<Uint8Array>): Promise<void> => {
        await setImmediate()
        pulled++
        if (pulled === 3) controller.abort(new Error("enough"))
        if (pulled < 100) body.enqueue(new Uint8Array([32]))
        else body.close()
      }
      const here = yield* governed(() => Promise.resolve(answer(new ReadableStream({ pull }, { highWaterMark: 0 }))))
      yield* rejection(() => here.ask(url, chat({}, controller.signal)))
      yield* here.idle
      for (let turn = 0; turn < 100; turn++) yield* Effect.promise(() => setImmediate())
      assert.isAtMost(pulled, 4)
    })
  )

  it.live("that its caller aborts while it is sent again, without asking for usage, ends", () =>
    Effect.gen(function* () {
      const controller = new AbortController()
      const signals: Array<AbortSignal | null | undefined> = []
      const here = yield* governed(async (_, init) => {
        signals.push(init?.signal)
        if (signals.length === 1) return completion()
        if (signals.length === 2) return new Response("unknown field stream_options", { status: 400 })
        controller.abort(new Error("enough"))
        return hangs(init?.signal)
      })
      yield* Effect.promise(() => here.ask(url, chat()))
      yield* rejection(() => here.ask(url, chat({ stream: true }, controller.signal)))
      yield* here.idle
      assert.strictEqual(signals.length, 3)
      assert.isTrue(signals[2]?.aborted)
    })
  )

  it.effect("that is aborted by whoever hears of its rejection is not repeated", () =>
    Effect.gen(function* () {
      const controller = new AbortController()
      let sent = 0
      const provider = async () => (sent++ === 0 ? completion() : answer("slow down", 429))
      const observer = ({ type }: Events.Event): void => {
        if (type === "rejection") controller.abort(new Error("enough"))
      }
      const here = yield* governed(provider, { attempts: 3, observer })
      yield* Effect.promise(() => here.ask(url, chat()))
      assert.strictEqual(yield* rejection(() => here.ask(url, chat({}, controller.signal))), controller.signal.reason)
      yield* TestClock.adjust("1 minute")
      yield* Effect.promise(() => setImmediate())
      assert.strictEqual(sent, 2)
    })
  )

  it.live(
    "keeps nothing in memory of what its reader has read",
    () =>
      Effect.gen(function* () {
        let first: WeakRef<Uint8Array> | undefined
        const here = yield* governed(async () => {
          const chunk = new TextEncoder().encode(`data: ${content}\n\n`)
          first = new WeakRef(chunk)
          const body = new ReadableStream<Uint8Array>({ start: (body) => body.enqueue(chunk) })
          return new Response(body, { headers: { "content-type": "text/event-stream" } })
        })
        const response = yield* Effect.promise(() => here.ask(url, chat({ stream: true })))
        const reader = response.body!.getReader()
        yield* Effect.asVoid(Effect.promise(() => reader.read()))
        yield* Effect.repeat(collect, {
          until: () => first?.deref() === undefined,
          schedule: Schedule.spaced("5 millis")
        })
        yield* Effect.promise(() => reader.cancel())
      }),
    { tags: "full" }
  )

  it.live(
    "passes on in linear time what is too large to be read, however small its chunks are",
    () =>
      Effect.gen(function* () {
        const [chunk, chunks] = [new Uint8Array(170), 200_000]
        let sent = 0
        const pull = (controller: ReadableStreamDefaultController<Uint8Array>): void => {
          if (sent++ < chunks) controller.enqueue(chunk)
          else controller.close()
        }
        const { ask, idle } = yield* governed(async () => answer(new ReadableStream({ pull })))
        const { body } = yield* Effect.promise(() => ask(url, chat()))
        let bytes = 0
        yield* Effect.promise(async () => {
          for await (const piece of body!) bytes += piece.length
        })
        assert.strictEqual(bytes, chunks * chunk.length)
        yield* idle
      }),
    { tags: "full", timeout: 5_000 }
  )

  it.live(
    "answers several reads of its body that wait at the same time",
    () =>
      Effect.gen(function* () {
        const event = Buffer.from(`data: ${content}\n\n`)
        const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>(undefined, { highWaterMark: 9 })
        const provider = writable.getWriter()
        void provider.write(event)
        const { ask, idle } = yield* governed(async () => answer(readable, 200, "text/event-stream"))
        const { body } = yield* Effect.promise(() => ask(url, chat({ stream: true })))
        const reader = body!.getReader()
        yield* Effect.promise(() => reader.read())
        const reads = [reader.read(), reader.read()]
        for (let sent = 0; sent < 2; sent++) {
          yield* Effect.promise(() => setImmediate())
          void provider.write(event)
        }
        const read = yield* Effect.promise(() => Promise.all(reads))
        assert.deepStrictEqual(
          read.map(({ done }) => done),
          [false, false]
        )
        yield* Effect.promise(() => reader.cancel())
        yield* idle
      }),
    5_000
  )

  it.live("is not read on while a layer around the governor takes its time, and ends if its protocol throws", () =>
    Effect.gen(function* () {
      const events = [content, content, "[DONE]"].map((data) => new TextEncoder().encode(`data: ${data}\n\n`))
      let pulled = 0
      const pull = (body: ReadableStreamDefaultController<Uint8Array>) => body.enqueue(events[pulled++]!)
      const sent = () => answer(new ReadableStream({ pull }, { highWaterMark: 0 }), 200, "text/event-stream")
      const observe: Protocol["observe"] = (answer, event) => {
        if (pulled > 1) throw new Error("a fault of its own")
        return openaiChat.observe(answer, event)
      }
      const here = yield* governed(async () => sent(), { around: slow, protocols: [{ ...openaiChat, observe }] })
      const response = yield* Effect.promise(() => here.ask(url, chat({ stream: true })))
      assert.strictEqual(pulled, 1)
      assert.match(String(yield* rejection(() => response.text())), /a fault of its own/)
      yield* here.idle
    })
  )
})
