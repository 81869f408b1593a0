import { assert, describe, it } from "@effect/vitest"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as LanguageModel from "effect/ai/LanguageModel"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as Accounting from "floodgate/Accounting"
import * as Agents from "floodgate/Agents"
import * as FloodgateAi from "floodgate/ai"
import * as FloodgateAiSdk from "floodgate/ai-sdk"
import * as FloodgateAnthropic from "floodgate/anthropic"
import * as Breaker from "floodgate/breaker"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import * as Estimator from "floodgate/Estimator"
import * as Fetch from "floodgate/fetch"
import * as Forecast from "floodgate/Forecast"
import * as Gateway from "@floodgate/gateway"
import * as Lab from "@floodgate/lab"
import * as Governor from "floodgate/Governor"
import * as LlmClient from "floodgate/LlmClient"
import * as Floodgate from "floodgate/promise"
import * as Anthropic from "floodgate/providers/Anthropic"
import * as FloodgateRedis from "@floodgate/redis"
import * as Presets from "floodgate/Presets"
import * as Retry from "floodgate/Retry"
import * as Spending from "floodgate/Spending"
import * as Trees from "floodgate/Trees"
import { ProviderSim, Simulation } from "floodgate/testing"
import { ProviderServer } from "floodgate/testing/server"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { complaint } from "../../support/complaint.ts"
import { publicModules, root } from "../../support/modules.ts"
import { MapStore } from "../../support/store.ts"

// JavaScript, and objects that are built elsewhere, may have options that do not exist or have another type. A limit that is
// misspelt limits nothing.

/** Options as no compiler lets them through. */
type Given = Readonly<Record<string, unknown>>

interface Taker {
  /** The operation that the user called, and in it the option that has options, such as `Budget.layer: limits`. */
  readonly name: string
  readonly take: (options: never) => unknown
  /** Options without which it complains anyway. */
  readonly required?: Given
}

const taker = (name: string, take: (options: never) => unknown, required: Given = {}): Taker => ({
  name,
  take,
  required
})

const params = { model: "m", max_tokens: 1, messages: [{ role: "user" as const, content: "x" }] }
const tokens = { inputTokens: 1, outputTokens: 1 }
const price = { input: 1, output: 1 }
const url = "redis://127.0.0.1:1"
const apiKey = Redacted.make("a key of some length")
const model = Layer.succeed(LanguageModel.LanguageModel, {} as never)
const client = { messages: { create: () => assert.fail("nothing is sent") } }

const governor = <A>(use: (governor: Governor.Governor["Service"]) => A) => Effect.map(Governor.Governor, use)
const flat = Effect.flatten<unknown, unknown, unknown, unknown, unknown>
const inBudget = (use: (budget: Budget.TokenBudget["Service"]) => Effect.Effect<unknown, unknown, unknown>) =>
  Effect.flatMap(Budget.make(), use)
const workload = (call: never) => [{ name: "a", calls: [call] }]
const agent = { key: "a", effect: Effect.void }
const advised = (options: never, budget: Budget.TokenBudget["Service"]) =>
  Effect.provideService(Agents.advise(options), Budget.TokenBudget, budget)
const floodgate = Floodgate.create()
const answered = async () => 1
const called = async () => new Response("{}")
const gate = (callOptions: never) => Floodgate.create({ callOptions: () => callOptions, fetch: called })
const chat = { method: "POST", body: JSON.stringify({ model: "m", messages: [] }) }
const completions = "https://api.openai.com/v1/chat/completions"

/** Options whose values are read from the configuration. */
const configured = (options: never): never =>
  options === null || typeof options !== "object" || Array.isArray(options)
    ? options
    : (Object.fromEntries(Object.entries(options).map(([name, value]) => [name, Config.succeed(value)])) as never)

const takers: ReadonlyArray<Taker> = [
  taker("Accounting.bedrockRuntime", Accounting.bedrockRuntime, { burndown: 1 }),
  taker("Agents.advise", (options) => Effect.flatMap(Budget.make(), (budget) => advised(options, budget))),
  taker("Agents.fork", (options) => Agents.fork([agent], options)),
  taker("Agents.run", (options) => Agents.run([agent], options)),
  taker("Agents.run: advice", (advice) => Agents.run([agent], { advice, concurrency: "advised" })),
  taker("Agents.run: cap", (cap) => Agents.run([agent], { cap })),
  taker("Agents.run: capPerAgent", (capPerAgent) => Agents.run([agent], { capPerAgent })),
  taker("Agents.run: agents[0]", (agent) => Agents.run([agent]), agent),
  taker("Agents.run: agents[0].cap", (cap) => Agents.run([{ ...agent, cap }])),
  taker("Anthropic.fromClient", (options) => Anthropic.fromClient(client as never, options)),
  taker("Anthropic.layer", Anthropic.layer, { apiKey }),
  taker("Anthropic.layerConfig", Anthropic.layerConfig),
  taker("Breaker.layer", Breaker.layer),
  taker("Breaker.layerStore", Breaker.layerStore),
  taker("Budget.consume", (options) => Budget.consume(1, options)),
  taker("Budget.observe", (signal) => inBudget((budget) => budget.observe(signal)), { dimensions: {} }),
  taker("Budget.observe: dimensions", (dimensions) => inBudget((budget) => budget.observe({ dimensions }))),
  taker("Budget.pause", (pause) => inBudget((budget) => budget.pause(pause)), { duration: 1 }),
  taker("Budget.foresee", (options) => inBudget((budget) => budget.foresee({ tokens: 1 }, options))),
  taker("Budget.forecast", (options) => inBudget((budget) => budget.forecast([], options))),
  taker("Budget.layer", Budget.layer),
  taker("Budget.layer: limits", (limits) => Budget.layer({ limits })),
  taker("Budget.layer: limits.tokens", (tokens) => Budget.layer({ limits: { tokens } }), { perMinute: 1_000 }),
  taker("Budget.layer: limits.pools.m", (m) => Budget.layer({ limits: { pools: { m } } })),
  taker("Budget.layerConfig", (options) => Budget.layerConfig(configured(options))),
  taker("Budget.make", Budget.make),
  taker("Budget.reserve", (options) => inBudget((budget) => budget.reserve({ tokens: 1 }, options))),
  taker("Budget.resize", (options) => inBudget((budget) => budget.resize(options))),
  taker("Budget.withReservation", (options) => Budget.withReservation({ tokens: 1 }, () => Effect.void, options)),
  taker("BudgetStore.layer", (options) => BudgetStore.layer(new MapStore(), options)),
  taker("BudgetStore.layer: whenAway", (whenAway) => BudgetStore.layer(new MapStore(), { whenAway }), { wait: 1 }),
  taker("Estimator.layer", Estimator.layer),
  taker("Estimator.make", Estimator.make),
  taker("Fetch.make", Fetch.make),
  taker("Fetch.make: callOptions", (callOptions) => Fetch.make({ callOptions })),
  taker("Floodgate.advise", (options) => floodgate.advise(options)),
  taker("Floodgate.create", Floodgate.create),
  taker("Floodgate.create: callOptions", (callOptions) => Floodgate.create({ callOptions })),
  taker("Floodgate.create: callOptions", (callOptions) => gate(callOptions).fetch(completions, chat)),
  taker("Floodgate.create: cap", (cap) => Floodgate.create({ cap }), { dollars: 1 }),
  taker("Floodgate.create: limits.tokens", (tokens) => Floodgate.create({ limits: { tokens } }), { perMinute: 1_000 }),
  taker("Floodgate.create: redis", (redis) => Floodgate.create({ redis }), { url }),
  taker("Floodgate.create: retry", (retry) => Floodgate.create({ retry })),
  taker("Floodgate.limiter.acquire", (call) => floodgate.limiter.acquire(call), { model: "m" }),
  taker("Floodgate.run", (call) => floodgate.run(call, answered), { model: "m" }),
  taker("FloodgateAi.layer", (options) => FloodgateAi.layer(options).pipe(Layer.provide(model))),
  taker("FloodgateAi.make", (options) => Effect.provide(FloodgateAi.make(options), model)),
  taker("FloodgateAiSdk.make", FloodgateAiSdk.make),
  taker("FloodgateAiSdk.make: callOptions", (callOptions) => FloodgateAiSdk.make({ callOptions })),
  taker("FloodgateAnthropic.make", FloodgateAnthropic.make),
  taker("FloodgateRedis.layerStore", FloodgateRedis.layerStore),
  taker("FloodgateRedis.layerStoreConfig", FloodgateRedis.layerStoreConfig),
  taker("FloodgateRedis.layerStoreUrl", FloodgateRedis.layerStoreUrl, { url }),
  taker("Forecast.make", (options) => Forecast.make([], options), { limits: {} }),
  taker("Forecast.make: latency", (latency) => Forecast.make([], { limits: {}, latency })),
  taker("Forecast.make: workload[0]", (agent) => Forecast.make([agent], { limits: {} }), { name: "a", calls: [] }),
  taker("Forecast.make: workload[0].calls[0]", (call) => Forecast.make(workload(call), { limits: {} }), tokens),
  taker("Forecast.makeEffect", (options) => Forecast.makeEffect([], options), { limits: {} }),
  taker("Forecast.uniform", Forecast.uniform, { agents: 1, calls: 1, first: tokens }),
  taker("Gateway.layer", Gateway.layer),
  taker("Gateway.make", Gateway.make),
  taker("Gateway.make: rules[1]", (rule) => Gateway.make({ rules: [{}, rule] })),
  taker("Gateway.make: rules[0].capPerKey", (capPerKey) => Gateway.make({ rules: [{ capPerKey }] }), { dollars: 1 }),
  taker("Gateway.reload", (options) => Effect.flatMap(Gateway.make(), (gateway) => gateway.reload(options))),
  taker("Governor.admit", (options) => flat(governor((governor) => governor.admit({ model: "m", bytes: 1 }, options)))),
  taker("Governor.layer", Governor.layer),
  taker("Governor.layer: prices.m", (m) => Governor.layer({ prices: { m } }), price),
  taker("Governor.layer: prices.m.long", (long) => Governor.layer({ prices: { m: { ...price, long } } }), {
    ...price,
    above: 1
  }),
  taker("Governor.make", Governor.make),
  taker("Governor.open", (options) =>
    flat(governor((governor) => governor.open({ model: "m", bytes: 1 }, () => Effect.void, options)))
  ),
  taker("Governor.run", (options) =>
    flat(governor((governor) => governor.run({ model: "m", bytes: 1 }, () => Effect.succeed({ value: 1 }), options)))
  ),
  taker("Lab.race", (options) => Lab.race(Lab.scenario(), [], options)),
  taker("Lab.scenario", (options) => Effect.sync(() => Lab.scenario("incident", options))),
  taker("LlmClient.create", (options) => LlmClient.create(params, options)),
  taker("LlmClient.layer", LlmClient.layer, { apiKey }),
  taker("LlmClient.layerConfig", LlmClient.layerConfig),
  taker("LlmClient.layerPlaces", (options) => LlmClient.layerPlaces({ models: {} }, options)),
  taker("LlmClient.layerPlaces", (places) => LlmClient.layerPlaces(places), { models: {} }),
  taker("LlmClient.layerProvider", LlmClient.layerProvider),
  taker("LlmClient.stream", (options) => LlmClient.stream(params, options)),
  taker("Presets.mistral", Presets.mistral, { requestsPerSecond: 1, tokensPerMinute: 1 }),
  taker("Presets.vllm", Presets.vllm),
  taker("Presets.xai", Presets.xai, { requestsPerMinute: 1, tokensPerMinute: 1 }),
  taker("ProviderServer.layer", ProviderServer.layer),
  taker("ProviderServer.make", ProviderServer.make),
  taker("ProviderSim.layer", ProviderSim.layer),
  taker("ProviderSim.layer: faults[0]", (fault) => ProviderSim.layer({ faults: [fault] }), { kind: "429" }),
  taker("ProviderSim.layer: latency", (latency) => ProviderSim.layer({ latency })),
  taker("Retry.layerBudget", Retry.layerBudget),
  taker("Retry.make", Retry.make),
  taker("Simulation.run", (options) => Simulation.run(Effect.void, options)),
  taker("Trees.make", (caps) => Trees.make("mine", caps)),
  taker("Trees.within", (seat) => Effect.void.pipe(Trees.within(Trees.make("mine"), seat)), { agent: "one" }),
  taker("Trees.open", (caps) => Effect.scoped(Trees.open("mine", caps))),
  taker("Spending.make", (cap) => Spending.make("mine", cap), { dollars: 1 }),
  taker("Spending.make", (options) => Spending.make("mine", undefined, options)),
  taker("Spending.open", (cap) => Effect.scoped(Spending.open("mine", cap)), { dollars: 1 }),
  taker("Spending.open", (options) => Effect.scoped(Spending.open("mine", undefined, options))),
  taker("Spending.resize", (cap) => Spending.make("mine").resize(cap), { dollars: 1 })
]

/** Functions that take no options. A new function of the library is named here or above. */
const without = [
  "Agents.layer",
  "Budget.layerLog",
  "Budget.layerUnlimited",
  "Gateway.layerEvents",
  "Governor.unpark",
  "LlmClient.countTokens",
  "LlmClient.layerNoDeps",
  "LlmClient.text",
  "LlmProvider.make",
  "FloodgateRedis.check",
  "Lab.html",
  "Lab.table",
  "Presets.poolOf",
  "Prices.cost",
  "Prices.find",
  "ProviderSim.cached",
  "ProviderSim.lognormal",
  "ProviderSim.outage",
  "ProviderSim.tokenizer",
  "Retry.schedule",
  "Retry.withDeadline",
  "Retry.withPolicy",
  "Signals.fromError",
  "Signals.fromHeaders",
  "Spending.from",
  "Spending.waitForReset",
  // Of services.
  "Budget.observe",
  "Budget.poolOf",
  "Floodgate.anthropic",
  "Floodgate.dispose",
  "Floodgate.fetch",
  "Floodgate.learned",
  "Floodgate.metrics",
  "Floodgate.places",
  "Floodgate.middleware",
  "Floodgate.spent",
  "Floodgate.status",
  "ProviderSim.left"
]

/** The names under which users import modules that have no name of their own. */
const aliases: Readonly<Record<string, string>> = {
  "@floodgate/gateway": "Gateway",
  "@floodgate/lab": "Lab",
  "@floodgate/redis": "FloodgateRedis",
  "floodgate/ai": "FloodgateAi",
  "floodgate/ai-sdk": "FloodgateAiSdk",
  "floodgate/anthropic": "FloodgateAnthropic",
  "floodgate/breaker": "Breaker",
  "floodgate/fetch": "Fetch",
  "floodgate/promise": "Floodgate",
  "floodgate/providers/Anthropic": "Anthropic"
}

/** What is wrong with an option. */
const about = ({ take, required }: Taker, options: unknown): Effect.Effect<string> =>
  complaint(() =>
    take(
      (typeof options === "object" && options !== null && !Array.isArray(options)
        ? { ...required, ...options }
        : options) as never
    )
  )

const escaped = (text: string): string => text.replaceAll(/[.[\]]/g, "\\$&")

/** The names of the options, which the error for an unknown name lists if none is similar. */
const namesOf = (taker: Taker): Effect.Effect<ReadonlyArray<string>> =>
  Effect.map(about(taker, { zzzzzzzzzz: 1 }), (text) => {
    const listed = new RegExp(`^RangeError: ${escaped(taker.name)}: unknown option "zzzzzzzzzz": known are ([^"]+)$`)
    assert.match(text, listed)
    return listed.exec(text)![1]!.split(", ")
  })

describe("options", () => {
  it.live.each(takers)("of $name: an unknown one is refused with the nearest", (taker) =>
    Effect.gen(function* () {
      const names = yield* namesOf(taker)
      for (const name of names) {
        const misspelt = `${name[0]}${name}`
        const text = yield* about(taker, { [misspelt]: 1 })
        assert.strictEqual(text, `RangeError: ${taker.name}: unknown option "${misspelt}": did you mean "${name}"?`)
      }
    })
  )

  it.live.each(takers)("of $name: one of another type is refused with what is expected, and the value", (taker) =>
    Effect.gen(function* () {
      const separator = taker.name.includes(": ") ? "." : ": "
      for (const name of yield* namesOf(taker)) {
        const text = yield* about(taker, { [name]: Symbol("wrong") })
        const start = `RangeError: ${taker.name}${separator}${name}: expected `
        assert.isTrue(text.startsWith(start), `${text}, not ${start}`)
        assert.match(text, /, got (Symbol\(wrong\)|something else \(not shown\))$/)
      }
    })
  )

  it.live.each(takers)("of $name: they are an object, with what is required", (taker) =>
    Effect.gen(function* () {
      const start = `RangeError: ${taker.name}`
      for (const value of ["options", 5, null, []]) {
        const text = yield* about(taker, value)
        assert.isTrue(text.startsWith(start) && /: expected .*, got /.test(text), `${text}, not ${start}`)
      }
      for (const name of Object.keys(taker.required ?? {})) {
        assert.match(yield* about(taker, { [name]: undefined }), /: expected .*, got .*undefined.*$/)
      }
    })
  )

  it.live("are checked wherever they are accepted", () =>
    Effect.gen(function* () {
      const services = {
        Budget: yield* Budget.make(),
        Floodgate: { ...floodgate, ...floodgate.limiter },
        Governor: yield* Effect.provide(Governor.Governor, Governor.layer().pipe(Layer.provide(Budget.layer()))),
        ProviderSim: yield* Effect.provide(ProviderSim.ProviderSim, ProviderSim.layer())
      }
      const modules = yield* Effect.promise(() =>
        Promise.all(
          publicModules().map(async ({ file, name }) => {
            const module: object = await import(pathToFileURL(join(root, file)).href)
            return [aliases[name] ?? name.replace(/^floodgate\//, ""), module] as const
          })
        )
      )
      const found = [
        ...modules,
        ...Object.entries({ ProviderSim, ProviderServer, Simulation }),
        ...Object.entries(services)
      ]
        .filter(([name]) => !["floodgate", "protocol", "testing", "testing/server"].includes(name))
        .flatMap(([name, module]) =>
          Object.entries(module).flatMap(([member, value]) =>
            (typeof value === "function" && !/^[A-Z]/.test(member)) || Layer.isLayer(value) ? [`${name}.${member}`] : []
          )
        )
      const known = new Set([
        ...takers.map(({ name }) => name.replace("limiter.", "").replace(/: .*$/, "")),
        ...without
      ])
      assert.deepStrictEqual(
        found.filter((name) => !known.has(name)),
        [],
        "add it to `takers` if it takes options, else to `without`"
      )
      assert.deepStrictEqual(
        without.filter((name) => !found.includes(name)),
        [],
        "no longer there"
      )
    })
  )
})

describe("Floodgate", () => {
  // Regression: "Cannot read properties of undefined (reading 'slice')".
  it("says that a call needs a model", async () => {
    await using floodgate = Floodgate.create()
    const rejection = (begun: Promise<unknown>) => begun.then(() => undefined, String)
    assert.strictEqual(
      await rejection(floodgate.run({} as never, async () => 1)),
      "RangeError: Floodgate.run: model: expected a string, got undefined"
    )
    assert.strictEqual((await floodgate.status()).pools["undefined"], undefined)
  })

  it("lists first what most programs set", async () => {
    assert.throws(
      () => Floodgate.create({ apiKey: "k" } as never),
      /: known are limits, concurrency, retry, cap, log, /
    )
    await using floodgate = Floodgate.create()
    const error = await floodgate.run("m" as never, async () => 1).catch(String)
    assert.match(String(error), /: expected an object with model, inputTokens, bytes, maxTokens, agent, /)
  })

  it("says that a function makes the call, and admits nothing else", async () => {
    await using floodgate = Floodgate.create()
    for (const [given, shown] of [
      [Promise.resolve(1), "an object of the class Promise"],
      [undefined, "undefined"]
    ]) {
      const begun = floodgate.run({ model: "m", inputTokens: 1 }, given as never)
      assert.strictEqual(
        await begun.catch(String),
        `RangeError: Floodgate.run: attempt: expected a function, got ${String(shown)}`
      )
    }
    assert.deepStrictEqual((await floodgate.status()).pools, {})
  })

  it("refuses options of calls that a function makes up, and sends nothing", async () => {
    let sent = 0
    await using floodgate = Floodgate.create({
      callOptions: () => ({ maxWait: "5 seconds" }) as never,
      fetch: async () => (sent++, new Response("{}"))
    })
    const error = await floodgate.fetch(completions, chat).catch(String)
    const expected =
      'RangeError: Floodgate.create: callOptions: unknown option "maxWait": did you mean "maxWaitSeconds"?'
    assert.strictEqual(error, expected)
    assert.strictEqual(sent, 0)
  })
})

it.effect("a stream with wrong options fails when it is run, and not when it is made", () =>
  Effect.gen(function* () {
    const stream = LlmClient.stream(params, { timout: 1 } as never)
    const text = yield* complaint(() => Stream.take(stream, 1))
    assert.strictEqual(text, 'RangeError: LlmClient.stream: unknown option "timout": did you mean "timeout"?')
  })
)
