/** What becomes of calls, and of streams that are being read, when a floodgate is disposed. */
import Anthropic from "@anthropic-ai/sdk"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as BudgetStore from "floodgate/BudgetStore"
import * as Floodgate from "floodgate/promise"
import { getEventListeners } from "node:events"

// The real clock, and providers in memory. Waits are for conditions, never for times.

const plenty = { perSecond: 1e9, burst: 1e9 }
const limits = { inputTokens: { total: 100_000 }, outputTokens: { total: 100_000 }, requests: plenty, tokens: plenty }
const params = { model: "claude-sonnet-5", max_tokens: 1_000, messages: [{ role: "user" as const, content: "Hi" }] }

const encoder = new TextEncoder()
const event = (type: string, more: object): Uint8Array =>
  encoder.encode(`event: ${type}\ndata: ${JSON.stringify({ type, ...more })}\n\n`)
/** An answer that has said what its input was, and then goes on for ever. */
const chunks = [
  event("message_start", {
    message: {
      type: "message",
      id: "m",
      role: "assistant",
      model: "m",
      content: [],
      usage: { input_tokens: 700, output_tokens: 1 }
    }
  }),
  event("content_block_start", { index: 0, content_block: { type: "text", text: "" } }),
  event("content_block_delta", { index: 0, delta: { type: "text_delta", text: "Hello" } })
]

/** A provider whose answers do not end; `isDeaf`: nor do they when they are aborted. */
const provider = (isDeaf: boolean) => {
  const signals: Array<AbortSignal> = []
  const fetch: typeof globalThis.fetch = async (_, init) => {
    const signal = init!.signal!
    signals.push(signal)
    let sent = 0
    const body = new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          if (!isDeaf) signal.addEventListener("abort", () => controller.error(signal.reason))
        },
        pull: (controller) => {
          const next = chunks[sent++]
          if (next !== undefined) return controller.enqueue(next)
          return new Promise<void>(() => {})
        }
      },
      { highWaterMark: 0 }
    )
    return new Response(body, { headers: { "content-type": "text/event-stream" } })
  }
  return { fetch, signals }
}

/** Opens a stream and reads its first content; `next` reads on. */
type Open = (
  floodgate: Floodgate.Floodgate,
  upstream: typeof fetch,
  signal?: AbortSignal
) => Promise<() => Promise<unknown>>

const throughFetch: Open = async (floodgate, _, signal) => {
  const response = await floodgate.fetch("https://api.anthropic.com/v1/messages", {
    method: "POST",
    body: JSON.stringify({ ...params, stream: true }),
    ...(signal !== undefined && { signal })
  })
  const reader = response.body!.getReader()
  for (const _ of chunks) await reader.read()
  return () => reader.read()
}

const throughMiddleware: Open = async (floodgate, upstream, signal) => {
  const client = new Anthropic({ apiKey: "any", fetch: upstream, middleware: [floodgate.middleware] })
  const stream = await client.messages.create({ ...params, stream: true }, signal && { signal })
  const events = stream[Symbol.asyncIterator]()
  for (const _ of chunks) await events.next()
  return () => events.next()
}

const throughAiSdk: Open = async (floodgate, upstream, signal) => {
  const doStream = async ({ abortSignal }: { readonly abortSignal?: AbortSignal | undefined }) => {
    const response = await upstream("https://any.test", abortSignal && { signal: abortSignal })
    const text = () => new TransformStream({ transform: (_, to) => to.enqueue({ type: "text-delta", delta: "x" }) })
    return { stream: response.body!.pipeThrough<object>(text()) }
  }
  const call = { prompt: [{ role: "user", content: [{ type: "text", text: "Hi" }] }], maxOutputTokens: 1_000 }
  const { stream } = await floodgate.aiSdk.wrapStream({
    params: { ...call, ...(signal !== undefined && { abortSignal: signal }) },
    model: { provider: "any", modelId: "any", doStream }
  })
  const reader = stream.getReader()
  for (const _ of chunks) await reader.read()
  return () => reader.read()
}

const ways = { fetch: throughFetch, "the SDK's middleware": throughMiddleware, "the AI SDK's middleware": throughAiSdk }

const rejected = async (promise: Promise<unknown>): Promise<unknown> => {
  const done = await promise.then(
    (value) => ({ value }),
    (error: unknown) => ({ error })
  )
  return "error" in done ? done.error : assert.fail(`it did not reject, but gave ${JSON.stringify(done.value)}`)
}

/** The calls in flight and the usage of all pools. */
const used = async (floodgate: Floodgate.Floodgate) => {
  const sum = { inFlight: 0, input: 0, output: 0 }
  for (const { dimensions, inFlight } of Object.values((await floodgate.status()).pools)) {
    sum.inFlight += inFlight
    sum.input += 100_000 - dimensions.inputTokens!.level
    sum.output += 100_000 - dimensions.outputTokens!.level
  }
  return sum
}

describe("dispose", () => {
  for (const [name, open] of Object.entries(ways)) {
    for (const isDeaf of [false, true]) {
      const who = `through ${name}, ${isDeaf ? "where the connection heeds no abort" : "and its connection"}`

      it(`ends a stream that is being read ${who}`, async () => {
        const { fetch, signals } = provider(isDeaf)
        const floodgate = Floodgate.create({ limits, fetch })
        const next = await open(floodgate, fetch)
        const reading = rejected(next())
        await floodgate.dispose()
        assert.instanceOf(await reading, Floodgate.ClosedError)
        assert.isTrue(signals[0]!.aborted)
        if (open !== throughAiSdk) assert.instanceOf(signals[0]!.reason, Floodgate.ClosedError)
        const { inFlight, input, output } = await used(floodgate)
        assert.strictEqual(inFlight, 0)
        // What the stream had said of its usage counts, and so does what may have been produced since.
        if (open !== throughAiSdk) assert.strictEqual(input, 700)
        assert.isAbove(output, 0)
      })

      it(`ends a stream that is read later ${who}`, async () => {
        const { fetch, signals } = provider(isDeaf)
        const floodgate = Floodgate.create({ limits, fetch })
        const next = await open(floodgate, fetch)
        await floodgate.dispose()
        assert.isTrue(signals[0]!.aborted)
        assert.instanceOf(await rejected(next()), Floodgate.ClosedError)
        assert.strictEqual((await used(floodgate)).inFlight, 0)
      })
    }

    it(`leaves no listener on the signal of a caller through ${name}`, async () => {
      const { fetch } = provider(false)
      const floodgate = Floodgate.create({ limits, fetch })
      const { signal } = new AbortController()
      const next = await open(floodgate, fetch, signal)
      const reading = rejected(next())
      await floodgate.dispose()
      await reading
      // The SDK's own is not ours.
      const left = open === throughMiddleware ? [] : getEventListeners(signal, "abort")
      assert.lengthOf(left, 0)
    })
  }

  it("ends the attempt of a run", async () => {
    const floodgate = Floodgate.create({ limits })
    const { promise, resolve } = Promise.withResolvers<AbortSignal>()
    const running = rejected(
      floodgate.run({ model: "m" }, ({ signal }) => {
        resolve(signal)
        return new Promise(() => {})
      })
    )
    const signal = await promise
    await floodgate.dispose()
    assert.instanceOf(await running, Floodgate.ClosedError)
    assert.isTrue(signal.aborted)
  })

  const later = (floodgate: Floodgate.Floodgate, upstream: typeof fetch) => ({
    run: () => floodgate.run({ model: "m" }, async () => "answer"),
    limiter: () => floodgate.limiter.acquire({ model: "m" }),
    ...Object.fromEntries(Object.entries(ways).map(([name, open]) => [name, () => open(floodgate, upstream)]))
  })

  it("refuses every later call in every way of use, including during the close", async () => {
    const { fetch, signals } = provider(false)
    for (const when of ["before it was used", "while it closes", "afterwards"]) {
      const floodgate = Floodgate.create({ limits, fetch })
      if (when !== "before it was used") await floodgate.run({ model: "m" }, async () => "answer")
      const closing = floodgate.dispose()
      if (when === "afterwards") await closing
      for (const [way, call] of Object.entries(later(floodgate, fetch))) {
        const error = await rejected(call())
        // The SDK wraps what a middleware throws.
        const cause = way === "the SDK's middleware" ? ((error as Error).cause ?? error) : error
        assert.instanceOf(cause, Floodgate.ClosedError, `${way}, ${when}`)
      }
      await closing
    }
    assert.lengthOf(signals, 0)
  })

  it("refuses later calls at once while the store takes its time", async () => {
    const values = new Map<string, BudgetStore.Stored>()
    const { promise: gate, resolve: release } = Promise.withResolvers<void>()
    let isSlow = false
    const store = BudgetStore.layer({
      read: (key) => Effect.sync(() => values.get(key)),
      swap: (key, expected, next) =>
        Effect.promise(async () => {
          if (isSlow) await gate
          if (values.get(key)?.version === expected) values.set(key, next)
          return values.get(key)
        })
    })
    const { fetch } = provider(false)
    const floodgate = Floodgate.create({ limits, fetch, store, cap: { dollars: 1 } })
    await floodgate.run({ model: "claude-sonnet-5", maxTokens: 10, inputTokens: 1 }, async () => "answer")
    isSlow = true
    const closing = floodgate.dispose()
    for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate)
    for (const [way, call] of Object.entries(later(floodgate, fetch))) {
      let error: unknown
      void rejected(call()).then((thrown) => (error = thrown))
      for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate)
      const cause = way === "the SDK's middleware" ? ((error as Error | undefined)?.cause ?? error) : error
      assert.instanceOf(cause, Floodgate.ClosedError, way)
    }
    release()
    await closing
  })

  it("can be called twice", async () => {
    const floodgate = Floodgate.create({ limits })
    await Promise.all([floodgate.dispose(), floodgate.dispose()])
    assert.isUndefined(await floodgate[Symbol.asyncDispose]())
  })
})
