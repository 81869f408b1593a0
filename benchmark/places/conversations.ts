/** How much of its prompts a job of conversations reads from the providers' caches, at one place and at two. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import type * as Limits from "floodgate/Limits"
import { LlmProvider, type Params } from "floodgate/LlmProvider"
import { ProviderSim, Simulation } from "floodgate/testing"

const conversations = 40
const turns = 20
const promptOf = (turn: number): number => 2_000 + 600 * turn

const limitsOf = (perSecond: number): Limits.Limits => ({
  inputTokens: { perSecond, burst: 3 * perSecond, window: "bucket" }
})

/** A place that has the last prompt of a conversation in its cache, if it got it. */
const place = (perSecond: number) => {
  const cached = new Map<string, number>()
  return ProviderSim.layer({
    limits: limitsOf(perSecond),
    outputTokens: 200,
    latency: { baseMillis: 500, perInputTokenMillis: 0.01, perOutputTokenMillis: 10 },
    cachedShare: ({ messages, metadata }: Params) => {
      const name = metadata!.user_id!
      const prompt = messages.reduce((sum, { content }) => sum + content.length, 0) / 4
      const share = (cached.get(name) ?? 0) / prompt
      cached.set(name, prompt)
      return Math.min(1, share)
    }
  })
}

/** A turn of the user: the conversation's own words, about as long as the prompt grows. */
const said = (conversation: string, turn: number): string => {
  const tokens = turn === 0 ? promptOf(0) : promptOf(turn) - promptOf(turn - 1)
  return `${conversation}, turn ${turn}: `.padEnd(4 * tokens, "x")
}

const params = (conversation: string, turn: number): Params => ({
  model: "claude-sonnet-5",
  max_tokens: 200,
  metadata: { user_id: conversation },
  cache_control: { type: "ephemeral" },
  messages: Array.from({ length: turn + 1 }, (_, n) => [
    { role: "user" as const, content: said(conversation, n) },
    ...(n < turn ? [{ role: "assistant" as const, content: "ok" }] : [])
  ]).flat()
})

/** The share of the prompts that was read from caches. */
export const cacheReadShare = async (rates: ReadonlyArray<number>, seed: number): Promise<number> => {
  const program = Effect.gen(function* () {
    const built = yield* Effect.forEach(rates, (rate) => Layer.build(Layer.fresh(place(rate))))
    const places = built.map((context, index) => ({
      name: `place-${index}`,
      provider: Layer.succeed(LlmProvider, Context.get(context, LlmProvider)),
      limits: limitsOf(rates[index]!)
    }))
    const live = LlmClient.layerPlaces({ models: { "claude-sonnet-5": places } }).pipe(Layer.provide(Budget.layer()))
    const client = Context.get(yield* Layer.build(live), LlmClient.LlmClient)
    let read = 0
    let prompts = 0
    const converse = (n: number) =>
      Effect.forEach(
        Array.from({ length: turns }, (_, turn) => turn),
        (turn) =>
          Effect.map(
            client.create(params(`conversation ${n}`, turn), {
              agent: `conversation ${n}`,
              inputTokens: promptOf(turn)
            }),
            ({ usage }) => {
              read += usage.cache_read_input_tokens ?? 0
              prompts += promptOf(turn)
            }
          )
      )
    yield* Effect.forEach(
      Array.from({ length: conversations }, (_, n) => n),
      converse,
      { concurrency: "unbounded" }
    )
    return read / prompts
  }).pipe(Effect.scoped)
  return (await Effect.runPromise(Simulation.run(program, { seed }))).value
}
