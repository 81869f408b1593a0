/**
 * The beginning of a stream, which decides whether its call succeeded.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

/** Pulls a stream for as long as nothing is decided. The rest is the same stream, pulled on. */
export const peel = Effect.fnUntraced(function* <A, E, R>(
  self: Stream.Stream<A, E, R>,
  undecided: () => boolean
): Effect.fn.Return<readonly [head: ReadonlyArray<A>, rest: Stream.Stream<A, E, R>], E, R | Scope.Scope> {
  const pull = yield* Stream.toPull(self)
  const head: Array<A> = []
  let ended = false
  while (!ended && undecided()) {
    const chunk = yield* Effect.catchIf(pull, Cause.isDone, () => Effect.undefined)
    if (chunk === undefined) ended = true
    else head.push(...chunk)
  }
  return [head, ended ? Stream.empty : Stream.fromPull(Effect.succeed(pull))] as const
})
