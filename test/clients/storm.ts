/** The storm: 12 agents with 5 calls each of about 2,000 tokens, against a limit that binds, over real HTTP. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as FloodgateAiSdk from "floodgate/ai-sdk"
import * as Fetch from "floodgate/fetch"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import type * as Limits from "floodgate/Limits"
import { ProviderServer } from "floodgate/testing/server"
import { withStalls } from "../support/stalls.ts"
import type { Client, Setup } from "./clients.ts"

export const agents = 12
export const callsEach = 5
const charactersEach = 8_000

/** The result of a storm. */
export interface Result {
  readonly ok: number
  /** Requests that the provider rejected. */
  readonly rejected: number
  readonly seconds: number
  /** The longest time for which this process was blocked and sent nothing on time. */
  readonly stalledMillis: number
  /** The messages of the failures, each once. */
  readonly failures: ReadonlyArray<string>
}

/** The results of a client, alone and governed. */
export interface Row {
  readonly name: string
  readonly through: string
  readonly versions: ReadonlyArray<string>
  readonly bare: Result
  readonly governed: Result
}

/** 120,000 tokens in all: 40,000 at once, and the rest within 8 s. */
const rate = { perSecond: 10_000, burst: 40_000 }

/** Anthropic and Gemini limit the input. OpenAI limits all tokens, and counts the larger of prompt and `max_tokens`. */
const limitsOf = ({ protocol }: Client): Limits.Limits =>
  protocol === "openai" ? { tokens: rate } : { inputTokens: rate }

const provider = (client: Client): ProviderServer.Options => ({
  limits: limitsOf(client),
  counting: client.protocol === "openai" ? "openai" : "usage",
  latency: { baseMillis: 200, perInputTokenMillis: 0, perOutputTokenMillis: 2 },
  outputTokens: 50,
  reply: () => "A short answer of about fifty tokens. ".repeat(5)
})

/** One agent's calls, one after the other; a failed one is not asked again. */
const work = async (client: Client, setup: Setup): Promise<Pick<Result, "ok" | "failures">> => {
  const ask = client.make(setup)
  let ok = 0
  const failures = new Set<string>()
  const agent = async (number: number): Promise<void> => {
    for (let call = 0; call < callsEach; call++) {
      const prompt = `Agent ${number}, call ${call}. `.padEnd(charactersEach, "words and more ")
      try {
        await ask(prompt, `agent-${number}`)
        ok++
      } catch (error) {
        failures.add(String(error).slice(0, 200))
      }
    }
  }
  await Promise.all(Array.from({ length: agents }, (_, number) => agent(number)))
  return { ok, failures: [...failures] }
}

/**
 * Opens the connections and loads what Node loads for a first request. The bucket is full until the first call arrives, so what
 * that takes would be refill that the floodgate counts and the provider has no room for.
 */
const warmUp = (url: string) =>
  Effect.promise(() =>
    Promise.all(Array.from({ length: agents }, async () => (await fetch(`${url}/healthz`)).arrayBuffer()))
  )

/** A gateway in front of a provider. It knows only the provider's address. Its budget lives as long as the gateway. */
const gatewayTo = Effect.fnUntraced(function* (upstream: string) {
  const live = yield* Layer.build(Layer.provideMerge(Governor.layer(), Budget.layer()))
  const upstreams = { anthropic: upstream, openai: upstream, gemini: upstream }
  const { url } = yield* Effect.provide(Gateway.make({ upstreams }), live)
  return url
})

/** Runs the storm of a client, alone, governed, or by the base URL of a gateway alone, against a provider of its own. */
export const storm = (client: Client, mode: "bare" | "governed" | "gateway"): Promise<Result> => {
  const program = Effect.gen(function* () {
    const server = yield* ProviderServer.make(provider(client))
    const floodgate =
      mode !== "governed" ? undefined : { fetch: yield* Fetch.make(), middleware: yield* FloodgateAiSdk.make() }
    const url = mode === "gateway" ? yield* gatewayTo(server.url) : server.url
    yield* warmUp(url)
    const start = performance.now()
    const working = Effect.promise(() => work(client, { url, floodgate }))
    const [{ failures, ok }, stalledMillis] = yield* withStalls(working)
    const seconds = (performance.now() - start) / 1_000
    const { rejected } = yield* server.stats
    return { ok, rejected, seconds, stalledMillis, failures }
  })
  const live = Layer.provideMerge(Governor.layer(), Budget.layer({ limits: limitsOf(client) }))
  return Effect.runPromise(Effect.scoped(Effect.provide(program, live)))
}
