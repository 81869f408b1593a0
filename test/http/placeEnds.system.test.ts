/** Places over real HTTP, with the official SDKs: one job while a place is slow, dies, or is like the other. */
import Anthropic from "@anthropic-ai/sdk"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Floodgate from "floodgate/promise"
import { ProviderSim } from "floodgate/testing"
import { ProviderServer } from "floodgate/testing/server"
import { createHash } from "node:crypto"
import OpenAI from "openai"
import { gatewayTo } from "../support/gateway.ts"
import { serve } from "../support/httpServer.ts"

const agents = 10
const callsEach = 8

const latency = (baseMillis: number) => ({ baseMillis, perInputTokenMillis: 0, perOutputTokenMillis: 0 })
const bucket = { perSecond: 40, window: "bucket" as const }
/** Neither place alone takes all calls at once, however slow the machine is that makes them. */
const stated = { limits: { requests: { ...bucket, burst: 5 } }, concurrency: agents / 2 }
/** A busy machine delivers calls together that were sent one after the other. Calls sent without limits would still be too many. */
const limits = { requests: { ...bucket, burst: 20 } }

// -----------------------------------------------------------------------------
// Clients and ways in
// -----------------------------------------------------------------------------

/** Where a client calls, with which key, and through which fetch. */
interface Access {
  readonly url: string
  readonly apiKey: string
  readonly fetch?: typeof globalThis.fetch
}

type Ask = (agent: string, content: string) => Promise<unknown>

const throughAnthropic = ({ url: baseURL, ...access }: Access): Ask => {
  const client = new Anthropic({ ...access, baseURL, maxRetries: 0 })
  return async (agent, content) => {
    const messages = [{ role: "user" as const, content }]
    const metadata = { user_id: agent }
    return (await client.messages.create({ model: "claude-sonnet-5", max_tokens: 20, metadata, messages })).stop_reason
  }
}

const throughOpenAI = ({ url, ...access }: Access): Ask => {
  const client = new OpenAI({ ...access, baseURL: `${url}/v1`, maxRetries: 0 })
  return async (user, content) => {
    const messages = [{ role: "user" as const, content }]
    const { choices } = await client.chat.completions.create({ model: "gpt-6", max_tokens: 20, user, messages })
    return choices[0]?.finish_reason
  }
}

const clients = {
  anthropic: { model: "claude-sonnet-5", client: throughAnthropic },
  openai: { model: "gpt-6", client: throughOpenAI }
}
type Provider = keyof typeof clients

/** The governed fetch with a place for each address. */
const byFetch = Effect.fnUntraced(function* (provider: Provider, urls: ReadonlyArray<string>) {
  const base = provider === "openai" ? "/v1" : ""
  const places = urls.map((url, n) => ({ name: "ab"[n]!, url: `${url}${base}`, key: `KEY-${n}`, ...stated }))
  const floodgate = Floodgate.create({ places: { models: { [clients[provider].model]: places } } })
  yield* Effect.addFinalizer(() => Effect.promise(() => floodgate.dispose()))
  return { url: urls[0]!, apiKey: "KEY", fetch: floodgate.fetch }
})

/** A gateway with a mirror of the provider. */
const byGateway = Effect.fnUntraced(function* (provider: Provider, urls: ReadonlyArray<string>) {
  const apiKey = "fg-caller-0123456789"
  const { url } = yield* gatewayTo(urls[0]!, {
    upstreams: { [provider]: urls[0]!, mirror: urls[1]! },
    keys: [{ name: "caller", sha256: createHash("sha256").update(apiKey).digest("hex") }],
    credentials: { [provider]: Redacted.make("KEY-0"), mirror: Redacted.make("KEY-1") },
    places: {
      [clients[provider].model]: [
        { upstream: provider, ...stated },
        { upstream: "mirror", ...stated }
      ]
    }
  })
  return { url: `${url}/${provider}`, apiKey }
})

const waysIn = { "the governed fetch": byFetch, "the gateway": byGateway }

/** Stands in front of the servers, and returns where the places are then. */
type Front = (urls: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<{ readonly url: string }>, never, Scope.Scope>

/**
 * Holds all calls until each agent has one under way. Otherwise a busy machine, which takes longer to make calls than the places take to
 * answer them, never has more in flight than the first place takes.
 */
const together: Front = (urls) => {
  const held: Array<() => Promise<void>> = []
  return Effect.forEach(urls, (url) =>
    serve((request, response, content) => {
      const { headers, method = "GET", url: path = "/" } = request
      held.push(async () => {
        const names = ["authorization", "x-api-key", "content-type", "anthropic-version"]
        const kept = names.flatMap((name) => (headers[name] === undefined ? [] : [[name, String(headers[name])]]))
        const answer = await fetch(`${url}${path}`, { method, headers: Object.fromEntries(kept), body: content })
        response.writeHead(answer.status, Object.fromEntries(answer.headers)).end(await answer.text())
      })
      if (held.length === agents) for (const pass of held.splice(0)) void pass()
    })
  )
}

/** Runs a job at two places, and returns the requests that each has accepted and refused. */
const job = Effect.fnUntraced(function* (
  provider: Provider,
  way: keyof typeof waysIn,
  first: ProviderServer.Options,
  second: ProviderServer.Options,
  front: Front = (urls) => Effect.succeed(urls.map((url) => ({ url })))
) {
  const servers = yield* Effect.forEach([first, second], (options) => ProviderServer.make({ limits, ...options }))
  const fronts = yield* front(servers.map(({ url }) => url))
  const access = yield* waysIn[way](
    provider,
    fronts.map(({ url }) => url)
  )
  const ask = clients[provider].client(access)
  const agent = async (name: string) => {
    for (let n = 0; n < callsEach; n++) assert.isString(await ask(name, `${name}, call ${n}`))
  }
  yield* Effect.promise(() => Promise.all(Array.from({ length: agents }, (_, n) => agent(`agent ${n}`))))
  const stats = yield* Effect.forEach(servers, (server) => server.stats)
  const answered = stats.map(({ completed }) => completed)
  // Nothing is lost, and nothing is answered twice.
  assert.strictEqual(answered[0]! + answered[1]!, agents * callsEach)
  return { answered, stats }
})

// -----------------------------------------------------------------------------
// Tests
// -----------------------------------------------------------------------------

for (const provider of ["anthropic", "openai"] as const) {
  for (const way of ["the governed fetch", "the gateway"] as const) {
    describe(`two places of ${provider} through ${way}`, () => {
      it.live("share a job if they are alike", () =>
        Effect.gen(function* () {
          const usual = { latency: latency(30) }
          const { answered, stats } = yield* job(provider, way, usual, usual, together)
          // Each takes as many as its concurrency, of each call of the agents.
          assert.deepStrictEqual(answered, [(agents * callsEach) / 2, (agents * callsEach) / 2])
          assert.deepStrictEqual(
            stats.map(({ rejected }) => rejected),
            [0, 0]
          )
        })
      )

      it.live("give few calls to one that is slow", () =>
        Effect.gen(function* () {
          const { answered } = yield* job(provider, way, { latency: latency(1_500) }, { latency: latency(30) })
          // One for each agent at the most, and one more that may find out if it has recovered.
          assert.isAtMost(answered[0]!, agents + 1)
        })
      )

      it.live("lose no call if one dies", () =>
        Effect.gen(function* () {
          const { answered } = yield* job(
            provider,
            way,
            { latency: latency(30), faults: [ProviderSim.outage(200, 3_600_000)] },
            { latency: latency(30) }
          )
          assert.isAtLeast(answered[1]!, 0.5 * agents * callsEach)
        })
      )
    })
  }
}
