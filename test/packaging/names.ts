/**
 * Re-exports from the library without type annotations. `npm run pack:check` has the compiler write the declarations, which
 * must name public modules only: a type that only an internal file exports would be missing for their users.
 */
import * as Effect from "effect/Effect"
import * as Accounting from "floodgate/Accounting"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import * as Estimator from "floodgate/Estimator"
import * as Events from "floodgate/Events"
import * as Forecast from "floodgate/Forecast"
import * as Governor from "floodgate/Governor"
import * as Limits from "floodgate/Limits"
import * as LlmClient from "floodgate/LlmClient"
import type * as LlmError from "floodgate/LlmError"
import * as LlmProvider from "floodgate/LlmProvider"
import * as Presets from "floodgate/Presets"
import * as Prices from "floodgate/Prices"
import * as Retry from "floodgate/Retry"
import * as Signals from "floodgate/Signals"
import * as Spending from "floodgate/Spending"
import * as Ai from "floodgate/ai"
import * as AiSdk from "floodgate/ai-sdk"
import * as Anthropic from "floodgate/anthropic"
import * as Breaker from "floodgate/breaker"
import * as Fetch from "floodgate/fetch"
import * as Gateway from "@floodgate/gateway"
import * as Floodgate from "floodgate/promise"
import * as Protocol from "floodgate/protocol"
import * as Provider from "floodgate/providers/Anthropic"
import * as Redis from "@floodgate/redis"
import { ProviderSim, Simulation, StoreContract } from "floodgate/testing"
import { ProviderServer } from "floodgate/testing/server"

const params = { model: "m", max_tokens: 1, messages: [] }

export const accounting = Accounting.bedrockRuntime({ burndown: 5 })
export const counted = accounting.estimate({ inputTokens: 1, cachedTokens: 0, outputTokens: 1 })
export const usage = accounting.usage({ inputTokens: 1, outputTokens: 1 })
export const agents = Agents.run([{ key: "a", effect: Effect.succeed(1) }])
export const job = Agents.fork([{ key: "a", effect: Effect.fail("x" as const) }])
export const used = Effect.map(agents, ([one]) => one!.used)
export const outcome = Effect.map(agents, ([one]) => one!)
export const progress = Effect.flatMap(job, (job) => job.status)
export const states = Effect.map(progress, ({ agents }) => agents)
export const budget = Budget.make()
export const budgetLayer = Budget.layerConfig({})
export const status = Effect.flatMap(Budget.TokenBudget, (budget) => budget.status)
export const pool = Effect.map(status, ({ pools }) => pools["default"])
export const dimension = Effect.map(status, ({ pools }) => pools["default"]?.dimensions.tokens)
export const waiting = Effect.map(status, ({ pools }) => pools["default"]?.waiting)
export const pause = Effect.map(status, ({ pools }) => pools["default"]?.pause)
export const learnedLimits = Effect.flatMap(Budget.TokenBudget, (budget) => budget.learned)
export const paused = Effect.flatMap(Budget.TokenBudget, (budget) => budget.pause({ duration: 1 }))
export const held = Effect.flatMap(Budget.TokenBudget, (budget) => budget.reserve({ tokens: 1 }))
export const verdict = Effect.flatMap(held, (held) => held.fail({ reason: "rateLimit" }))
export const charge = Effect.map(held, ({ charge }) => charge)
export const reserved = Budget.withReservation({ tokens: 1 }, (held) => held.settle({ tokens: 1 }))
export const refusal = (error: Budget.BudgetError) => error.reason
export const store = BudgetStore.layer({
  read: () => Effect.succeed(undefined),
  swap: (_k, _e, next) => Effect.succeed(next)
})
export const estimator = Estimator.make()
export const learned = Effect.flatMap(Estimator.Estimator, ({ learned }) => learned)
export const rejected = (event: Events.Event) => (event.type === "rejection" ? event : undefined)
export const observer = Events.Observer
export const workload = Forecast.uniform({ agents: 1, calls: 1, first: { inputTokens: 1, outputTokens: 1 } })
export const forecast = Forecast.make(workload, { limits: {} })
export const forecastEffect = Forecast.makeEffect(workload, { limits: {} })
export const { binding, waits, agents: forecastAgents, refused } = forecast
export const governor = Governor.make()
export const governorLayer = Governor.layer()
export const admitted = Effect.flatMap(Governor.Governor, (governor) => governor.admit({ model: "m", bytes: 1 }))
export const ran = Effect.flatMap(Governor.Governor, (governor) =>
  governor.run({ model: "m", bytes: 1 }, () => Effect.succeed({ value: 1 }))
)
export const dimensions = Limits.Dimension.literals
export const client = LlmClient.layerProvider()
export const clientLayer = LlmClient.layerConfig()
export const created = LlmClient.create(params)
export const streamed = LlmClient.stream(params)
export const failure = (error: LlmError.LlmError) => error.reason
export const pushback = (error: LlmError.LlmError) => error.pushback
export const received = (error: LlmError.LlmError) => error.reason.received
export const signal = (error: LlmError.LlmError) => error.signal
export const replied = Effect.flatMap(LlmProvider.LlmProvider, (provider) => provider.create(params))
export const tier = Presets.anthropic.build
export const poolName = Presets.poolOf("m")
export const price = Prices.find("m")
export const cost = Prices.cost({ input: 1, output: 1 }, { inputTokens: 1, outputTokens: 1 })
export const policy = Retry.make({ attempts: 3 })
export const schedule = Retry.schedule()
export const retryBudget = Retry.layerBudget()
export const retried = Retry.withPolicy(Effect.fail({ isRetryable: true }), policy)
export const limitsOf = Signals.fromHeaders({})
export const thrown = Signals.fromError({}, 0)
export const purse = Spending.make("a", { dollars: 1 })
export const spent = purse.status
export const kept = purse.kept
export const paid = Spending.from(purse)
export const model = Ai.make()
export const modelLayer = Ai.layer()
export const aiSdk = AiSdk.make()
export const middleware = Anthropic.make()
export const breaker = Breaker.layer()
export const breakerStore = Breaker.layerStore()
export const governedFetch = Fetch.make()
export const gateway = Gateway.make({})
export const gatewayLayer = Gateway.layer({})
export const floodgate = Floodgate.create()
export const limiter = floodgate.limiter
export const lease = floodgate.limiter.acquire({ model: "m" })
export const floodgateStatus = floodgate.status()
export const floodgateSpent = floodgate.spent()
export const floodgateLearned = floodgate.learned()
export const sdkMiddleware = floodgate.middleware
export const vercel = floodgate.aiSdk
export const whyRefused = (error: Floodgate.RefusedError) => error.reason
export const protocol: Protocol.Protocol = { ...Protocol.protocols.openaiChat, name: "mine" }
export const answer = Protocol.protocols.openaiChat.answer({})
export const provider = Provider.layerConfig()
export const own = Provider.fromClient({
  messages: {
    create: () => {
      throw new Error()
    }
  }
})
export const redis = Redis.layerStoreUrl({ url: "redis://localhost" })
export const shared = Redis.layerStoreConfig()
export const simulated = ProviderSim.layer()
export const outage = ProviderSim.outage(0, 1)
export const sizes = ProviderSim.lognormal(1, 1)
export const log = Effect.flatMap(ProviderSim.ProviderSim, ({ log }) => log)
export const stats = Effect.flatMap(ProviderSim.ProviderSim, ({ stats }) => stats)
export const simulation = Simulation.run(Effect.succeed(1))
export const checks = StoreContract.checks
export const server = ProviderServer.make()
export const serverLayer = ProviderServer.layer()
