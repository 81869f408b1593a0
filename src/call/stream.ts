/**
 * Streams that somebody reads after their call was opened: how one is opened, how it is watched while its reader reads it, and
 * what its end means.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type * as Accounting from "../Accounting.ts"
import type { Source } from "../domain/input/silence.ts"
import { LlmError, type LlmErrorReason } from "../LlmError.ts"
import { type Answer, emptyAnswer, receivedOf, usageOf } from "../protocol/protocol.ts"
import type { ResponseInfo, Ticket } from "./models.ts"

// -----------------------------------------------------------------------------
// Ends
// -----------------------------------------------------------------------------

/** How a stream ended. `why` is the reason that its reader gave. */
export type Conclusion =
  | { readonly _tag: "Complete"; readonly actual: Accounting.Actual | undefined; readonly info: ResponseInfo }
  | { readonly _tag: "Failed"; readonly reason: LlmErrorReason }
  | { readonly _tag: "Abandoned"; readonly why: unknown }

/** Tells the call how its stream ended. One that was abandoned is settled when its scope closes. */
export const conclude = (ticket: Ticket, conclusion: Conclusion): Effect.Effect<void> => {
  switch (conclusion._tag) {
    case "Complete":
      return ticket.succeed(conclusion.actual, conclusion.info)
    case "Failed":
      return ticket.fail(new LlmError({ reason: conclusion.reason }))
    case "Abandoned":
      return Effect.void
  }
}

// -----------------------------------------------------------------------------
// Opening
// -----------------------------------------------------------------------------

/**
 * Opens a call in a scope of its own, which is closed at once if that fails; otherwise the reader of the stream closes it. To be
 * run where nothing interrupts; `restore` is around the opening.
 */
export const inScope = <A, E>(
  opening: Effect.Effect<A, E, Scope.Scope>,
  restore: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
): Effect.Effect<{ readonly opened: A; readonly scope: Scope.Closeable }, E> =>
  Effect.flatMap(Scope.make(), (scope) =>
    Effect.map(
      Effect.onExit(restore(Scope.provide(opening, scope)), (exit) =>
        Exit.isSuccess(exit) ? Effect.void : Scope.close(scope, exit)
      ),
      (opened) => ({ opened, scope })
    )
  )

// -----------------------------------------------------------------------------
// Watching
// -----------------------------------------------------------------------------

/** What is known of a stream so far. It is mutable and belongs to one stream. */
export class StreamProgress {
  answer: Answer = emptyAnswer
  /** Why the stream did not succeed. The first reason counts. */
  failure: LlmErrorReason | undefined = undefined
  /** Whether there is nothing more to be read. */
  isOver = false
  /** Whether it can be passed on only, and not be understood. */
  isOpaque = false
  private broken: { readonly thrown: unknown } | undefined = undefined
  private readonly observed: (actual: Accounting.Actual) => void

  constructor(observed: (actual: Accounting.Actual) => void) {
    this.observed = observed
  }

  /** What came of the answer, without its text, which the reader has. */
  get received(): NonNullable<LlmErrorReason["received"]> {
    return receivedOf(this.answer, "")
  }

  /** Takes in an event, by the answer as it is after it. */
  observe(answer: Answer, failureOf: (error: unknown) => LlmErrorReason): void {
    this.answer = answer
    if (answer.error !== undefined) this.failure ??= failureOf(answer.error)
    const actual = usageOf(answer)
    if (actual !== undefined) this.observed(actual)
  }

  /** The stream has ended. `cut` is why it failed if its answer is not whole. */
  ended(cut: () => LlmErrorReason): void {
    this.isOver = true
    if (!this.answer.complete && !this.isOpaque) this.failure ??= cut()
  }

  /** A read failed, and so will the reader's. */
  broke(thrown: unknown, reason: LlmErrorReason): void {
    this.isOver = true
    this.broken = { thrown }
    this.failure ??= reason
  }

  /** Whether a retry is still possible, and not yet called for. */
  get isUndecided(): boolean {
    const { answer, failure, isOpaque, isOver } = this
    return !answer.started && !answer.complete && failure === undefined && !isOpaque && !isOver
  }

  /** Ends a reader as the stream ended. */
  finish(): undefined {
    if (this.broken !== undefined) throw this.broken.thrown
    return undefined
  }

  /** What it means that the stream was read to its end, or left where nothing more could come. */
  get conclusion(): Conclusion {
    const { answer, failure } = this
    return failure === undefined
      ? { _tag: "Complete", actual: usageOf(answer), info: answer }
      : { _tag: "Failed", reason: failure }
  }

  /** What it means that its reader left it. */
  left(why: unknown): Conclusion {
    return this.failure === undefined && !this.answer.complete ? { _tag: "Abandoned", why } : this.conclusion
  }
}

/** So many pieces of a stream are held back for its first content: one with a longer beginning cannot be retried. */
const maxHeld = 1_000

/** A stream as far as it was read. */
export interface PeekedStream<Piece> {
  /** Reads up to the first content. What is given is why the stream failed before it. */
  readonly begin: () => Promise<LlmErrorReason | undefined>
  /** What was read already, and the rest. Its end is reported once, however often its reader comes to an end. */
  readonly give: (ended: (conclusion: Conclusion) => void) => Source<Piece>
  /** The stream as far as it was read, ending as it did. */
  readonly replay: () => Source<Piece>
}

/**
 * Watches a stream as it is read; nothing is held back. `advance` reads on, notes in the progress what came, and adds to
 * `ready` what is to be passed on of it. `leave` is told when the reader leaves the stream before its end.
 */
export const watch = <Piece>(
  progress: StreamProgress,
  advance: (ready: Array<Piece>) => Promise<void>,
  leave: (reason: unknown) => void = () => {}
): PeekedStream<Piece> => {
  /** What was read and not given yet. */
  const ready: Array<Piece> = []

  const next = async (): Promise<Piece | undefined> => {
    for (;;) {
      const piece = ready.shift()
      if (piece !== undefined || progress.isOver) return piece
      await advance(ready)
    }
  }

  return {
    begin: async () => {
      while (progress.isUndecided && ready.length < maxHeld) await advance(ready)
      return progress.answer.started ? undefined : progress.failure
    },
    give: (ended) => {
      let hasEnded = false
      const conclude = (conclusion: Conclusion): void => {
        if (!hasEnded) ended(conclusion)
        hasEnded = true
      }
      return {
        read: async () => {
          const piece = await next()
          if (piece !== undefined) return piece
          conclude(progress.conclusion)
          return progress.finish()
        },
        cancel: (why) => {
          conclude(progress.left(why))
          leave(why)
        }
      }
    },
    replay: () => ({
      read: async () => ready.shift() ?? progress.finish(),
      cancel: () => {}
    })
  }
}

/** A stream that was garbage collected will never be read. */
const forgotten = new FinalizationRegistry<() => void>((left) => left())

/**
 * A source as a stream that is read as its reader asks. What ends it before its end cancels the source. A signal that aborts
 * does so, and its reason is the reader's error.
 */
export const streamOf = <Piece>(
  source: Source<Piece>,
  ...signals: ReadonlyArray<AbortSignal | undefined>
): ReadableStream<Piece> => {
  const token = {}
  /** Ends the read that is under way: whether the source heeds its end is not known. */
  let leave: ((reason: unknown) => void) | undefined
  const throwIfAborted = (): void => signals.forEach((signal) => signal?.throwIfAborted())
  // It must not hold the stream, which could not be forgotten then as long as the signals live.
  const aborted = (event: { readonly target: unknown }): void => {
    const { reason } = event.target as AbortSignal
    end()
    source.cancel(reason)
    leave?.(reason)
  }
  const end = (): void => {
    forgotten.unregister(token)
    for (const signal of signals) signal?.removeEventListener("abort", aborted)
  }
  const body = new ReadableStream<Piece>(
    {
      pull: async (controller) => {
        try {
          throwIfAborted()
          const piece = await new Promise<Piece | undefined>((resolve, reject) => {
            leave = reject
            source.read().then(resolve, reject)
          })
          throwIfAborted()
          if (piece !== undefined) return controller.enqueue(piece)
          end()
          controller.close()
        } catch (thrown) {
          end()
          // Nobody reads on: its call ends, whatever it was that could not be passed on.
          source.cancel(thrown)
          controller.error(signals.find((signal) => signal?.aborted)?.reason ?? thrown)
        } finally {
          leave = undefined
        }
      },
      cancel: (reason) => {
        end()
        source.cancel(reason)
      }
    },
    { highWaterMark: 0 }
  )
  forgotten.register(body, () => source.cancel("nobody reads the body"), token)
  for (const signal of signals) signal?.addEventListener("abort", aborted, { once: true })
  const before = signals.find((signal) => signal?.aborted)
  if (before !== undefined) aborted({ target: before })
  return body
}
