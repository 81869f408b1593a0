/** What a job costs with a flex tier that refuses 30 % of its attempts, and how many deadlines it misses. */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Stream from "effect/Stream"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import { LlmError, TierFull } from "floodgate/LlmError"
import * as LlmProvider from "floodgate/LlmProvider"
import type { MessageEvent } from "floodgate/Messages"
import { Simulation } from "floodgate/testing"
import { message, whole } from "../../test/support/scriptedProvider.ts"

const answerSeconds = 8
const jobs = 400

/** A tier that refuses a part of all attempts independently, and counts its answers. */
const tier = (refused: number) => {
  const seen = { answers: 0, refusals: 0 }
  const reply = <A>(value: A): LlmProvider.Reply<A> => ({ value, signal: { dimensions: {} }, requestId: undefined })
  /** How long the answer to an attempt takes, unless it is refused. */
  const accepted = Effect.gen(function* () {
    yield* Effect.sleep("300 millis")
    if ((yield* Random.next) < refused) {
      seen.refusals++
      return yield* Effect.fail(new LlmError({ reason: new TierFull({ status: 429 }) }))
    }
    seen.answers++
    return Effect.sleep(1_000 * answerSeconds * (0.8 + 0.4 * (yield* Random.next)))
  })
  const events = Stream.fromIterable(whole("hello") as ReadonlyArray<MessageEvent>)
  const provider = LlmProvider.make({
    name: "tier",
    create: () => Effect.flatMap(accepted, (answered) => Effect.as(answered, reply(message("hello")))),
    stream: () => Effect.map(accepted, (answered) => reply(Stream.concat(Stream.fromEffectDrain(answered), events))),
    countTokens: () => Effect.die(new Error("the input is known"))
  })
  return { seen, layer: Layer.succeed(LlmProvider.LlmProvider, provider) }
}

/** The deadline leaves time for three attempts at the flex tier with their backoff, and one at the standard tier. */
const within = Duration.seconds(30)

/** Makes the calls of the job, all of them as streams or none. */
export const flex = async (seed: number, isStreamed: boolean) => {
  const [cheap, standard] = [tier(0.3), tier(0)]
  const price = { input: 2, output: 10 }
  const models = {
    "claude-sonnet-5": [
      { name: "standard", provider: standard.layer, price },
      { name: "flex", provider: cheap.layer, price, tier: "flex" }
    ]
  }
  const live = LlmClient.layerPlaces({ models, policy: "cheapest", within }).pipe(Layer.provide(Budget.layer()))
  const params = { model: "claude-sonnet-5", max_tokens: 200, messages: [{ role: "user" as const, content: "Hello" }] }
  const program = Effect.gen(function* () {
    const client = Context.get(yield* Layer.build(live), LlmClient.LlmClient)
    let missed = 0
    const job = (n: number) =>
      Effect.gen(function* () {
        yield* Effect.sleep(Duration.millis(500 * n))
        const known = { inputTokens: 1_000 }
        const call = isStreamed ? Stream.runDrain(client.stream(params, known)) : client.create(params, known)
        const [took] = yield* Effect.timed(call)
        if (Duration.isGreaterThan(took, within)) missed++
      })
    yield* Effect.forEach(
      Array.from({ length: jobs }, (_, n) => n),
      job,
      { concurrency: "unbounded" }
    )
    return missed
  }).pipe(Effect.scoped)
  const { value: missed } = await Effect.runPromise(Simulation.run(program, { seed }))
  const cost = standard.seen.answers + cheap.seen.answers / 2
  return { cost: cost / jobs, missed, refusals: cheap.seen.refusals, standard: standard.seen.answers }
}
