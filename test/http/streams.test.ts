import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as Fetch from "floodgate/fetch"
import * as Governor from "floodgate/Governor"
import {
  anthropicStream,
  chatStream,
  chatStreamFiltered,
  geminiList,
  geminiStream,
  responsesStream
} from "../protocol/fixtures.ts"
import { mulberry } from "../support/random.ts"
import { nothingIsLeft } from "./brokenOff.ts"

const messages = [{ role: "user", content: "Hi" }]

const chatBody = JSON.stringify({ model: "gpt-6", stream: true, stream_options: { include_usage: true }, messages })

interface Case {
  readonly name: string
  readonly path: string
  readonly body: object
  readonly sent: string
  readonly given: string
  readonly inputTokens: number
  /** @default "text/event-stream" */
  readonly type?: string
}

const list = JSON.stringify(geminiList, undefined, 2)

/** What callers receive of a stream, and the input that it is settled to. */
const cases: ReadonlyArray<Case> = [
  {
    name: "Anthropic Messages",
    path: "/v1/messages",
    body: { model: "claude-sonnet-5", max_tokens: 10, stream: true, messages },
    sent: anthropicStream,
    given: anthropicStream,
    inputTokens: 10_982
  },
  {
    name: "Chat Completions, for a caller who asked for usage",
    path: "/v1/chat/completions",
    body: { model: "gpt-6", stream: true, stream_options: { include_usage: true }, messages },
    sent: chatStream,
    given: chatStream,
    inputTokens: 2_006
  },
  {
    name: "Chat Completions, for a caller who did not ask for usage",
    path: "/v1/chat/completions",
    body: { model: "gpt-6", stream: true, messages },
    sent: chatStream,
    given: chatStreamFiltered,
    inputTokens: 2_006
  },
  {
    name: "Responses",
    path: "/v1/responses",
    body: { model: "gpt-6", stream: true, input: "Hi" },
    sent: responsesStream,
    given: responsesStream,
    inputTokens: 1_000
  },
  {
    name: "Gemini",
    path: "/v1beta/models/gemini-4:streamGenerateContent?alt=sse",
    body: { contents: [] },
    sent: geminiStream,
    given: geminiStream,
    inputTokens: 1_540
  },
  {
    name: "Gemini, as a JSON list",
    path: "/v1beta/models/gemini-4:streamGenerateContent",
    body: { contents: [] },
    sent: list,
    given: list,
    inputTokens: 1_540,
    type: "application/json; charset=UTF-8"
  }
]

/** The limit on input never refills, so that its level shows what was settled. No other limit applies. */
const plenty = { perSecond: 1e9, burst: 1e9 }
const limits = { inputTokens: { total: 1e9 }, requests: plenty, outputTokens: plenty, tokens: plenty }

/** A response whose body arrives in pieces that end at these offsets. */
const inPieces = (bytes: Uint8Array, ends: ReadonlyArray<number>, type: string): Response => {
  const pieces = [0, ...ends].map((start, index) => bytes.slice(start, ends[index] ?? bytes.length))
  const body = new ReadableStream<Uint8Array>({
    pull: (controller) => {
      const piece = pieces.shift()
      if (piece === undefined) controller.close()
      else controller.enqueue(piece)
    }
  })
  return new Response(body, { headers: { "content-type": type } })
}

/** Where a stream is cut: nowhere, after each byte, and at random. */
const cutsOf = (length: number): ReadonlyArray<ReadonlyArray<number>> => {
  const random = mulberry(length)
  const atRandom = Array.from({ length: 40 }, () =>
    Array.from({ length: 1 + Math.floor(random() * 12) }, () => Math.floor(random() * length)).sort((a, b) => a - b)
  )
  return [[], Array.from({ length: length - 1 }, (_, index) => index + 1), ...atRandom]
}

describe("streams", () => {
  for (const { body, given, inputTokens, name, path, sent, type = "text/event-stream" } of cases) {
    it.live(`of ${name} have the same bytes and the same usage, wherever they are cut`, () =>
      Effect.gen(function* () {
        const bytes = new TextEncoder().encode(sent)
        let ends: ReadonlyArray<number> = []
        const fetch = yield* Fetch.make({ fetch: async () => inPieces(bytes, ends, type) })
        const budget = yield* Budget.TokenBudget
        const left = Effect.map(
          budget.status,
          ({ pools }) => Object.entries(pools).find(([name]) => name !== "default")?.[1].dimensions.inputTokens!.level
        )
        let before = 1e9
        for (const cut of cutsOf(bytes.length)) {
          ends = cut
          const ask = () => fetch(`https://llm.example.com${path}`, { method: "POST", body: JSON.stringify(body) })
          const response = yield* Effect.promise(ask)
          const got = new Uint8Array(yield* Effect.promise(() => response.arrayBuffer()))
          assert.strictEqual(new TextDecoder().decode(got), given, `cut at ${cut.slice(0, 20).join()}`)
          const after: number = (yield* left)!
          assert.strictEqual(before - after, inputTokens)
          before = after
        }
      }).pipe(Effect.scoped, Effect.provide(Layer.provideMerge(Governor.layer(), Budget.layer({ limits }))))
    )
  }

  it.live("that come as a JSON list are passed on object by object, and settled when they are left", () =>
    Effect.gen(function* () {
      const [first, ...more] = geminiList.map((chunk) => new TextEncoder().encode(`${JSON.stringify(chunk)},`))
      let wasCancelled = false
      const body = new ReadableStream<Uint8Array>({
        start: (controller) => controller.enqueue(first!),
        // The rest never comes.
        pull: () => new Promise(() => {}),
        cancel: () => void (wasCancelled = true)
      })
      const headers = { "content-type": "application/json" }
      const fetch = yield* Fetch.make({
        fetch: async (_, init) => {
          init?.signal?.addEventListener("abort", () => (wasCancelled = true))
          return new Response(body, { headers })
        }
      })
      const url = "https://llm.example.com/v1beta/models/gemini-4:streamGenerateContent"
      const response = yield* Effect.promise(() => fetch(url, { method: "POST", body: `{"contents":[]}` }))
      const reader = response.body!.getReader()
      const { value } = yield* Effect.promise(() => reader.read())
      assert.deepStrictEqual(value, first)
      assert.isAbove(more.length, 0)
      yield* Effect.promise(() => reader.cancel())
      const budget = yield* Budget.TokenBudget
      const { pools } = yield* budget.status
      for (const { inFlight } of Object.values(pools)) assert.strictEqual(inFlight, 0)
      assert.isTrue(wasCancelled)
    }).pipe(Effect.scoped, Effect.provide(Layer.provideMerge(Governor.layer(), Budget.layer({ limits }))))
  )

  it.live("that break off are broken for their reader, also after the last content and the usage", () =>
    Effect.gen(function* () {
      const whole = chatStream.replace(/data: \[DONE\]\s*$/, "")
      const reset = new Error("ECONNRESET")
      const fetch = yield* Fetch.make({
        fetch: async () => {
          const pieces = [whole]
          const body = new ReadableStream<Uint8Array>({
            pull: (controller) => {
              const piece = pieces.shift()
              if (piece === undefined) controller.error(reset)
              else controller.enqueue(new TextEncoder().encode(piece))
            }
          })
          return new Response(body, { headers: { "content-type": "text/event-stream" } })
        }
      })
      const ask = () => fetch("https://llm.example.com/v1/chat/completions", { method: "POST", body: chatBody })
      const response = yield* Effect.promise(ask)
      const reader = response.body!.getReader()
      let got = ""
      const thrown = yield* Effect.promise(async () => {
        try {
          for (;;) {
            const { done, value } = await reader.read()
            if (done) return undefined
            got += new TextDecoder().decode(value)
          }
        } catch (error) {
          return error
        }
      })
      assert.strictEqual(thrown, reset)
      assert.strictEqual(got, whole)
    }).pipe(Effect.scoped, Effect.provide(Layer.provideMerge(Governor.layer(), Budget.layer({ limits }))))
  )

  it.live("that are broken off at random leave nothing", () => nothingIsLeft(300, 7))
})
