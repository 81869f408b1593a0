import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"

/** What a promise is rejected with, which it must be. */
export const rejection = (promise: () => PromiseLike<unknown>) =>
  Effect.promise(() =>
    promise().then(
      () => assert.fail("expected a failure"),
      (error: unknown) => error
    )
  )
