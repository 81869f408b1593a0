/**
 * Keeps callers who share a cached prefix from paying for it all at once.
 *
 * A provider's cache holds a prefix only after the first response to it has begun, so that twenty agents who start
 * together each write the whole prefix into it, and each of those writes counts towards the limit on input. Here the first
 * call with a key goes alone; the others wait until its response begins, and then read the cache.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Wake } from "../budget/waker.ts"
import * as Lru from "../domain/input/lru.ts"

/** How long a provider keeps a prefix that nobody uses: Anthropic's shorter cache lasts five minutes. */
const warmMillis = 300_000
/** The longest wait for another response to begin. After that, paying for the prefix costs less. */
const patience = Duration.minutes(1)
/** Bounded, so that generated keys cannot leak memory. */
const maxKeys = 1_000

/** The first call with a key, and those that wait for it. */
interface Warming {
  readonly _tag: "Warming"
  readonly waiting: Set<() => void>
  isOver: boolean
}

type CachedPrefix = Warming | { readonly _tag: "Warm"; readonly until: number }

/**
 * Runs an effect that uses the cache under a key, no later than the time in milliseconds of the clock. It may succeed only
 * when the response has begun.
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

  /** Goes first. Whatever comes of it, the others go on: they read a warm cache, or the next of them goes first. */
  const warm = <A, E, R>(key: string, self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
    const own: Warming = { _tag: "Warming", waiting: new Set(), isOver: false }
    keep(key, own)
    const end = Effect.sync(() => {
      own.isOver = true
      for (const done of own.waiting) wake(done)
    })
    // A caller that stopped waiting may have warmed it meanwhile.
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
