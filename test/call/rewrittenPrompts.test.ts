/** Rewrites that providers and clients make of a prompt, and processes that share a limit: what a call is then expected to take. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import * as Governor from "floodgate/Governor"
import { protocols } from "floodgate/protocol"
import { MapStore } from "../support/store.ts"

const { anthropic } = protocols

const mark = { cache_control: { type: "ephemeral" } }
const text = (tokens: number, salt = "") => salt.padEnd(4 * tokens, "The agent reads a file. ")
const said = (tokens: number, salt: string, more: object = {}) => ({ type: "text", text: text(tokens, salt), ...more })
const user = (...content: ReadonlyArray<object>) => ({ role: "user", content })
const assistant = (...content: ReadonlyArray<object>) => ({ role: "assistant", content })

interface Body {
  readonly messages: ReadonlyArray<object>
  readonly tools?: ReadonlyArray<object>
}

/** Makes a call of which the provider counts so many tokens and reads some. Returns what it reserved. */
const ask = Effect.fnUntraced(function* (body: Body, all: number, read = 0, how: Partial<Governor.Call> = {}) {
  const governor = yield* Governor.Governor
  const { bytes, prefixes, textBytes } = anthropic.describe(
    { model: "m", max_tokens: 10, ...body },
    anthropic.match("POST", "/v1/messages")!
  )!
  const actual = { inputTokens: 0, cacheCreationTokens: all - read, cacheReadTokens: read, outputTokens: 5 }
  return yield* governor.run({ model: "m", bytes, textBytes, prefixes, maxTokens: 10, ...how }, ({ reservation }) =>
    Effect.succeed({ value: reservation.charge.inputTokens!, actual })
  )
})

/** Teaches that prefixes are read whole, and that texts have four bytes a token. */
const learned = Effect.gen(function* () {
  const first = user(said(10_000, "teach"))
  const marked = { messages: [user(said(10_000, "teach", mark))] }
  yield* ask(marked, 10_000)
  yield* ask({ messages: [first, assistant(said(1_000, "learn", mark))] }, 11_000, 10_000)
})

const governed = Layer.provideMerge(
  Governor.layer(),
  Budget.layer({ limits: { inputTokens: { perMinute: 10_000_000 } } })
)

const near = (actual: number, expected: number) => assert.closeTo(actual, expected, 0.05 * expected + 20)

describe("a prompt that is not continued as it was", () => {
  const tools = ["read", "write"].map((name) => ({ name, description: text(200), input_schema: { type: "object" } }))

  it.effect("begins anew with its tools in another order", () =>
    Effect.gen(function* () {
      yield* learned
      const messages = [user(said(20_000, "a", mark))]
      const [one, two] = tools
      yield* ask({ messages, tools: [one!, two!] }, 20_400)
      near(yield* ask({ messages, tools: [one!, two!] }, 20_400, 20_400), 0)
      assert.isAtLeast(yield* ask({ messages, tools: [two!, one!] }, 20_400), 20_000)
    }).pipe(Effect.provide(Layer.fresh(governed)))
  )

  it.effect("keeps what is before a thinking block that was dropped", () =>
    Effect.gen(function* () {
      yield* learned
      const first = user(said(20_000, "a", mark))
      const thinking = { type: "thinking", thinking: text(600, "hm"), signature: "c2ln" }
      const reply = said(100, "b")
      const with_ = [first, assistant(thinking, reply), user(said(50, "c", mark))]
      yield* ask({ messages: [first] }, 20_000)
      yield* ask({ messages: with_ }, 20_750, 20_000)
      near(yield* ask({ messages: [first, assistant(reply), user(said(300, "d", mark))] }, 20_400, 20_000), 400)
    }).pipe(Effect.provide(Layer.fresh(governed)))
  )

  const image = (kilobytes: number) => ({
    type: "image",
    source: { type: "base64", media_type: "image/png", data: "iVBORw0K".repeat(128 * kilobytes) }
  })

  it.effect("knows the tokens of an image that it has sent before, and not those of another one", () =>
    Effect.gen(function* () {
      yield* learned
      const messages = (kilobytes: number, ...more: ReadonlyArray<object>) => [
        user(said(20_000, "a", mark)),
        user(image(kilobytes), said(10, "what", mark)),
        ...more
      ]
      yield* ask({ messages: messages(90) }, 21_610)
      const next = assistant(said(200, "it is", mark))
      near(yield* ask({ messages: messages(90, next) }, 21_810, 21_610), 200)
      // What is before the image is the same.
      const other = yield* ask({ messages: messages(80, next) }, 21_810, 20_000)
      assert.isTrue(other > 500 && other < 6_000, `${other}`)
    }).pipe(Effect.provide(Layer.fresh(governed)))
  )

  it.effect("is cold at another place, and warm where it was", () =>
    Effect.gen(function* () {
      yield* learned
      const messages = [user(said(20_000, "a", mark))]
      const at = (account: string): Partial<Governor.Call> => ({
        places: { places: [{ name: account, model: "m", account }] }
      })
      yield* ask({ messages }, 20_000, 0, at("one"))
      yield* ask({ messages }, 20_000, 20_000, at("one"))
      assert.isAtLeast(yield* ask({ messages }, 20_000, 0, at("two")), 20_000)
      near(yield* ask({ messages }, 20_000, 20_000, at("one")), 0)
    }).pipe(Effect.provide(Layer.fresh(governed)))
  )
})

describe("processes that share a limit", () => {
  it.effect("know only the prompts of their own calls", () =>
    Effect.gen(function* () {
      const shared = Layer.provide(governed, BudgetStore.layer(new MapStore()))
      const [one, other] = yield* Effect.forEach([1, 2], () => Layer.build(Layer.fresh(shared)))
      const first = user(said(20_000, "a", mark))
      const next = assistant(said(500, "b", mark))
      for (const context of [one!, other!]) yield* Effect.provideContext(learned, context)
      yield* Effect.provideContext(ask({ messages: [first] }, 20_000), one!)
      // What another process has sent is not known here, so the estimate is too high.
      assert.isAtLeast(yield* Effect.provideContext(ask({ messages: [first, next] }, 20_500, 20_000), other!), 20_500)
      near(yield* Effect.provideContext(ask({ messages: [first, next] }, 20_500, 20_500), one!), 500)
    }).pipe(Effect.scoped)
  )
})
