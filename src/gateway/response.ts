/**
 * Responses: written as fast as the client reads, and kept alive while there is nothing to write.
 *
 * Clients bear silence only so long (openai and Anthropic's SDK about 5 minutes, others less), and headers without a body
 * no longer. A few bytes that they skip, every ten seconds, they bear for ten minutes and more.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { ServerResponse } from "node:http"
import type { Source } from "../fetch/engine.ts"

/** A client that reads nothing for so long is gone, or wants to hold memory. */
const longestStall = Duration.minutes(1)

const drained = (response: ServerResponse): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    const done = () => resume(Effect.void)
    response.once("drain", done)
    return Effect.sync(() => void response.off("drain", done))
  }).pipe(
    Effect.timeoutOrElse({
      duration: longestStall,
      // Its end interrupts the exchange.
      orElse: () =>
        Effect.andThen(
          Effect.sync(() => response.destroy()),
          Effect.never
        )
    })
  )

/** Ends a response; done when the client has taken most of it. */
export const end = (response: ServerResponse, chunk?: Uint8Array | string): Effect.Effect<void> =>
  Effect.suspend(() => {
    response.end(chunk)
    return response.writableNeedDrain ? drained(response) : Effect.void
  })

/** Writes a body until it is over, or the client has no room for more of it. */
const flow = async (response: ServerResponse, { read }: Source): Promise<"over" | "full"> => {
  for (;;) {
    const chunk = await read()
    if (chunk === undefined) return "over"
    if (!response.write(chunk)) return "full"
  }
}

/** Writes a body to its end. One that breaks breaks the connection, as it did at the provider. */
export const relay = (response: ServerResponse, source: Source): Effect.Effect<void> =>
  Effect.gen(function* () {
    while ((yield* Effect.tryPromise(() => flow(response, source))) === "full") yield* drained(response)
    return yield* end(response)
  }).pipe(
    Effect.catch(() => Effect.sync(() => void response.destroy())),
    Effect.onInterrupt(() => Effect.sync(() => source.cancel("the client hung up")))
  )

/** A response that may have to begin before it is known what it will be. */
export interface Held {
  readonly response: ServerResponse
  readonly contentType: string
  /** What keeps it alive: clients skip it. */
  readonly text: string
  /** Whether it has begun. */
  began: boolean
}

/** Keeps responses alive, from when they are added until they are removed. */
export interface Keeper {
  readonly add: (held: Held) => void
  readonly remove: (held: Held) => void
}

/** The timer looks so often within the times that it keeps, and at least each second. */
const looks = 4

/**
 * Makes a keeper: nothing is said for `silence`, so that the status can still be the provider's, and something after that
 * `every` so often. One timer serves all responses, so that a quick answer costs nothing.
 */
export const makeKeeper = Effect.fnUntraced(function* (
  silence: Duration.Duration,
  every: Duration.Duration,
  began: (held: Held) => void
): Effect.fn.Return<Keeper, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const now = () => Number(clock.currentTimeNanosUnsafe()) / 1e6
  const [silenceMillis, everyMillis] = [Duration.toMillis(silence), Duration.toMillis(every)]
  /** When something is to be said. */
  const due = new Map<Held, number>()
  const keep = (held: Held): void => {
    const { contentType, response, text } = held
    if (!held.began) {
      response.writeHead(200, { "content-type": contentType, "cache-control": "no-cache" })
      held.began = true
      began(held)
    }
    // Who does not read it needs no more of it.
    if (!response.writableNeedDrain) response.write(text)
  }
  const tick = Effect.sync(() => {
    const at = now()
    for (const [held, when] of due) {
      if (when > at) continue
      due.set(held, at + everyMillis)
      keep(held)
    }
  })
  const pause = Effect.sleep(Math.min(1_000, silenceMillis / looks, everyMillis / looks))
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(pause, tick)))
  return {
    add: (held) => void due.set(held, now() + silenceMillis),
    remove: (held) => void due.delete(held)
  }
})
