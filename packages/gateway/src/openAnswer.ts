/** The life of one answer. */
import type * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { ServerResponse } from "node:http"

/** Answers one request: by effects, or driven by callbacks. */
export interface OpenAnswer {
  /** Runs an effect, and ends with it, unless the effect hands over to another effect or to callbacks. */
  readonly run: (answer: Effect.Effect<void>) => void
  /** Continues by callbacks until the returned function is called. `left` is called if the client disconnects. */
  readonly drive: (left: () => void) => () => void
}

/** Makes an answer, and calls `over` once: when it has ended, or its client has disconnected. */
export const make = (
  response: ServerResponse,
  fork: (answer: Effect.Effect<void>) => Fiber.Fiber<void>,
  over: () => void
): OpenAnswer => {
  /** Ends the effect or the callbacks that answer now. If earlier ones end later, that is not the end of the answer. */
  let current: (() => void) | undefined
  let isOver = false
  const end = (ended: () => void): void => {
    if (current !== ended || isOver) return
    isOver = true
    over()
  }
  response.once("close", () => {
    if (current === undefined) {
      isOver = true
      over()
    } else if (!response.writableFinished) current()
  })
  return {
    run: (answer) => {
      const interrupt = (): void => fiber.interruptUnsafe()
      current = interrupt
      const fiber = fork(answer)
      fiber.addObserver(() => end(interrupt))
    },
    drive: (left) => {
      current = left
      return () => end(left)
    }
  }
}
