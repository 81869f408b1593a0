import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"

/** The error that a promise rejects with; fails if it does not reject. */
export const rejection = (promise: () => PromiseLike<unknown>) =>
  Effect.promise(() =>
    promise().then(
      () => assert.fail("expected a failure"),
      (error: unknown) => error
    )
  )
