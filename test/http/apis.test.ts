/** The providers' own APIs through a governed fetch: each call is paced, and settled to the tokens in its answer. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Accounting from "floodgate/Accounting"
import * as Budget from "floodgate/Budget"
import * as Fetch from "floodgate/fetch"
import * as Governor from "floodgate/Governor"
import * as Retry from "floodgate/Retry"
import { type ApiCall, apiCalls, bytesOf, eventFrame, exceptionFrame, isStreamed } from "../support/apis.ts"
import { until } from "../support/gateway.ts"

/** Limits that never refill, so that levels show what was counted. */
const limits = { requests: { total: 1_000 }, inputTokens: { total: 1_000_000 }, outputTokens: { total: 100_000 } }
/** Counts each kind of input, so that one that is mistaken for another shows. */
const accounting = Accounting.anthropic

const quick = Retry.make({ base: "5 millis", jitter: "none", attempts: 2 })

const bodyOf = ({ pieces }: Pick<ApiCall, "pieces">): ReadableStream<Uint8Array> =>
  ReadableStream.from(pieces.map((piece) => (typeof piece === "string" ? new TextEncoder().encode(piece) : piece)))

const world = Effect.fnUntraced(function* (upstream: typeof globalThis.fetch) {
  const recorded: Array<Accounting.Actual> = []
  const counting: Accounting.Accounting = {
    ...accounting,
    usage: (actual, maxTokens) => {
      recorded.push(actual)
      return accounting.usage(actual, maxTokens)
    }
  }
  const context = yield* Layer.build(
    Governor.layer({ retry: quick as never }).pipe(Layer.provideMerge(Budget.layer({ limits })))
  )
  const fetch = yield* Effect.provideContext(Fetch.make({ fetch: upstream, accounting: counting }), context)
  const pool = Effect.gen(function* () {
    const { pools } = yield* Effect.provideContext(
      Effect.flatMap(Budget.TokenBudget, ({ status }) => status),
      context
    )
    return Object.entries(pools).find(([name]) => name !== "default")?.[1]
  })
  return { fetch, pool, recorded }
})

const post = (body: object) => ({ method: "POST", body: JSON.stringify(body), headers: { authorization: "Bearer k" } })

describe("a call through a governed fetch", () => {
  for (const call of apiCalls) {
    it.live(`is counted to the token: ${call.name}${isStreamed(call) ? ", streamed" : ""}`, () =>
      Effect.gen(function* () {
        const here = yield* world(
          async () => new Response(bodyOf(call), { headers: { "content-type": call.contentType } })
        )
        const got = yield* Effect.promise(async () => {
          const response = await here.fetch(`https://provider.test${call.path}`, post(call.body))
          return Buffer.from(await response.arrayBuffer())
        })
        assert.deepStrictEqual(got, bytesOf(call))
        const pool = (yield* here.pool)!
        assert.strictEqual(pool.inFlight, 0)
        assert.strictEqual(1_000 - pool.dimensions.requests!.level, 1)
        const { cacheReadTokens, inputTokens, outputTokens } = here.recorded.at(-1)!
        assert.deepStrictEqual([inputTokens, cacheReadTokens, outputTokens], [...call.used])
        const [input, , output] = call.used
        assert.deepStrictEqual(
          [1_000_000 - pool.dimensions.inputTokens!.level, 100_000 - pool.dimensions.outputTokens!.level],
          [input, output]
        )
      }).pipe(Effect.scoped)
    )
  }

  it.live(
    "is retried after an exception in the frames of its stream, and its failure is the caller's after content",
    () =>
      Effect.gen(function* () {
        const stream = apiCalls.find(({ name }) => name === "Bedrock ConverseStream")!
        const throttled = [
          eventFrame("messageStart", { role: "assistant" }),
          exceptionFrame("throttlingException", "Slow down")
        ]
        let sent = 0
        const here = yield* world(
          async () =>
            new Response(sent++ === 0 ? bodyOf({ pieces: throttled }) : bodyOf(stream), {
              headers: { "content-type": stream.contentType }
            })
        )
        const response = yield* Effect.promise(() =>
          here.fetch(`https://provider.test${stream.path}`, post(stream.body))
        )
        assert.deepStrictEqual(Buffer.from(yield* Effect.promise(() => response.arrayBuffer())), bytesOf(stream))
        assert.strictEqual(sent, 2)
      }).pipe(Effect.scoped)
  )

  // Ollama's own client stops there, and its calls stayed in flight until the body was garbage collected.
  it.live("ends although its client stops reading at the end of the answer", () =>
    Effect.gen(function* () {
      const call = apiCalls.find((each) => each.name === "Ollama chat" && isStreamed(each))!
      const pieces = bytesOf(call)
        .toString()
        .split(/(?<=\n)/)
      const here = yield* world(
        async () => new Response(bodyOf({ pieces }), { headers: { "content-type": call.contentType } })
      )
      const response = yield* Effect.promise(() => here.fetch(`https://provider.test${call.path}`, post(call.body)))
      const reader = response.body!.getReader()
      for (const piece of pieces) {
        const { value } = yield* Effect.promise(() => reader.read())
        assert.strictEqual(Buffer.from(value!).toString(), piece)
      }
      yield* until(here.pool, (pool) => pool?.inFlight === 0)
      assert.strictEqual((yield* here.pool)!.dimensions.outputTokens!.level, 100_000 - 8)
    }).pipe(Effect.scoped)
  )

  it.live("is none if a program's own path looks like it", () =>
    Effect.gen(function* () {
      const here = yield* world(async () => new Response("ok"))
      for (const [path, body] of [
        ["/api/chat", { id: "c1", messages: [] }],
        ["/api/completion", { prompt: "Hello" }],
        ["/completion", { lesson: 3 }],
        ["/v1/conversations", { metadata: { topic: "gates" } }],
        ["/v1/conversations/conv_1", { metadata: {} }]
      ] as const) {
        const response = yield* Effect.promise(() => here.fetch(`https://provider.test${path}`, post(body)))
        assert.strictEqual(yield* Effect.promise(() => response.text()), "ok")
        assert.isUndefined(yield* here.pool)
      }
    }).pipe(Effect.scoped)
  )
})
