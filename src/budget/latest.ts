/**
 * What changes, as a stream.
 */
import * as Effect from "effect/Effect"
import * as PubSub from "effect/PubSub"
import * as Stream from "effect/Stream"

/** What holds now and after every tick. Where ticks slide, a slow reader gets the latest only. */
export const latest = <A>(ticks: PubSub.PubSub<void>, now: Effect.Effect<A>): Stream.Stream<A> =>
  Stream.unwrap(
    Effect.map(PubSub.subscribe(ticks), (subscription) =>
      Stream.concat(Stream.succeed<void>(undefined), Stream.fromSubscription(subscription)).pipe(
        Stream.mapEffect(() => now)
      )
    )
  )
