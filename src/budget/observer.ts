/** Who observes a budget and the calls under it: by events, and by what changes. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as PubSub from "effect/PubSub"
import * as Stream from "effect/Stream"
import { type Event, Observer } from "../Events.ts"
import { harmless } from "../input/callbacks.ts"
import type { Wake } from "./waker.ts"

/** The observer of a context, made safe: undefined where there is none. */
export const observerOf = (context: Context.Context<never>): ((event: Event) => void) | undefined => {
  const observer = Context.get(context, Observer)
  return observer && harmless(observer)
}

/** Ticks once for all that changes until the readers resume. */
export const tickOf = (ticks: PubSub.PubSub<void>, wake: Wake): (() => void) => {
  let isDue = false
  const tick = (): void => {
    isDue = false
    PubSub.publishUnsafe(ticks, undefined)
  }
  return () => {
    if (isDue || ticks.subscribers.size === 0) return
    isDue = true
    wake(tick)
  }
}

/** What holds now and after every tick. Where ticks slide, a slow reader gets the latest only. */
export const latest = <A>(ticks: PubSub.PubSub<void>, now: Effect.Effect<A>): Stream.Stream<A> =>
  Stream.unwrap(
    Effect.map(PubSub.subscribe(ticks), (subscription) =>
      Stream.concat(Stream.succeed<void>(undefined), Stream.fromSubscription(subscription)).pipe(
        Stream.mapEffect(() => now)
      )
    )
  )
