/** Strategies with the library itself: `LlmClient` over a shared `TokenBudget`, as users compose them. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Accounting from "floodgate/Accounting"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import type * as Governor from "floodgate/Governor"
import type * as Limits from "floodgate/Limits"
import * as LlmClient from "floodgate/LlmClient"
import { LlmError, RateLimited } from "floodgate/LlmError"
import { LlmProvider } from "floodgate/LlmProvider"
import { Amounts } from "floodgate/internal"
import { isOfSessions, model, type Scenario, type ScenarioAgent, type ScenarioCall } from "../scenario.ts"
import type { Believed, RunningPlace, StrategyClient, Strategy } from "../strategy.ts"

/** The options with which a race uses the library. */
interface Options extends Pick<Strategy, "name" | "summary" | "settings" | "why"> {
  /** The limits that the budget gets. @default the provider's true limits and its limit on calls at once */
  readonly budget?: ((scenario: Scenario) => Budget.Options) | undefined
  /** Whether input tokens are counted before each call, as the incident report did. @default true */
  readonly counted?: boolean | undefined
  /** The fairness key of a call. @default its agent */
  readonly agent?: ((call: ScenarioCall) => string) | undefined
  /** Whether it reads the limits in responses. @default true */
  readonly listens?: boolean | undefined
  /** Whether `Agents` runs the agents with their total tokens as `work`. @default false */
  readonly knowsWork?: boolean | undefined
}

/** The limit on concurrency, if the provider declares it. */
const declaredConcurrency = ({ isConcurrencyDeclared, provider }: Scenario): number | undefined =>
  isConcurrencyDeclared ? provider.concurrency : undefined

/** The limits of the provider's console, as an account's owner gives them to the budget. */
const trueLimits = (scenario: Scenario): Budget.Options => ({
  limits: scenario.limits,
  concurrency: declaredConcurrency(scenario)
})

/** A provider that caches by itself counts as OpenAI does, which a client must know. */
const accountingOf = ({ provider }: Scenario): Pick<Governor.Options, "accounting"> =>
  provider.cache === "automatic" ? { accounting: Accounting.openai } : {}

/** The levels of the only pool: all calls of a scenario are to one model. */
const believedOf = ({ pools }: Budget.BudgetStatus): Believed => {
  const [pool] = Object.values(pools)
  const dimensions = pool?.dimensions ?? {}
  return {
    left: Amounts.mapDimensions(dimensions, ({ level }) => level),
    perSecond: Amounts.mapDimensions(dimensions, ({ perSecond }) => perSecond)
  }
}

/** A provider without limits in its responses. Rejections still have `retry-after`. */
const deaf = (provider: LlmProvider["Service"]): LlmProvider["Service"] => ({
  ...provider,
  create: (params) =>
    provider.create(params).pipe(
      Effect.map((reply) => ({ ...reply, signal: undefined })),
      Effect.mapError((error) =>
        error.reason._tag === "RateLimited"
          ? new LlmError({ reason: new RateLimited({ ...error.reason, signal: undefined }) })
          : error
      )
    )
})

/** All limits times a factor, as a user with wrong limits would give them. */
const scaled =
  (factor: number) =>
  (scenario: Scenario): Budget.Options => {
    const times = (value: number | undefined) => (value === undefined ? undefined : value * factor)
    const limits = Amounts.mapDimensions(scenario.limits, (limit) => ({
      ...limit,
      perSecond: times(limit.perSecond),
      perMinute: times(limit.perMinute),
      burst: times(limit.burst)
    }))
    return { ...trueLimits(scenario), limits }
  }

const workOf = ({ calls }: ScenarioAgent): number =>
  calls.reduce((sum, { inputTokens, outputTokens }) => sum + inputTokens + outputTokens, 0)

/** A client of all places. Each place has the limits that `budget` would state for it alone. */
const layerPlaces = (
  scenario: Scenario,
  places: ReadonlyArray<RunningPlace>,
  budget: (scenario: Scenario) => Budget.Options,
  seen: (provider: LlmProvider["Service"]) => LlmProvider["Service"]
) => {
  const all = places.map(({ limits, name, provider }) => ({
    name,
    provider: Layer.succeed(LlmProvider, seen(provider)),
    limits: budget({ ...scenario, limits }).limits as Limits.Limits | undefined
  }))
  return LlmClient.layerPlaces({ models: { [model]: all } }).pipe(
    Layer.provideMerge(Agents.layer.pipe(Layer.provide(Budget.layer({ ...budget(scenario), limits: undefined }))))
  )
}

/** Makes a strategy with the library. */
const make = ({
  agent = ({ agent }) => agent,
  budget = trueLimits,
  counted = true,
  knowsWork = false,
  listens = true,
  ...described
}: Options): Strategy => ({
  ...described,
  client: (scenario, places) =>
    Effect.gen(function* () {
      const seen = (provider: LlmProvider["Service"]) => (listens ? provider : deaf(provider))
      const live =
        scenario.places === undefined
          ? LlmClient.layerProvider(accountingOf(scenario)).pipe(
              Layer.provideMerge(Agents.layer.pipe(Layer.provide(Budget.layer(budget(scenario))))),
              Layer.provide(Layer.succeed(LlmProvider, seen(yield* LlmProvider)))
            )
          : layerPlaces(scenario, places, budget, seen)
      const context = yield* Layer.build(live)
      const client = yield* Effect.provide(LlmClient.LlmClient, context)
      const shared = yield* Effect.provide(Budget.TokenBudget, context)
      // Equal agents learn from each other. Sessions differ, and their clients name no kind.
      const kind = isOfSessions(scenario) ? undefined : "lab"
      const create: StrategyClient = (params, call) =>
        client.create(params, { agent: agent(call), kind, inputTokens: counted ? call.inputTokens : undefined })
      // Levels of several places are not comparable with those of one.
      if (scenario.places !== undefined) return create
      const believes = Effect.map(shared.status, believedOf)
      if (!knowsWork) return Object.assign(create, { believes })
      const run: NonNullable<StrategyClient["run"]> = (agents) =>
        Effect.provide(
          Agents.run(agents.map(({ agent, effect }) => ({ key: agent.name, effect, work: workOf(agent) }))),
          context
        )
      return Object.assign(create, { believes, run })
    })
})

/** The library with the provider's true limits. */
export const floodgate: Strategy = make({
  name: "floodgate",
  summary: "this library, with the provider's limits and the token count of each call",
  settings: "Budget.layer({ limits, concurrency }); LlmClient.create(params, { agent, inputTokens })",
  why: "The provider's console shows the limits, and count_tokens counts exactly."
})

/** The library without limits in responses. */
export const withoutHeaders: Strategy = make({
  name: "floodgate-no-headers",
  summary: "this library, ignoring rate limit headers",
  settings: "as floodgate, behind a proxy that removes the headers",
  why: "Some gateways remove these headers.",
  listens: false
})

/** The library with the work of each agent, which a job knows from its documents. */
export const weighted: Strategy = make({
  name: "floodgate-weighted",
  summary:
    "this library, with the number of tokens that each agent will use: those with more work left get a larger share",
  settings: "as floodgate, with Agents.run([{ key, work, effect }])",
  why: "The sizes of a single job's documents are known, and only the end of the whole job matters.",
  knowsWork: true
})

/** The library with a single agent for all calls: first come, first served, like a plain queue. */
export const inOrder: Strategy = make({
  name: "floodgate-fifo",
  summary: "this library with all agents under one name: first come, first served",
  settings: "as floodgate, with one agent for all calls",
  why: "Calls that name no agent are served like this.",
  agent: () => "all"
})

/** The library with half of the limits: headers cannot raise what was configured. */
export const halfLimits: Strategy = make({
  name: "floodgate-half",
  summary: "this library, with half of the limits",
  settings: "as floodgate, with half of each limit",
  why: "The other half is reserved for another program, which does not run.",
  budget: scaled(0.5)
})

/** The library with twice the limits. */
export const doubleLimits: Strategy = make({
  name: "floodgate-double",
  summary: "this library, with twice the limits",
  settings: "as floodgate, with twice each limit",
  why: "The limits are those of a higher tier, by mistake.",
  budget: scaled(2)
})

/** The library without limits, which it must learn. */
export const unknownLimits: Strategy = make({
  name: "floodgate-unknown",
  summary: "this library without limits: it learns them from responses",
  settings: "Budget.layer({ concurrency }); LlmClient.create(params, { agent, inputTokens })",
  why: "The limits are unknown, and the tokens are counted before each call.",
  budget: (scenario) => ({ concurrency: declaredConcurrency(scenario) })
})

/** The library without counting tokens first: input is estimated from bytes, output learned. */
export const estimates: Strategy = make({
  name: "floodgate-estimates",
  summary: "this library without token counts: it estimates input and output, and learns",
  settings: "Budget.layer({ limits, concurrency }); LlmClient.create(params, { agent })",
  why: "The limits are known, and counting tokens would cost a request for each call.",
  counted: false
})

/** The library as the README's first example installs it, without limits and token counts. */
export const asInstalled: Strategy = make({
  name: "floodgate-as-installed",
  summary: "this library with default settings: it learns the limits, and estimates the tokens",
  settings: "Budget.layer({}); LlmClient.create(params, { agent })",
  why: "Every program starts like this.",
  budget: () => ({}),
  counted: false
})
