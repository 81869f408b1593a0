/**
 * Compares routers over two places: `npm run -s bench -- routers`. Portkey's gateway, the AI SDK with a fallback by hand, Effect's
 * `ExecutionPlan`, and the governed `fetch` with places, each over real HTTP to two simulated providers with equal limits. Every client
 * repeats a call until it succeeds, after `retry-after` or a backoff. Portkey and the AI SDK take part where they are installed:
 * `npm ci --prefix benchmark/gateway/rivals` and `npm ci --prefix test/clients`.
 *
 *     --scale N     how many times faster than real time the providers' time passes (4)
 *     --rounds N    (3)
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as ExecutionPlan from "effect/ExecutionPlan"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import { LlmProvider, type Params } from "floodgate/LlmProvider"
import * as Floodgate from "floodgate/promise"
import * as Anthropic from "floodgate/providers/Anthropic"
import { ProviderServer } from "floodgate/testing/server"
import { type ChildProcess, spawn } from "node:child_process"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { setTimeout as sleep } from "node:timers/promises"
import { mulberry } from "../test/support/random.ts"

const { values } = parseArgs({
  options: { scale: { type: "string", default: "4" }, rounds: { type: "string", default: "3" } }
})
const scale = Number(values.scale)

const model = "claude-sonnet-5"
const agents = 40
const callsOfAgent = 10
const perSecond = 30_000
const burst = 100_000

/** Makes one attempt. Returns how long the provider asks to wait, in real milliseconds; undefined once the call has succeeded. */
type Attempt = (params: Params) => Promise<{ readonly retryAfter: number } | undefined>

/** Repeats an attempt: after 0.5 s doubled up to 8 s, or after `retry-after` if that is longer, times 0.8 to 1.2. */
const untilDone = async (attempt: Attempt, params: Params, random: () => number): Promise<void> => {
  for (let n = 0; ; n++) {
    const failed = await attempt(params)
    if (failed === undefined) return
    await sleep((0.8 + 0.4 * random()) * Math.max(failed.retryAfter, Math.min(8_000, 500 * 2 ** n) / scale))
  }
}

const waitOf = (header: (name: string) => string | null | undefined): { readonly retryAfter: number } => ({
  retryAfter: Number(header("retry-after-ms") ?? 0) || 1_000 * Number(header("retry-after") ?? 0)
})

const headers = { "content-type": "application/json", "x-api-key": "any", "anthropic-version": "2023-06-01" }

/** An attempt by a `fetch`. */
const posted =
  (fetch: typeof globalThis.fetch, url: string, more: Readonly<Record<string, string>> = {}): Attempt =>
  async (params) => {
    const body = JSON.stringify(params)
    const own = { ...headers, "x-floodgate-agent": params.metadata!.user_id!, ...more }
    try {
      const response = await fetch(`${url}/v1/messages`, { method: "POST", headers: own, body })
      await response.arrayBuffer()
      return response.ok ? undefined : waitOf((name) => response.headers.get(name))
    } catch {
      // The connection was closed while it was idle.
      return { retryAfter: 0 }
    }
  }

// -----------------------------------------------------------------------------
// Routers
// -----------------------------------------------------------------------------

type Urls = readonly [string, string]

interface Router {
  readonly name: string
  readonly make: (urls: Urls) => Promise<{ readonly attempt: Attempt; readonly close?: () => Promise<void> | void }>
}

const floodgate: Router = {
  name: "Floodgate's `fetch` with places",
  make: async (urls) => {
    const limits = { tokens: { perSecond: scale * perSecond, burst, window: "bucket" as const } }
    const places = urls.map((url, index) => ({ name: "ab"[index]!, url: `${url}/v1`, key: "any", limits }))
    const made = Floodgate.create({ places: { models: { [model]: places } }, retry: { baseSeconds: 2 / scale } })
    return { attempt: posted(made.fetch, urls[0]), close: () => made.dispose() }
  }
}

const plan: Router = {
  name: "Effect's `ExecutionPlan`",
  make: async (urls) => {
    const services = await Promise.all(
      urls.map((baseUrl) =>
        Effect.runPromise(Effect.scoped(Layer.build(Anthropic.layer({ apiKey: Redacted.make("any"), baseUrl }))))
      )
    )
    const steps = services.map((context) => ({
      provide: Context.make(LlmProvider, Context.get(context, LlmProvider)),
      attempts: 1
    }))
    const made = ExecutionPlan.make(steps[0]!, steps[1]!)
    const attempt: Attempt = (params) =>
      LlmProvider.use((provider) => provider.create(params)).pipe(
        Effect.withExecutionPlan(made),
        Effect.match({
          onSuccess: () => undefined,
          onFailure: ({ retryAfter = Duration.zero }) => ({ retryAfter: Duration.toMillis(retryAfter) })
        }),
        Effect.runPromise
      )
    return { attempt }
  }
}

const clients = join(import.meta.dirname, "../test/clients/node_modules")

/** The AI SDK has no fallback of its own: its users write one in a `catch`. */
const aiSdk: Router = {
  name: "the AI SDK, `maxRetries: 0`, and the second model in a `catch`",
  make: async (urls) => {
    const { generateText } = await import(join(clients, "ai/dist/index.js"))
    const { createAnthropic } = await import(join(clients, "@ai-sdk/anthropic/dist/index.js"))
    const models = urls.map((url) => createAnthropic({ baseURL: `${url}/v1`, apiKey: "any" })(model))
    const ask = (index: number, params: Params) =>
      generateText({
        model: models[index],
        prompt: params.messages[0]!.content,
        maxOutputTokens: params.max_tokens,
        maxRetries: 0
      })
    const attempt: Attempt = async (params) => {
      try {
        await ask(0, params).catch(() => ask(1, params))
        return undefined
      } catch (error) {
        const { responseHeaders = {} } = error as { readonly responseHeaders?: Record<string, string> }
        return waitOf((name) => responseHeaders[name])
      }
    }
    return { attempt }
  }
}

const rivals = join(import.meta.dirname, "gateway/rivals/node_modules")

const portkey = (mode: "fallback" | "loadbalance"): Router => ({
  name: `Portkey's gateway, \`${mode}\``,
  make: async (urls) => {
    const args = [...process.execArgv, join(import.meta.dirname, "gateway/server.ts"), "@portkey-ai/gateway", ""]
    const child: ChildProcess = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "ignore", "ipc"] })
    const line = await new Promise((resolve) => child.stdout!.once("data", resolve))
    const targets = urls.map((url) => ({
      provider: "anthropic",
      custom_host: `${url}/v1`,
      api_key: "any",
      weight: 0.5
    }))
    const config = JSON.stringify({ strategy: { mode }, targets })
    const url = /http:\S+/.exec(String(line))![0]
    return { attempt: posted(globalThis.fetch, url, { "x-portkey-config": config }), close: () => void child.kill() }
  }
})

const routers: ReadonlyArray<Router> = [
  floodgate,
  ...(existsSync(join(rivals, "@portkey-ai/gateway")) ? [portkey("fallback"), portkey("loadbalance")] : []),
  ...(existsSync(join(clients, "@ai-sdk/anthropic")) ? [aiSdk] : []),
  plan
]

// -----------------------------------------------------------------------------
// The job
// -----------------------------------------------------------------------------

const provider = ProviderServer.layer({
  limits: { tokens: { perSecond, burst, window: "bucket" } },
  outputTokens: 200,
  latency: { baseMillis: 500, perInputTokenMillis: 0.01, perOutputTokenMillis: 10 },
  timeScale: scale
})

const job = (router: Router, seed: number) =>
  Effect.gen(function* () {
    const built = yield* Effect.forEach([0, 1], () => Layer.build(Layer.fresh(provider)))
    const servers = built.map((context) => Context.get(context, ProviderServer.ProviderServer))
    const { attempt, close } = yield* Effect.promise(() => router.make([servers[0]!.url, servers[1]!.url]))
    const agent = async (n: number): Promise<void> => {
      const random = mulberry(1_000 * seed + n)
      for (let call = 0; call < callsOfAgent; call++) {
        const tokens = 2_000 + Math.round(16_000 * random())
        const content = "x".repeat(4 * tokens)
        const messages = [{ role: "user" as const, content }]
        await untilDone(attempt, { model, max_tokens: 200, metadata: { user_id: `agent ${n}` }, messages }, random)
      }
    }
    const startedAt = performance.now()
    yield* Effect.promise(() => Promise.all(Array.from({ length: agents }, (_, n) => agent(n))))
    const seconds = ((performance.now() - startedAt) * scale) / 1_000
    yield* Effect.promise(async () => close?.())
    const stats = yield* Effect.forEach(servers, (server) => server.stats)
    const sum = (of: "requests" | "rejected"): number => stats.reduce((all, each) => all + each[of], 0)
    return { seconds, rejected: sum("rejected") / sum("requests") }
  }).pipe(Effect.scoped)

console.log("| router | seconds | 429s |")
console.log("| --- | ---: | ---: |")
for (const router of routers) {
  const runs: Array<{ readonly seconds: number; readonly rejected: number }> = []
  for (let seed = 1; seed <= Number(values.rounds); seed++) runs.push(await Effect.runPromise(job(router, seed)))
  const all = runs.map(({ seconds }) => seconds)
  const share = runs.reduce((sum, { rejected }) => sum + rejected, 0) / runs.length
  const range = `${Math.min(...all).toFixed(1)}-${Math.max(...all).toFixed(1)}`
  console.log(`| ${router.name} | ${range} | ${(100 * share).toFixed(1)} % |`)
}
process.exit(0)
