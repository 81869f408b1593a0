import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import * as Fetch from "floodgate/fetch"
import * as Gateway from "floodgate/gateway"
import * as Governor from "floodgate/Governor"
import * as LlmClient from "floodgate/LlmClient"
import * as AiSdk from "floodgate/ai-sdk"
import * as Anthropic from "floodgate/anthropic"
import * as Floodgate from "floodgate/promise"
import * as Redis from "floodgate/redis"
import * as Retry from "floodgate/Retry"
import * as Spending from "floodgate/Spending"
import { ProviderSim } from "floodgate/testing"
import { ProviderServer } from "floodgate/testing/server"

// JavaScript, and objects that are built elsewhere, may have options that do not exist. A limit that is misspelt limits nothing.

const built = (layer: Layer.Layer<never, unknown>) => Effect.runPromise(Effect.scoped(Layer.build(layer)))

const governed = <A>(effect: Effect.Effect<A, unknown, Governor.Governor | Budget.TokenBudget | Scope.Scope>) =>
  Effect.runPromise(Effect.scoped(Effect.provide(effect, Layer.provideMerge(Governor.layer(), Budget.layer()))))

/** What takes options, and the beginning of its error. */
const takers: ReadonlyArray<readonly [name: string, begin: (options: never) => unknown]> = [
  ["Budget.make", (options) => built(Budget.layer(options))],
  ["BudgetStore.layer", (options) => BudgetStore.layer({} as never, options)],
  ["Fetch.make", (options) => governed(Fetch.make(options))],
  ["Floodgate.create", (options) => Floodgate.create(options)],
  ["Floodgate.create: callOptions", (callOptions) => Floodgate.create({ callOptions })],
  ["Floodgate.create: cap", (cap) => Floodgate.create({ cap })],
  ["Floodgate.create: redis", (redis) => Floodgate.create({ redis })],
  ["Floodgate.create: retry", (retry) => Floodgate.create({ retry })],
  ["Floodgate.run", (call) => Floodgate.create().run(call, async () => 1)],
  ["Floodgate.limiter.acquire", (call) => Floodgate.create().limiter.acquire(call)],
  ["FloodgateAiSdk.make", (options) => governed(AiSdk.make(options))],
  ["FloodgateAnthropic.make", (options) => governed(Anthropic.make(options))],
  ["Gateway", (options) => governed(Gateway.make(options))],
  ["Governor.make", (options) => built(Governor.layer(options).pipe(Layer.provide(Budget.layer())))],
  ["LlmClient.layer", (options) => LlmClient.layer({ apiKey: Redacted.make("k"), ...(options as object) })],
  ["LlmClient.layerConfig", (options) => LlmClient.layerConfig(options)],
  ["ProviderServer", (options) => built(ProviderServer.layer(options))],
  ["ProviderSim", (options) => built(ProviderSim.layer(options))],
  ["Redis", (options) => Redis.layerStoreUrl({ url: "redis://127.0.0.1:1", ...(options as object) })],
  ["Retry", (options) => Retry.make(options)],
  ["Retry.backoff", (options) => Retry.backoff(options)],
  ["Retry.layerBudget", (options) => built(Retry.layerBudget(options))],
  ["Spending", (cap) => Spending.make("mine", cap)]
]

describe("an option that does not exist", () => {
  it.each(takers)("is refused by %s", async (name, begin) => {
    const error = await Promise.resolve({ mispelt: 1 } as never)
      .then(begin)
      .then(
        () => undefined,
        (error: unknown) => error
      )
    assert.instanceOf(error, RangeError)
    assert.match(error.message, new RegExp(`^${name}: unknown option "mispelt": known are [\\w, ]+$`))
  })
})

describe("Floodgate", () => {
  const rejection = (begun: Promise<unknown>) =>
    begun.then(
      () => undefined,
      (error: unknown) => String(error)
    )

  // Regression: "Cannot read properties of undefined (reading 'slice')".
  it("says that a call needs a model", async () => {
    await using floodgate = Floodgate.create()
    assert.strictEqual(
      await rejection(floodgate.run({} as never, async () => 1)),
      "RangeError: Floodgate.run: model: expected a string, got undefined"
    )
    assert.strictEqual(
      await rejection(floodgate.limiter.acquire({ model: 5 } as never)),
      "RangeError: Floodgate.limiter.acquire: model: expected a string, got 5"
    )
    assert.strictEqual((await floodgate.status()).pools["undefined"], undefined)
  })

  it("refuses dollars that are a text", () => {
    assert.throws(
      () => Floodgate.create({ cap: { dollars: "5" as never } }),
      'Floodgate.create: cap.dollars: expected a number > 0, at most 1000000, got "5"'
    )
  })

  it("refuses options of calls that a function makes up, and sends nothing", async () => {
    let sent = 0
    await using floodgate = Floodgate.create({
      callOptions: () => ({ maxWait: "5 seconds" }) as never,
      fetch: async () => (sent++, new Response("{}"))
    })
    const body = JSON.stringify({ model: "m", messages: [] })
    const asked = floodgate.fetch("https://api.openai.com/v1/chat/completions", { method: "POST", body })
    assert.match(
      (await rejection(asked))!,
      /^RangeError: Floodgate.create: callOptions: unknown option "maxWait": did you mean "maxWaitSeconds"\?$/
    )
    assert.strictEqual(sent, 0)
  })
})

describe("a rule of the gateway", () => {
  it("has no options that do not exist", async () => {
    const error = await governed(Gateway.make({ rules: [{ agent: "a" }, { weigth: 5 } as never] })).catch(String)
    assert.match(String(error), /^RangeError: Gateway.rules.1.*: unknown option "weigth": did you mean "weight"\?$/)
  })
})
