/** Runs the playground's simulations beside the page, so that it stays responsive. */
import * as Effect from "effect/Effect"
import { runs } from "../../src/playground/runs.ts"

addEventListener("message", ({ data: { id, settings } }) => {
  Effect.runPromise(runs(settings)).then(
    (value) => self.postMessage({ id, value }),
    (error) => self.postMessage({ id, error: String(error) })
  )
})
