import Sdk from "@anthropic-ai/sdk"
import type { RawMessageStreamEvent } from "@anthropic-ai/sdk/resources/messages/messages"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Floodgate from "floodgate/anthropic"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import * as LlmClient from "floodgate/LlmClient"
import { LlmError } from "floodgate/LlmError"
import { LlmProvider } from "floodgate/LlmProvider"
import * as Anthropic from "floodgate/providers/Anthropic"
import * as Retry from "floodgate/Retry"
import { type Effort, options } from "./kept.ts"

// A Messages API stream that is cut into chunks anywhere (also within characters), ends or breaks anywhere, and has changed
// bytes: read by the official SDK through LlmClient, and by the SDK with and without the middleware.

const params = { model: "claude-sonnet-5", max_tokens: 100, messages: [{ role: "user" as const, content: "x" }] }

const message = {
  id: "msg_1",
  type: "message",
  role: "assistant",
  model: "claude-sonnet-5",
  content: [],
  stop_reason: null,
  stop_sequence: null,
  usage: { input_tokens: 10, output_tokens: 1 }
}

const share = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1, exclusiveMaximum: true }))
const word = Schema.Union([Schema.String, Schema.Literals(["é", "漢字", "👍🏽", "\n\n", "data: {}", "\u0000", " "])])
const input = {
  texts: Schema.Array(word),
  /** What may come between two events: a ping, an unknown event, a comment. */
  between: Schema.Literals([
    "",
    'event: ping\ndata: {"type":"ping"}\n\n',
    'event: new\ndata: {"type":"new"}\n\n',
    ": hello\n\n"
  ]),
  newline: Schema.Literals(["\n", "\r\n"]),
  cuts: Schema.Array(share)
}

type Input = {
  readonly texts: ReadonlyArray<string>
  readonly between: string
  readonly newline: string
  readonly cuts: ReadonlyArray<number>
}

const eventsOf = (
  texts: ReadonlyArray<string>
): ReadonlyArray<{ readonly type: string; readonly [field: string]: unknown }> => [
  { type: "message_start", message },
  { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } },
  ...texts.map((text) => ({ type: "content_block_delta", index: 0, delta: { type: "text_delta", text } })),
  { type: "content_block_stop", index: 0 },
  { type: "message_delta", delta: { stop_reason: "end_turn", stop_sequence: null }, usage: { output_tokens: 20 } },
  { type: "message_stop" }
]

const bytesOf = ({ between, newline, texts }: Input): Uint8Array =>
  new TextEncoder().encode(
    eventsOf(texts)
      .map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`)
      .join(between)
      .replaceAll("\n", newline)
  )

/** The bytes in pieces, cut at these shares of the whole. */
const pieces = (bytes: Uint8Array, cuts: ReadonlyArray<number>): Array<Uint8Array> => {
  const at = [0, ...cuts.map((cut) => Math.floor(cut * bytes.length)).sort((a, b) => a - b), bytes.length]
  return at.slice(1).map((end, index) => bytes.subarray(at[index], end))
}

type Ending = "end" | "break"

const fetchOf =
  (chunks: ReadonlyArray<Uint8Array>, ending: Ending): typeof fetch =>
  async () => {
    const left = [...chunks]
    return new Response(
      new ReadableStream<Uint8Array>(
        {
          pull: (controller) => {
            const chunk = left.shift()
            if (chunk !== undefined) controller.enqueue(chunk)
            else if (ending === "end") controller.close()
            else controller.error(new TypeError("terminated"))
          }
        },
        { highWaterMark: 0 }
      ),
      { status: 200, headers: { "content-type": "text/event-stream" } }
    )
  }

const once = Retry.make({ attempts: 1 })
const budget = Budget.layer({ limits: { requests: { perMinute: 1e6 }, outputTokens: { perMinute: 1e9 } } })
const sdk = (send: typeof fetch, middleware: ReadonlyArray<NonNullable<Sdk["middleware"]>[number]> = []) =>
  new Sdk({ apiKey: "key", baseURL: "http://127.0.0.1:9", fetch: send, maxRetries: 0, middleware: [...middleware] })

const assertSettled = Effect.gen(function* () {
  const { pools } = yield* Effect.flatMap(Budget.TokenBudget, (budget) => budget.status)
  for (const { dimensions, inFlight, queued } of Object.values(pools)) {
    assert.deepStrictEqual([inFlight, queued], [0, 0])
    for (const { level } of Object.values(dimensions)) assert.isTrue(Number.isFinite(level))
  }
})

/** What a consumer of LlmClient sees. */
const throughClient = (send: typeof fetch) =>
  Effect.gen(function* () {
    const seen: Array<RawMessageStreamEvent> = []
    const exit = yield* LlmClient.stream(params).pipe(
      Stream.runForEach((event) => Effect.sync(() => seen.push(event))),
      Effect.exit
    )
    yield* assertSettled
    return { exit, seen }
  }).pipe(
    Effect.provide(
      LlmClient.layerProvider({ retry: once }).pipe(
        Layer.provide(Layer.succeed(LlmProvider, Anthropic.fromClient(sdk(send)))),
        Layer.provideMerge(budget)
      )
    )
  )

/** What a user of the SDK sees. */
const read = async (client: Sdk) => {
  const seen: Array<unknown> = []
  try {
    for await (const event of await client.messages.create({ ...params, stream: true })) seen.push(event)
    return { seen, thrown: undefined }
  } catch (thrown) {
    return { seen, thrown: thrown instanceof Error ? `${thrown.name}: ${thrown.message}` : thrown }
  }
}

const hasContent = (event: unknown): boolean => JSON.stringify(event).includes('"content_block')

const alone = (send: typeof fetch) => Effect.promise(() => read(sdk(send)))

const throughMiddleware = (send: typeof fetch) =>
  Effect.gen(function* () {
    const middleware = yield* Floodgate.make()
    const result = yield* Effect.promise(() => read(sdk(send, [middleware])))
    // The call is settled one turn of the event loop after its body has ended.
    yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
    yield* assertSettled
    return result
  }).pipe(Effect.provide(Layer.provideMerge(Governor.layer({ retry: once }), budget)))

/** A consumer gets a prefix of what was sent, and a failure if that is not all. */
const assertHonest = (
  sent: ReadonlyArray<string>,
  { exit, seen }: Effect.Success<ReturnType<typeof throughClient>>
): void => {
  if (Exit.isSuccess(exit)) {
    assert.strictEqual(seen.at(-1)?.type, "message_stop")
    return
  }
  const error = Exit.findErrorOption(exit)
  if (error._tag === "None" || !(error.value instanceof LlmError)) return assert.fail(`no LlmError: ${String(exit)}`)
  const { isRetryable, reason } = error.value
  const started = seen.some(({ type }) => type === "content_block_start" || type === "content_block_delta")
  if (started) {
    assert.strictEqual(reason._tag, "StreamInterrupted")
    assert.isFalse(isRetryable)
    assert.isTrue(sent.join("").startsWith(reason.received?.text ?? "?"), reason.received?.text)
  }
}

export const streams = (effort: Effort): void => {
  describe("streams", () => {
    it.live.prop(
      "are the same whatever the chunks, and are settled",
      input,
      (input) =>
        Effect.gen(function* () {
          const { exit, seen } = yield* throughClient(fetchOf(pieces(bytesOf(input), input.cuts), "end"))
          assert.isTrue(Exit.isSuccess(exit), String(exit))
          const known = seen.filter(({ type }) => (type as string) !== "new")
          assert.deepStrictEqual(known as ReadonlyArray<unknown>, eventsOf(input.texts))
        }),
      options(effort)
    )

    it.live.prop(
      "that end or break anywhere are never whole, never repeated, and always settled",
      { ...input, at: share, ending: Schema.Literals(["end", "break"]) },
      ({ at, ending, ...input }) =>
        Effect.gen(function* () {
          const bytes = bytesOf(input)
          const cut = bytes.subarray(0, Math.floor(at * bytes.length))
          const result = yield* throughClient(fetchOf(pieces(cut, input.cuts), ending))
          assertHonest(input.texts, result)
          const known = result.seen.filter(({ type }) => (type as string) !== "new")
          assert.deepStrictEqual(known as ReadonlyArray<unknown>, eventsOf(input.texts).slice(0, known.length))
        }),
      options(effort)
    )

    it.live.prop(
      "with bytes changed end in a typed failure or whole, and are settled",
      {
        ...input,
        changes: Schema.Array(Schema.Tuple([share, Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))]))
      },
      ({ changes, ...input }) =>
        Effect.gen(function* () {
          const bytes = bytesOf(input)
          for (const [at, byte] of changes) bytes[Math.floor(at * bytes.length)] = byte
          const { exit, seen } = yield* throughClient(fetchOf(pieces(bytes, input.cuts), "end"))
          if (Exit.isSuccess(exit)) return assert.strictEqual(seen.at(-1)?.type, "message_stop")
          const error = Exit.findErrorOption(exit)
          assert.isTrue(error._tag === "Some" && error.value instanceof LlmError, String(exit))
        }),
      options(effort)
    )

    it.live.prop(
      "through the middleware end as with the SDK alone, and fail if there is no content at all",
      { ...input, at: share, ending: Schema.Literals(["end", "break", "whole"]) },
      ({ at, ending, ...input }) =>
        Effect.gen(function* () {
          const bytes = bytesOf(input)
          const cut = ending === "whole" ? bytes : bytes.subarray(0, Math.floor(at * bytes.length))
          const send = fetchOf(pieces(cut, input.cuts), ending === "break" ? "break" : "end")
          const governed = yield* throughMiddleware(send)
          const bare = yield* alone(send)
          const isNothing = bare.thrown === undefined && !bare.seen.some(hasContent)
          const thrown = isNothing ? governed.thrown : bare.thrown
          assert.deepStrictEqual(governed, { ...bare, thrown })
          if (isNothing) assert.match(String(thrown), /it ended before its first content$/)
        }),
      options(effort)
    )
  })
}
