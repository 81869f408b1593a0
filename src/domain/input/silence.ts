/** Bounds the silences of a stream: a read that takes too long fails, and its connection is closed. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { monotonic } from "./clock.ts"

/** A stream of pieces, such as bytes or events. */
export interface Source<Piece> {
  /** The next piece; undefined at the end. It rejects when the stream breaks. */
  readonly read: () => Promise<Piece | undefined>
  /** Ends the stream before its end. */
  readonly cancel: (reason?: unknown) => void
}

/** A connection, and whether its response has ended. */
export interface OpenResponse {
  readonly controller: AbortController
  isOver: boolean
}

/** How long a source may be silent. */
export interface Patience {
  readonly silence: Duration.Duration
  /** The error of a read that took too long. */
  readonly stalled: (silence: string) => Effect.Effect<unknown>
}

/** A source whose silences are bounded. */
export interface Bounded<Piece> extends Source<Piece> {
  /** Whether this is the error of a read that took too long. */
  readonly isStalled: (thrown: unknown) => boolean
}

/** A read that is under way. */
interface PendingRead {
  readonly since: number
  readonly reject: (error: unknown) => void
}

/**
 * Bounds the silences of a source until the scope closes. One fiber watches all of its reads, because a timer for each read
 * would cost more than the read. The time between reads does not count.
 */
export const bound = <Piece>(
  source: Source<Piece>,
  connection: OpenResponse,
  how: Patience
): Effect.Effect<Bounded<Piece>, never, Scope.Scope> =>
  Effect.flatMap(Effect.clockWith(Effect.succeed), (clock) => {
    const now = monotonic(clock)
    const watched = watch(source, connection, now)
    return Effect.as(Effect.forkScoped(guard(watched, connection, now, how)), watched.bounded)
  })

interface Watched<Piece> {
  readonly bounded: Bounded<Piece>
  /** The read that is under way. */
  readonly current: () => PendingRead | undefined
  /** Fails that read. */
  readonly stall: (error: unknown) => void
}

const watch = <Piece>({ cancel, read }: Source<Piece>, connection: OpenResponse, now: () => number): Watched<Piece> => {
  let current: PendingRead | undefined
  let stalledBy: { readonly error: unknown } | undefined
  return {
    current: () => current,
    stall: (error) => {
      stalledBy = { error }
      current?.reject(error)
    },
    bounded: {
      cancel,
      isStalled: (thrown) => stalledBy !== undefined && thrown === stalledBy.error,
      read: () =>
        new Promise((resolve, reject) => {
          if (stalledBy !== undefined) return reject(stalledBy.error)
          current = { since: now(), reject }
          read().then(
            (chunk) => {
              current = undefined
              if (chunk === undefined) connection.isOver = true
              resolve(chunk)
            },
            (thrown) => {
              current = undefined
              connection.isOver = true
              reject(thrown)
            }
          )
        })
    }
  }
}

const guard = Effect.fnUntraced(function* (
  { current, stall }: Pick<Watched<unknown>, "current" | "stall">,
  { controller }: OpenResponse,
  now: () => number,
  { silence, stalled }: Patience
): Effect.fn.Return<void> {
  const max = Duration.toMillis(silence)
  for (;;) {
    const reading = current()
    const at = now()
    const left = max - (at - (reading?.since ?? at))
    if (left > 0) {
      yield* Effect.sleep(left)
      continue
    }
    const error = yield* stalled(Duration.format(silence))
    // Data may have arrived while the error was made.
    if (current() !== reading) continue
    stall(error)
    return controller.abort(error)
  }
})
