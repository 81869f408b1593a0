/** Reports what a budget does: events to an observer, and a stream of changes. */
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as PubSub from "effect/PubSub"
import * as Stream from "effect/Stream"
import { type Event, Observer } from "../Events.ts"
import { harmless } from "../domain/input/callbacks.ts"
import type * as Limits from "../Limits.ts"
import type { Pushback } from "../domain/signal.ts"
import type { Wake } from "../line/waker.ts"

/** The observer of a context, which cannot break a call by throwing; undefined if there is none. */
export const observerOf = (context: Context.Context<never>): ((event: Event) => void) | undefined => {
  const observer = Context.get(context, Observer)
  return observer && harmless(observer)
}

/** Reports the events of a pool. An observer may call the pool, so events are reported after everything else. */
export const reportsOf = (observer: (event: Event) => void, clock: Clock.Clock, pool: string) => {
  const times = (millis: number) => {
    const at = clock.currentTimeMillisUnsafe()
    return { at, until: at + Math.ceil(millis) }
  }
  return {
    wait: (agent: string, dimension: Limits.Dimension | undefined, millis: number): void =>
      observer({ type: "wait", pool, agent, dimension, ...times(millis) }),
    pause: (reason: Pushback, millis: number): void => observer({ type: "pause", pool, reason, ...times(millis) })
  }
}

/** Ticks once for all changes until the readers resume. */
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

/** A value now and after every tick. If the ticks slide, a slow reader gets only the latest. */
export const latest = <A>(ticks: PubSub.PubSub<void>, now: Effect.Effect<A>): Stream.Stream<A> =>
  Stream.unwrap(
    Effect.map(PubSub.subscribe(ticks), (subscription) =>
      Stream.concat(Stream.succeed<void>(undefined), Stream.fromSubscription(subscription)).pipe(
        Stream.mapEffect(() => now)
      )
    )
  )
