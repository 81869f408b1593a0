/**
 * Keeps calls that share a cached prefix from each paying for it.
 *
 * A provider caches a prefix when the first response to it begins. Twenty agents that start together would each write the whole
 * prefix, and each write counts towards the limit on input. So the first call with a key is sent alone, and the others are sent
 * when its response begins and read the cache.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Wake } from "../line/waker.ts"
import * as Lru from "../domain/input/lru.ts"

/** How long a provider keeps an unused prefix. Anthropic's shorter cache lasts five minutes. */
const warmMillis = 300_000
/** The longest wait for the first response. After that, waiting costs more than paying for the prefix. */
const patience = Duration.minutes(1)
/** Bounds the number of remembered keys, because callers may generate them. */
const maxKeys = 1_000

/** A prefix whose first call is running, and the calls that wait for it. */
interface Warming {
  readonly _tag: "Warming"
  readonly waiting: Set<() => void>
  isOver: boolean
}

type CachedPrefix = Warming | { readonly _tag: "Warm"; readonly until: number }

/**
 * Runs an effect that uses the prefix of a key. It waits until another one has filled the cache, but not longer than `until`, in
 * milliseconds of the clock. The effect must succeed only when its response has begun.
 */
export type Warmup = <A, E, R>(key: string, until: number, self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

const over = (state: Warming): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const done = (): void => resume(Effect.void)
    if (state.isOver) return done()
    state.waiting.add(done)
    return Effect.sync(() => state.waiting.delete(done))
  })

export const make = (wake: Wake): Warmup => {
  const states = new Map<string, CachedPrefix>()

  const keep = (key: string, state: CachedPrefix): void => Lru.put(states, key, state, maxKeys)

  const succeeded = (key: string): Effect.Effect<void> =>
    Effect.map(Clock.currentTimeMillis, (now) => keep(key, { _tag: "Warm", until: now + warmMillis }))

  /** Runs the first call. If it succeeds, the others read the cache; otherwise the next of them becomes the first. */
  const warm = <A, E, R>(key: string, self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
    const own: Warming = { _tag: "Warming", waiting: new Set(), isOver: false }
    keep(key, own)
    const end = Effect.sync(() => {
      own.isOver = true
      for (const done of own.waiting) wake(done)
    })
    // A call that stopped waiting may have filled the cache meanwhile.
    const failed = Effect.sync(() => states.get(key) === own && states.delete(key))
    return Effect.onExit(self, (exit) => Effect.andThen(Exit.isSuccess(exit) ? succeeded(key) : failed, end))
  }

  const enter = <A, E, R>(key: string, until: number, self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => {
        const state = states.get(key)
        if (state === undefined || (state._tag === "Warm" && state.until <= now)) return warm(key, restore(self))
        if (state._tag === "Warm" || until <= now) return Effect.tap(restore(self), () => succeeded(key))
        return Effect.andThen(restore(Effect.timeoutOption(over(state), until - now)), restore(enter(key, until, self)))
      })
    )

  return (key, until, self) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) =>
      enter(key, Math.min(until, now + Duration.toMillis(patience)), self)
    )
}
