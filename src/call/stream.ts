/** Streams whose reader is outside of Effect: opening one, observing what is read, and ending its call. */
import { bounds } from "../domain/bounds.ts"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type * as Accounting from "../Accounting.ts"
import { onAbort } from "./aborts.ts"
import type { Source } from "./silence.ts"
import { LlmError, type LlmErrorReason } from "../LlmError.ts"
import { type Answer, emptyAnswer, receivedOf, usageOf } from "../protocol/protocol.ts"
import type { ResponseInfo, Restore, Ticket } from "./models.ts"

// -----------------------------------------------------------------------------
// Ends
// -----------------------------------------------------------------------------

/** The end of a stream. */
export type Conclusion =
  | { readonly _tag: "Complete"; readonly actual: Accounting.Actual | undefined; readonly info: ResponseInfo }
  | { readonly _tag: "Failed"; readonly reason: LlmErrorReason }
  | { readonly _tag: "Abandoned" }

/** Concludes the ticket of a stream. The ticket of an abandoned one is settled when its scope closes. */
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
 * Opens a call in a scope of its own. The scope closes at once if the opening fails; otherwise the reader of the stream closes it.
 * Must run uninterruptible; `restore` is around the opening.
 */
export const inScope = <A, E>(
  opening: Effect.Effect<A, E, Scope.Scope>,
  restore: Restore
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

/** The part of one stream that was read. Changed in place. */
export class StreamProgress {
  answer: Answer = emptyAnswer
  /** The first reason why the stream failed. */
  failure: LlmErrorReason | undefined = undefined
  /** Whether there is nothing more to read. */
  isOver = false
  /** Whether the format is unknown, so that the stream is passed on unread. */
  isOpaque = false
  /** Set if a read failed. */
  broken: { readonly thrown: unknown } | undefined = undefined
  private readonly observed: (actual: Accounting.Actual) => void
  /** Whether the provider goes on with the answer after its reader has left. The id of such an answer is content. */
  private readonly goesOn: boolean

  constructor(observed: (actual: Accounting.Actual) => void, goesOn = false) {
    this.observed = observed
    this.goesOn = goesOn
  }

  /** The received part, for an error. It leaves out the text, because the reader has that. */
  get received(): NonNullable<LlmErrorReason["received"]> {
    return receivedOf(this.answer, "")
  }

  /** Notes the answer as it is after an event. */
  observe(answer: Answer, failureOf: (error: unknown) => LlmErrorReason): void {
    this.answer = this.goesOn && answer.id !== undefined ? { ...answer, started: true } : answer
    if (answer.error !== undefined) this.failure ??= failureOf(answer.error)
    const actual = usageOf(answer)
    if (actual !== undefined) this.observed(actual)
  }

  /** Notes the end of the stream. If the answer is incomplete, it failed for the reason `cut`. */
  ended(cut: () => LlmErrorReason): void {
    this.isOver = true
    if (!this.answer.complete && !this.isOpaque) this.failure ??= cut()
  }

  /** Notes that a read failed, as the reader's next read is going to. */
  broke(thrown: unknown, reason: LlmErrorReason): void {
    this.isOver = true
    this.broken = { thrown }
    this.failure ??= reason
  }

  /** Whether more must be read to decide between a retry and giving the stream to its reader. */
  get isUndecided(): boolean {
    const { answer, failure, isOpaque, isOver } = this
    return !answer.started && !answer.complete && failure === undefined && !isOpaque && !isOver
  }

  /** Ends the reader's stream as this one ended, by an error if it broke. */
  finish(): undefined {
    if (this.broken !== undefined) throw this.broken.thrown
    return undefined
  }

  /** The end of the stream, if it was read to its end. */
  get conclusion(): Conclusion {
    const { answer, failure } = this
    if (this.isGoingOn) return { _tag: "Complete", actual: undefined, info: answer }
    return failure === undefined
      ? { _tag: "Complete", actual: usageOf(answer), info: answer }
      : { _tag: "Failed", reason: failure }
  }

  /** The end of the stream, if its reader left it. */
  get left(): Conclusion {
    const isOpen = this.failure === undefined && !this.answer.complete
    return isOpen && !this.isGoingOn ? { _tag: "Abandoned" } : this.conclusion
  }

  /** Whether the answer has no end yet, although its reader has left or the connection broke. Its usage is unknown. */
  private get isGoingOn(): boolean {
    return this.goesOn && this.answer.id !== undefined && !this.answer.complete && this.answer.error === undefined
  }
}

/** How many pieces are held back until the first content. A stream with a longer beginning cannot be retried. */
export const maxHeld = bounds.pieces.max

/** A stream whose beginning has been read. */
export interface PeekedStream<Piece> {
  /** Reads up to the first content. Returns why the stream failed before that, if it did. */
  readonly begin: () => Promise<LlmErrorReason | undefined>
  /** The whole stream. Its end is reported once, even if its reader reads on or cancels afterwards. */
  readonly give: (ended: (conclusion: Conclusion) => void) => Source<Piece>
  /** The beginning that was read, with the end of the stream. */
  readonly replay: () => Source<Piece>
}

/**
 * Observes a stream while it is read. `advance` reads the next part, notes it in the progress, and adds to `ready` the pieces for
 * the reader. `leave` runs when the reader leaves the stream before its end.
 */
export const watch = <Piece>(
  progress: StreamProgress,
  advance: (ready: Array<Piece>) => Promise<void>,
  leave: (reason: unknown) => void = () => {}
): PeekedStream<Piece> => {
  /** Pieces that were read and not yet given to the reader. */
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
          conclude(progress.left)
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

/** Ends the calls of streams that were garbage collected, which nobody can read. */
export const forgotten = new FinalizationRegistry<() => void>((left) => left())

/**
 * A source as a `ReadableStream` that reads only when its reader does. The source is cancelled if the stream ends early: by its
 * reader, by an error, or by one of the signals, whose reason becomes the reader's error.
 */
export const streamOf = <Piece>(
  source: Source<Piece>,
  ...signals: ReadonlyArray<AbortSignal | undefined>
): ReadableStream<Piece> => {
  const token = {}
  const withdrawals: Array<() => void> = []
  /** Ends the running read, because the source may not react to its cancellation. */
  let leave: ((reason: unknown) => void) | undefined
  const throwIfAborted = (): void => signals.forEach((signal) => signal?.throwIfAborted())
  // This listener must not refer to the stream, or a long-lived signal would keep the stream from being garbage collected.
  const aborted = ({ reason }: AbortSignal): void => {
    end()
    source.cancel(reason)
    leave?.(reason)
  }
  const end = (): void => {
    forgotten.unregister(token)
    for (const withdraw of withdrawals.splice(0)) withdraw()
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
          // The reader gets no more pieces, so the call must end.
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
  for (const signal of signals) {
    if (signal !== undefined) withdrawals.push(onAbort(signal, () => aborted(signal)))
  }
  const before = signals.find((signal) => signal?.aborted)
  if (before !== undefined) aborted(before)
  return body
}
