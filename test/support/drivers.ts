/** The two ways of a call: through Effect only, and at once where nothing has to wait. */
import * as Effect from "effect/Effect"
import * as SyncForm from "../../src/domain/syncForm.ts"

/** Runs an effect, all of whose calls go through Effect if `isOnly`. */
export const throughEffect = <A, E, R>(self: Effect.Effect<A, E, R>, isOnly = true): Effect.Effect<A, E, R> =>
  Effect.provideService(self, SyncForm.OnlyEffect, isOnly)
