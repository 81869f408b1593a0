/**
 * Responses: written as fast as the client reads, and kept alive while there is nothing to write.
 *
 * Clients bear silence only so long (openai and Anthropic's SDK about 5 minutes, others less), and headers without a body
 * no longer. A few bytes that they skip, every ten seconds, they bear for ten minutes and more.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
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

/** Writes a chunk; done when the client has room for the next. */
const write = (response: ServerResponse, chunk: Uint8Array | string): Effect.Effect<void> =>
  Effect.suspend(() => (response.write(chunk) ? Effect.void : drained(response)))

/** Ends a response; done when the client has taken most of it. */
export const end = (response: ServerResponse, chunk?: Uint8Array | string): Effect.Effect<void> =>
  Effect.suspend(() => {
    response.end(chunk)
    return response.writableNeedDrain ? drained(response) : Effect.void
  })

/** Writes a body to its end. One that breaks breaks the connection, as it did at the provider. */
export const relay = (response: ServerResponse, source: Source): Effect.Effect<void> =>
  Effect.gen(function* () {
    for (;;) {
      const chunk = yield* Effect.tryPromise(source.read)
      if (chunk === undefined) return yield* end(response)
      yield* write(response, chunk)
    }
  }).pipe(
    Effect.catch(() => Effect.sync(() => void response.destroy())),
    Effect.onInterrupt(() => Effect.sync(() => source.cancel("the client hung up")))
  )

/** How a response is kept alive. */
export interface Hold {
  /** How long nothing is said, so that the status can still be the provider's. */
  readonly silence: Duration.Duration
  /** How often something is said after that. */
  readonly every: Duration.Duration
  readonly contentType: string
  /** What is said: clients skip it. */
  readonly text: string
  /** The response begins before it is known what it will be. */
  readonly began: () => void
}

/** Does the work, and keeps the response alive meanwhile. */
export const held = <A, E, R>(
  response: ServerResponse,
  { began, contentType, every, silence, text }: Hold,
  work: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> => {
  const keep = Effect.gen(function* () {
    yield* Effect.sleep(silence)
    response.writeHead(200, { "content-type": contentType, "cache-control": "no-cache" })
    began()
    for (;;) {
      // Who does not read it needs no more of it.
      if (!response.writableNeedDrain) response.write(text)
      yield* Effect.sleep(every)
    }
  })
  return Effect.flatMap(Effect.forkChild(keep), (keeper) => Effect.onExit(work, () => Fiber.interrupt(keeper)))
}
