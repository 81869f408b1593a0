/** The trace of a call on its way through a governed `fetch` and the SDK. */
import Sdk from "@anthropic-ai/sdk"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import * as FloodgateAnthropic from "floodgate/anthropic"
import * as Budget from "floodgate/Budget"
import * as Fetch from "floodgate/fetch"
import * as Governor from "floodgate/Governor"
import * as LlmClient from "floodgate/LlmClient"
import { LlmProvider } from "floodgate/LlmProvider"
import * as Anthropic from "floodgate/providers/Anthropic"
import * as Retry from "floodgate/Retry"
import { recordingTracer } from "../support/spans.ts"

const traceId = "4bf92f3577b34da6a3ce929d0e0e4736"
const caller = `00-${traceId}-00f067aa0ba902b7-01`
const url = "https://api.anthropic.com/v1/messages"
const params = { model: "claude-sonnet-5", max_tokens: 50, messages: [{ role: "user" as const, content: "Hello" }] }
const message = {
  id: "msg_1",
  type: "message",
  role: "assistant",
  model: "claude-sonnet-5",
  content: [{ type: "text", text: "Hi" }],
  stop_reason: "end_turn",
  usage: { input_tokens: 9, output_tokens: 1 }
}

const governor = Governor.layer({ retry: Retry.make({ base: "1 millis", jitter: "none" }) }).pipe(
  Layer.provideMerge(Budget.layer())
)

/** A provider that records the headers it gets, and fails the first attempts. */
const provider = (failures = 0) => {
  const got: Array<Headers> = []
  const fetch: typeof globalThis.fetch = async (_, init) => {
    got.push(new Headers(init?.headers))
    return got.length <= failures ? new Response("{}", { status: 529 }) : Response.json(message)
  }
  return { fetch, got }
}

const headerOf = ({ sampled, spanId, traceId }: Tracer.Span): string =>
  `00-${traceId}-${spanId}-${sampled ? "01" : "00"}`

/** Makes one call with a governed fetch, in a program with or without a tracer. */
const fetched = (headers: Record<string, string>, tracer: Tracer.Tracer | undefined, failures = 0) =>
  Effect.gen(function* () {
    const { fetch, got } = provider(failures)
    const context = yield* Layer.build(governor)
    const made = Effect.provideContext(Fetch.make({ fetch }), context)
    const governed = yield* tracer === undefined ? made : Effect.withTracer(made, tracer)
    const response = yield* Effect.promise(() =>
      governed(url, { method: "POST", headers, body: JSON.stringify(params) })
    )
    assert.strictEqual(response.status, 200)
    yield* Effect.promise(() => response.text())
    return got
  })

describe("a governed fetch", () => {
  it.live("continues the trace of its caller, and passes it to the provider in each attempt", () =>
    Effect.gen(function* () {
      const { spans, tracer } = recordingTracer(({ kind }) => kind === "client")
      const got = yield* fetched({ traceparent: caller, tracestate: "vendor=1", "x-other": "1" }, tracer, 1)
      const [span] = spans
      assert.strictEqual(span!.traceId, traceId)
      assert.strictEqual(span!.parent._tag === "Some" && span!.parent.value.spanId, "00f067aa0ba902b7")
      assert.deepStrictEqual(
        got.map((headers) => headers.get("traceparent")),
        [headerOf(span!), headerOf(span!)]
      )
      assert.deepStrictEqual([got[0]!.get("tracestate"), got[0]!.get("x-other")], ["vendor=1", "1"])
    })
  )

  it.live("begins a trace if its caller has none, or sends what is not one", () =>
    Effect.gen(function* () {
      for (const headers of [{}, { traceparent: "garbage", tracestate: "vendor=1" }]) {
        const { spans, tracer } = recordingTracer(({ kind }) => kind === "client")
        const [sent] = yield* fetched(headers, tracer)
        assert.strictEqual(sent!.get("traceparent"), headerOf(spans[0]!))
        assert.isNull(sent!.get("tracestate"))
      }
    })
  )

  it.live.each([
    ["of a version that does not exist", `ff-${caller.slice(3)}`],
    ["with more fields than its version has", `${caller}-more`],
    ["of no trace", caller.replace(traceId, "0".repeat(32))],
    ["of no span", caller.replace("00f067aa0ba902b7", "0".repeat(16))],
    ["in upper case", caller.toUpperCase()],
    ["twice", `${caller}, ${caller}`],
    ["cut off", caller.slice(0, -1)]
  ])("does not continue a trace %s", ([, traceparent = ""]) =>
    Effect.gen(function* () {
      const { spans, tracer } = recordingTracer(({ kind }) => kind === "client")
      const [sent] = yield* fetched({ traceparent }, tracer)
      assert.notStrictEqual(spans[0]!.traceId, traceId)
      assert.strictEqual(sent!.get("traceparent"), headerOf(spans[0]!))
    })
  )

  it.live("continues a trace of a later version by the fields that are known", () =>
    Effect.gen(function* () {
      const { spans, tracer } = recordingTracer(({ kind }) => kind === "client")
      yield* fetched({ traceparent: `01-${caller.slice(3)}-more` }, tracer)
      assert.strictEqual(spans[0]!.traceId, traceId)
    })
  )

  it.live("passes no ids on that a tracer has given another form", () =>
    Effect.gen(function* () {
      const { tracer } = recordingTracer()
      const ids = { traceId: { value: "1\r\nx-evil: 1" }, spanId: { value: "noop" } }
      const odd = Tracer.make({ span: (options) => Object.create(tracer.span(options), ids) })
      const [sent] = yield* fetched({ traceparent: caller }, odd)
      assert.strictEqual(sent!.get("traceparent"), caller)
    })
  )

  it.live("changes nothing that AWS's signature covers", () =>
    Effect.gen(function* () {
      const { spans, tracer } = recordingTracer(({ kind }) => kind === "client")
      const signature = (names: string) =>
        `AWS4-HMAC-SHA256 Credential=AK/1/r/s/aws4_request, SignedHeaders=${names}, Signature=0`
      const headers = { traceparent: caller, authorization: signature("host;traceparent;x-amz-date") }
      const [signed] = yield* fetched(headers, tracer)
      assert.strictEqual(signed!.get("traceparent"), caller)
      const [other] = yield* fetched({ ...headers, authorization: signature("host;x-amz-date") }, tracer)
      assert.strictEqual(other!.get("traceparent"), headerOf(spans[1]!))
    })
  )

  it.live("records nothing that its caller does not record, and says so", () =>
    Effect.gen(function* () {
      const { spans, tracer } = recordingTracer(({ kind }) => kind === "client")
      const [sent] = yield* fetched({ traceparent: `${caller.slice(0, -2)}00` }, tracer)
      assert.isFalse(spans[0]!.sampled)
      assert.isTrue(sent!.get("traceparent")!.endsWith("-00"))
    })
  )

  it.live("passes the caller's headers on as they are if the program does not trace", () =>
    Effect.gen(function* () {
      const [sent] = yield* fetched({ traceparent: caller, tracestate: "vendor=1" }, undefined)
      assert.deepStrictEqual([sent!.get("traceparent"), sent!.get("tracestate")], [caller, "vendor=1"])
      const [bare] = yield* fetched({}, undefined)
      assert.isFalse(bare!.has("traceparent"))
    })
  )
})

describe("the SDK", () => {
  const client = (fetch: typeof globalThis.fetch, middleware?: FloodgateAnthropic.Middleware) =>
    new Sdk({ apiKey: "k", fetch, maxRetries: 0, ...(middleware && { middleware: [middleware] }) })

  it.live("sends the trace of a call of LlmClient, whole or streamed", () =>
    Effect.gen(function* () {
      const { spans, tracer } = recordingTracer(({ name }) => name.startsWith("chat"))
      const { fetch, got } = provider()
      const live = LlmClient.layerProvider().pipe(
        Layer.provide(Layer.succeed(LlmProvider, Anthropic.fromClient(client(fetch)))),
        Layer.provide(Budget.layer())
      )
      yield* LlmClient.create(params).pipe(
        Effect.andThen(Effect.exit(Stream.runDrain(LlmClient.stream(params)))),
        Effect.withSpan("agent"),
        Effect.provide(live),
        Effect.withTracer(tracer)
      )
      assert.isAtLeast(got.length, 2)
      assert.deepStrictEqual([...new Set(got.map((headers) => headers.get("traceparent")))], spans.map(headerOf))
    })
  )

  it.live("sends no trace from a program that does not trace", () =>
    Effect.gen(function* () {
      const { fetch, got } = provider()
      const layer = Layer.succeed(LlmProvider, Anthropic.fromClient(client(fetch)))
      yield* LlmProvider.pipe(
        Effect.flatMap(({ create }) => create(params)),
        Effect.provide(layer)
      )
      assert.isFalse(got[0]!.has("traceparent"))
    })
  )

  it.live("with the middleware continues the trace of the SDK's caller", () =>
    Effect.gen(function* () {
      const { spans, tracer } = recordingTracer(({ kind }) => kind === "client")
      const { fetch, got } = provider()
      const context = yield* Layer.build(governor)
      const middleware = yield* FloodgateAnthropic.make().pipe(
        Effect.provideContext(context),
        Effect.withTracer(tracer)
      )
      const { messages } = client(fetch, middleware)
      yield* Effect.promise(() => messages.create(params, { headers: { traceparent: caller } }))
      assert.strictEqual(spans[0]!.traceId, traceId)
      assert.strictEqual(got[0]!.get("traceparent"), headerOf(spans[0]!))
    })
  )
})
