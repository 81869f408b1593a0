/** Counts how many of some effects run at once. */
import * as Effect from "effect/Effect"

/** The numbers so far, and a function that counts an effect while it runs. */
export const countingAtOnce = () => {
  const seen = { now: 0, max: 0 }
  const around = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.suspend(() => {
      seen.max = Math.max(seen.max, ++seen.now)
      return Effect.ensuring(
        effect,
        Effect.sync(() => seen.now--)
      )
    })
  return { seen, around }
}
