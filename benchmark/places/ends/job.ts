/** The job of a cell with the library: one governor, or two over a store that they share. Virtual time. */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import * as Governor from "floodgate/Governor"
import { ConnectionFailed, LlmError, RateLimited } from "floodgate/LlmError"
import { Simulation } from "floodgate/testing"
import { MapStore } from "../../../test/support/store.ts"
import {
  agents,
  callsEach,
  type Cell,
  equalOutput,
  inputTokens,
  isThere,
  outputOf,
  type RealPlace,
  takes
} from "./cells.ts"

/** A place that takes calls, and counts them. */
class Provider {
  readonly place: RealPlace
  private level: number
  private at = 0
  private running = 0
  sent = 0
  rejected = 0
  answered = 0
  constructor(place: RealPlace) {
    this.place = place
    this.level = place.burst
  }
  /** Whether the bucket and the slots hold a call, which is then charged. */
  private admits(now: number): boolean {
    const { burst, neighbour, rate, slots } = this.place
    this.level = Math.min(burst, this.level + ((now - this.at) * rate * (1 - neighbour)) / 1_000)
    this.at = now
    if (this.running >= slots || this.level < inputTokens) return false
    this.level -= inputTokens
    return true
  }
  call(output: number, now: number, chance: number): Effect.Effect<void, LlmError> {
    this.sent++
    const failed = (reason: LlmError["reason"]) => Effect.delay(Effect.fail(new LlmError({ reason })), 200)
    if (!isThere(this.place, now)) return failed(new ConnectionFailed({ sent: false, code: "ECONNREFUSED" }))
    if (chance < this.place.rejects || !this.admits(now)) {
      this.rejected++
      return failed(new RateLimited({ status: 429 }))
    }
    this.running++
    const millis = takes(this.place, now, output)
    const dies = this.place.speeds.find(({ from, speed }) => from > now && speed === undefined)?.from ?? Infinity
    const cut = new LlmError({ reason: new ConnectionFailed({ sent: true, code: "ECONNRESET" }) })
    const ends = dies < Infinity ? Effect.delay(Effect.fail(cut), dies - now) : Effect.never
    const answer = millis === Infinity ? ends : Effect.sleep(millis)
    return Effect.tap(answer, () => Effect.sync(() => void this.answered++)).pipe(
      Effect.ensuring(Effect.sync(() => void this.running--))
    )
  }
}

export interface Run {
  readonly millis: number
  readonly sent: number
  readonly rejected: number
  /** Calls that failed, and answers that were given more than once. */
  readonly lost: number
  readonly twice: number
  /** What a call cost on average, and how many took longer than the deadline. */
  readonly cost: number
  readonly late: number
  /** The calls that each place answered. */
  readonly answered: ReadonlyArray<number>
}

interface How {
  readonly isTold: boolean
  readonly processes?: number
  /** For the policy "cheapest", in milliseconds. */
  readonly within?: number
}

const layerOf = (store: BudgetStore.Store | undefined) => {
  const governor = Governor.layer().pipe(Layer.provideMerge(Budget.layer()))
  return store === undefined ? governor : Layer.provide(governor, BudgetStore.layer(store))
}

export const run = async (
  { places, timeout }: Pick<Cell, "places" | "timeout">,
  seed: number,
  { isTold, processes = 1, within }: How
): Promise<Run> => {
  const providers = new Map(places.map((place) => [place.name, new Provider(place)]))
  const call = {
    model: "m",
    bytes: 4 * inputTokens,
    inputTokens,
    maxTokens: 1_000,
    places: {
      places: places.map(({ burst, name, price, rate }) => ({
        name,
        model: "m",
        price: { input: price, output: price },
        limits: isTold ? { inputTokens: { perSecond: rate, burst, window: "bucket" as const } } : undefined
      })),
      policy: within === undefined ? ("soonest" as const) : ("cheapest" as const),
      within
    }
  }
  let lost = 0
  let late = 0
  const program = Effect.gen(function* () {
    const store = processes === 1 ? undefined : new MapStore()
    if (store !== undefined) store.latency = 2
    const governors = yield* Effect.forEach(Array.from({ length: processes }), () =>
      Effect.map(Layer.build(Layer.fresh(layerOf(store))), (context) => Context.get(context, Governor.Governor))
    )
    const from = yield* Clock.currentTimeMillis
    const agent = Effect.fnUntraced(function* (index: number) {
      const governor = governors[index % processes]!
      for (let n = 0; n < callsEach; n++) {
        const outputTokens = (within === undefined ? outputOf : equalOutput)(seed, index, n)
        const attempt = ({ place }: Governor.Ticket) =>
          Effect.gen(function* () {
            const now = (yield* Clock.currentTimeMillis) - from
            yield* providers.get(place!)!.call(outputTokens, now, yield* Random.next)
            return { value: undefined, actual: { inputTokens, outputTokens } }
          })
        const [took, exit] = yield* Effect.timed(
          Effect.exit(governor.run(call, attempt, { agent: `agent ${index}`, timeout }))
        )
        if (exit._tag === "Failure") lost++
        if (Duration.toMillis(took) > (within ?? Infinity)) late++
      }
    })
    yield* Effect.forEach(
      Array.from({ length: agents }, (_, n) => n),
      agent,
      { concurrency: "unbounded" }
    )
    return (yield* Clock.currentTimeMillis) - from
  }).pipe(Effect.scoped)
  const { value: millis } = await Effect.runPromise(Simulation.run(program, { seed }))
  const all = [...providers.values()]
  const sum = (of: (provider: Provider) => number): number => all.reduce((total, each) => total + of(each), 0)
  const answered = sum((each) => each.answered)
  return {
    millis,
    sent: sum(({ sent }) => sent),
    rejected: sum(({ rejected }) => rejected),
    lost,
    twice: answered - (agents * callsEach - lost),
    cost: sum((each) => each.answered * each.place.price) / answered,
    late,
    answered: all.map(({ answered }) => answered)
  }
}
