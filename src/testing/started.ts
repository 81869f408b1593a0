/** Waits until the simulated provider works on a call that it has queued. */
import * as Effect from "effect/Effect"
import type { AcceptedCall } from "./engine.ts"

export const started = (call: AcceptedCall): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (call.phase !== "queued") return resume(Effect.void)
    call.onStart = () => resume(Effect.void)
  })
